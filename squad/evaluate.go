package squad

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Report is the outcome of an evaluation.
type Report struct {
	Version string // whose rules were followed: "1.1" or "2.0"
	Scores

	// HasAns and NoAns are the scores of the questions with and without an answer. They are nil if
	// there are no such questions, and in version 1.1.
	HasAns, NoAns *Scores

	// Best is set if there were no-answer probabilities, Analysis if one was asked for too.
	Best     *BestThresholds
	Analysis *Analysis

	// Missing holds the ids of the questions without a prediction, in the order of the data set.
	// They get no points in version 1.1, and version 2.0 leaves them out.
	Missing []string

	messages []string // lines the script prints before the result
}

// Scores are per cent of a number of questions.
type Scores struct {
	ExactMatch float64
	F1         float64
	Total      int
}

// EvaluateOptions are the options of the official scripts. The zero value is their default.
type EvaluateOptions struct {
	Version string // whose rules to follow: "1.1" or "2.0"; "" is the data set's own version

	// NAProbs are the probabilities that a question has no answer, or any scores that rise with
	// them, such as null odds. There must be one for every question with a prediction. They belong
	// to version 2.0, as do the options below.
	NAProbs []NAProb

	NAProbThresh *float64 // the probability above which a prediction counts as "no answer"; nil is 1
	Analyze      bool     // whether to compute precision-recall curves, which need NAProbs
}

// Evaluate scores answers, which are by question id, as evaluate-v1.1.py or evaluate-v2.0.py does. It
// ignores answers to other questions. In version 2.0, "" means that there is no answer.
//
// A question without a prediction gets no points by the rules of 1.1. The script for 2.0 stops there;
// Evaluate leaves such questions out and reports them as missing. Evaluate returns an error, as the
// scripts do, if there is nothing to score, or by the rules of 1.1 if a question that was answered has
// no reference answer.
func Evaluate(d *Dataset, answers map[string]string, opts *EvaluateOptions) (*Report, error) {
	if opts == nil {
		opts = &EvaluateOptions{}
	}
	switch version := cmp.Or(opts.Version, strings.TrimPrefix(d.Version, "v")); version {
	case "1.1":
		if opts.NAProbs != nil {
			return nil, errors.New("evaluate: no-answer probabilities go with the rules of version 2.0, not 1.1")
		}
		return evaluateV1(d, answers)
	case "2.0":
		return evaluateV2(d, answers, opts)
	default:
		return nil, fmt.Errorf("evaluate: the version is %q, want 1.1 or 2.0; choose the rules to follow", version)
	}
}

func evaluateV1(d *Dataset, answers map[string]string) (*Report, error) {
	r := &Report{Version: "1.1"}
	if d.Version != "1.1" {
		r.messages = append(r.messages, "Evaluation expects v-1.1, but got dataset with v-"+d.Version)
	}
	var sum tally
	for p := range d.All() {
		for i := range p.QAs {
			q := &p.QAs[i]
			answer, ok := answers[q.ID]
			if !ok {
				r.Missing = append(r.Missing, q.ID)
				r.messages = append(r.messages, "Unanswered question "+q.ID+" will receive score 0.")
				sum.add(0, 0)
				continue
			}
			if len(q.Answers) == 0 {
				return nil, fmt.Errorf("evaluate: question %q has no reference answer; "+
					"data with unanswerable questions follows the rules of version 2.0", q.ID)
			}
			var exact, f1 float64
			words := normalize(answer)
			for _, gold := range q.Answers {
				goldWords := normalize(gold.Text)
				exact = max(exact, exactMatch(words, goldWords))
				f1 = max(f1, overlapF1(words, goldWords))
			}
			sum.add(exact, f1)
		}
	}
	if sum.total == 0 {
		return nil, errors.New("evaluate: the data set has no questions")
	}
	r.Scores = sum.scores()
	return r, nil
}

// A tally sums up scores between 0 and 1 in the order they come, which decides the last digits.
type tally struct {
	exact, f1 float64
	total     int
}

func (t *tally) add(exact, f1 float64) {
	t.exact += exact
	t.f1 += f1
	t.total++
}

func (t *tally) scores() Scores {
	n := float64(t.total)
	return Scores{ExactMatch: 100 * t.exact / n, F1: 100 * t.f1 / n, Total: t.total}
}

func exactMatch(words, gold []string) float64 {
	if slices.Equal(words, gold) {
		return 1
	}
	return 0
}

// overlapF1 is the harmonic mean of precision and recall of the words as multisets.
func overlapF1(words, gold []string) float64 {
	left := make(map[string]int, len(gold))
	for _, w := range gold {
		left[w]++
	}
	same := 0
	for _, w := range words {
		if left[w] > 0 {
			left[w]--
			same++
		}
	}
	if same == 0 {
		return 0
	}
	precision := float64(same) / float64(len(words))
	recall := float64(same) / float64(len(gold))
	return 2 * precision * recall / (precision + recall)
}
