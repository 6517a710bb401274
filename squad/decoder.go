package squad

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tfbert/go/internal/pymath"
)

// A RawResult is what the model makes of one feature. For each position it holds one logit that the
// answer starts there and one that it ends there.
type RawResult struct {
	UniqueID               int32 // of the feature
	StartLogits, EndLogits []float32
}

// A Decoder finds the answers in the logits. Its zero value decodes as the reference scripts do by default.
type Decoder struct {
	NBestSize       int // answers that are ranked; 0 is DefaultNBestSize
	MaxAnswerLength int // word pieces of an answer; 0 is DefaultMaxAnswerLength

	// WithNegative allows a question to have no answer in its passage, as in SQuAD 2.0. The answer
	// is "" if "no answer" scores more than NullScoreDiffThreshold above the best text.
	WithNegative           bool
	NullScoreDiffThreshold float64
}

// A Prediction is the answer to one question and the runners-up.
type Prediction struct {
	ID     string
	Answer string
	NBest  []Candidate // best first; never empty

	// NullOdds is the score of "no answer" less that of the best text. It is set only with
	// WithNegative.
	NullOdds float64

	// Warning says why there is no text to choose from: with WithNegative, a passage without word
	// pieces or without a valid span. The reference scripts crash there. The answer is then "", and
	// NullOdds is the score of "no answer" alone, or 1000000, as in the scripts, without features.
	Warning string
}

// A Candidate is one entry of an n-best list.
type Candidate struct {
	Text                 string
	Probability          float64 // among the list's entries
	StartLogit, EndLogit float64

	// The candidate was read from the words StartWord to EndWord of the example, both included, in
	// its feature number Window. All three are -1 if the candidate is not a text of the passage.
	// Text begins at byte Offset of these words, joined by spaces.
	Window, StartWord, EndWord, Offset int
}

func (c *Candidate) score() float64 { return c.StartLogit + c.EndLogit }

// noScore is the score of "no answer" before any window is looked at.
const noScore = 1000000.0

// emptyAnswer is the text that the reference scripts write if they find none.
const emptyAnswer = "empty"

// Check returns an error if a field of d is out of range.
func (d *Decoder) Check() error {
	switch {
	case d.NBestSize < 0:
		return fmt.Errorf("n_best_size is %d: it must be at least 1", d.NBestSize)
	case d.MaxAnswerLength < 0:
		return fmt.Errorf("max_answer_length is %d: it must be at least 1", d.MaxAnswerLength)
	case math.IsNaN(d.NullScoreDiffThreshold):
		return errors.New("null_score_diff_threshold is NaN: it must be a number")
	}
	return nil
}

// Decode ranks the answers to ex. features are all features of ex, and results is what the model made
// of them, in the same order. Logits must cover the tokens of a feature. If they also cover its padding,
// that takes up places among the n best starts and ends, as in the reference.
func (d *Decoder) Decode(ex *Example, features []Feature, results []RawResult) (Prediction, error) {
	if err := d.Check(); err != nil {
		return Prediction{}, err
	}
	if len(results) != len(features) {
		return Prediction{}, fmt.Errorf("decode question %q: got %d results for %d features",
			ex.ID, len(results), len(features))
	}
	g := d.Begin(ex)
	for i := range features {
		if err := g.Add(&features[i], &results[i]); err != nil {
			return Prediction{}, err
		}
	}
	return g.Prediction(), nil
}

func (d *Decoder) nBestSize() int { return cmp.Or(d.NBestSize, DefaultNBestSize) }

// A LogitError reports a logit that has no order, NaN or +Inf: the model's weights are broken, or they
// overflow in the precision that it runs in.
type LogitError struct {
	Row      string // "start" or "end"
	Position int
	Value    float32
}

func (e *LogitError) Error() string {
	return fmt.Sprintf("the %s logit at position %d is %v", e.Row, e.Position, e.Value)
}

