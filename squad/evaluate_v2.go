package squad

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

func evaluateV2(d *Dataset, answers map[string]string, opts *EvaluateOptions) (*Report, error) {
	r := &Report{Version: "2.0"}
	results, err := r.score(d, answers)
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, errors.New("evaluate: no question of the data set has a prediction")
	}
	ranked, err := rank(results, opts.NAProbs)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}

	thresh := 1.0
	if opts.NAProbThresh != nil {
		thresh = *opts.NAProbThresh
	}
	var all, hasAns, noAns tally
	for i := range results {
		q := &results[i]
		class := &noAns
		if q.hasAns {
			class = &hasAns
		}
		exact, f1 := q.exact, q.f1
		if q.naProb.above(thresh) {
			exact, f1 = 1, 1
			if q.hasAns {
				exact, f1 = 0, 0
			}
		}
		all.add(exact, f1)
		class.add(exact, f1)
	}
	r.Scores = all.scores()
	if hasAns.total > 0 {
		r.HasAns = new(hasAns.scores())
	}
	if noAns.total > 0 {
		r.NoAns = new(noAns.scores())
	}
	if opts.NAProbs != nil {
		r.Best = bestThresholds(ranked)
	}
	if opts.NAProbs != nil && opts.Analyze {
		r.Analysis = analyze(results, ranked)
	}
	return r, nil
}

// A result is what is known about a question that has a prediction.
type result struct {
	id        string
	hasAns    bool
	predicted bool // an answer that is not empty
	exact, f1 float64
	naProb    number
}

// score scores every question that has a prediction, in the order of the data set. Of a repeated id the first place
// and the last question count, as in the script's dictionaries.
func (r *Report) score(d *Dataset, answers map[string]string) ([]result, error) {
	var results []result
	at := make(map[string]int) // in results
	for p := range d.All() {
		for i := range p.QAs {
			q := &p.QAs[i]
			if q.badAnswers != nil {
				return nil, q.badAnswers
			}
			answer, ok := answers[q.ID]
			if !ok {
				r.Missing = append(r.Missing, q.ID)
				r.messages = append(r.messages, "Missing prediction for "+q.ID)
				continue
			}
			exact, f1 := scoreV2(answer, q.Answers)
			scored := result{
				id:        q.ID,
				hasAns:    len(q.Answers) > 0,
				predicted: answer != "",
				exact:     exact,
				f1:        f1,
			}
			if i, ok := at[q.ID]; ok {
				results[i] = scored
			} else {
				at[q.ID] = len(results)
				results = append(results, scored)
			}
		}
	}
	return results, nil
}

// scoreV2 compares an answer with the references that have words, or with "" if there are none.
func scoreV2(answer string, golds []string) (exact, f1 float64) {
	words := normalize(answer)
	none := true
	for _, gold := range golds {
		goldWords := normalize(gold)
		if len(goldWords) == 0 {
			continue
		}
		none = false
		exact = max(exact, exactMatch(words, goldWords))
		f1 = max(f1, overlapF1(words, goldWords))
	}
	if none {
		exact = exactMatch(words, nil)
		f1 = exact
	}
	return exact, f1
}

// rank sets every result's probability and returns the results from the least probable to have no
// answer to the most, those of equal probability in the order of probs. Without probs every
// probability is 0, as it is in the script.
func rank(results []result, probs []NAProb) ([]*result, error) {
	if probs == nil {
		return nil, nil
	}
	byID := make(map[string]*result, len(results))
	for i := range results {
		byID[results[i].id] = &results[i]
	}
	ranked := make([]*result, 0, len(results))
	for _, p := range probs {
		q, ok := byID[p.ID]
		switch {
		case !ok: // not in the data set, or without a prediction
			continue
		case q == nil:
			return nil, fmt.Errorf("the no-answer probability of question %q appears twice", p.ID)
		case math.IsNaN(p.Prob):
			return nil, fmt.Errorf("the no-answer probability of question %q is NaN", p.ID)
		}
		q.naProb = p.number()
		ranked = append(ranked, q)
		byID[p.ID] = nil
	}
	for i := range results {
		if byID[results[i].id] != nil {
			return nil, fmt.Errorf("question %q has a prediction but no no-answer probability; "+
				"both files must be of the same run", results[i].id)
		}
	}
	slices.SortStableFunc(ranked, func(a, b *result) int { return a.naProb.compare(&b.naProb) })
	return ranked, nil
}