// checkResult returns an error if r cannot be the result of f.
func checkResult(f *Feature, r *RawResult) error {
	if r.UniqueID != f.UniqueID {
		return fmt.Errorf("got the result of feature %d, want that of %d", r.UniqueID, f.UniqueID)
	}
	for _, logits := range [...]struct {
		name string
		v    []float32
	}{{"start", r.StartLogits}, {"end", r.EndLogits}} {
		if len(logits.v) < f.Len || len(logits.v) > len(f.InputIDs) {
			return fmt.Errorf("got %d %s logits for a feature of length %d with %d tokens",
				len(logits.v), logits.name, len(f.InputIDs), f.Len)
		}
		for pos, x := range logits.v {
			// NaN has no order, and with +Inf every probability would be NaN.
			if x != x || x > math.MaxFloat32 {
				return &LogitError{Row: logits.name, Position: pos, Value: x}
			}
		}
	}
	return nil
}

// noText returns a candidate that is not a text of the passage.
func noText(text string, start, end float64) Candidate {
	return Candidate{Text: text, StartLogit: start, EndLogit: end, Window: -1, StartWord: -1, EndWord: -1}
}

// setProbabilities sets the softmax over the scores of list, summed in its order.
func setProbabilities(list []Candidate) {
	best := math.Inf(-1)
	for _, c := range list {
		best = max(best, c.score())
	}
	sum := 0.0
	for i := range list {
		c := &list[i]
		c.Probability = pymath.Exp(c.score() - best)
		sum += c.Probability
	}
	for i := range list {
		list[i].Probability /= sum
	}
}

// Merge ranks the answers to one question from several passages, as if these were windows of one.
// predictions is what Decode made of each passage. "No answer" has the lowest of its scores. Equal
// texts from different passages all stay. of[i] is the index in predictions of the passage of
// merged.NBest[i], or -1 if that candidate is not a text.
func (d *Decoder) Merge(predictions []Prediction) (merged Prediction, of []int) {
	type source struct {
		Candidate
		of int
	}
	var list []source
	null := source{noText("", 0, 0), -1}
	score := noScore
	for i, p := range predictions {
		merged.ID = p.ID
		for _, c := range p.NBest {
			if c.Window >= 0 {
				list = append(list, source{c, i})
			} else if p.NullOdds != noScore && c.score() < score {
				null.Candidate, score = c, c.score()
			}
		}
	}
	better := func(a, b source) int { return cmp.Compare(b.score(), a.score()) }
	n := d.nBestSize()
	slices.SortStableFunc(list, better)
	list = list[:min(n, len(list))]
	switch {
	case d.WithNegative:
		at, _ := slices.BinarySearchFunc(list, null, func(c, null source) int { return cmp.Or(better(c, null), -1) })
		list = slices.Insert(list, at, null)
		list = list[:min(len(list), max(n, at+1))]
	case len(list) == 0:
		list = append(list, source{noText(emptyAnswer, 0, 0), -1})
	}
	for _, s := range list {
		merged.NBest, of = append(merged.NBest, s.Candidate), append(of, s.of)
	}
	setProbabilities(merged.NBest)
	d.choose(&merged, score)
	return merged, of
}

// choose sets the answer from the n-best list and the score of "no answer".
func (d *Decoder) choose(p *Prediction, scoreNull float64) {
	if !d.WithNegative {
		p.Answer = p.NBest[0].Text
		return
	}
	i := slices.IndexFunc(p.NBest, func(c Candidate) bool { return c.Text != "" })
	if i < 0 {
		p.NullOdds = scoreNull
		p.Warning = "no valid span among the best starts and ends: the reference scripts crash here"
		return
	}
	best := p.NBest[i]
	p.NullOdds = scoreNull - best.StartLogit - best.EndLogit
	if !(p.NullOdds > d.NullScoreDiffThreshold) {
		p.Answer = best.Text
	}
}
