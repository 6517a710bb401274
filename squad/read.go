package squad

import (
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// ReadAnswers reads predictions.json: the answer to each question by its id. Of a repeated id the
// last answer counts, as in Python.
func ReadAnswers(r io.Reader) (map[string]string, error) {
	answers := make(map[string]string)
	s := newJSONSource(r)
	err := s.document(func(id string) error {
		var answer string
		err := s.string("the answer to question "+strconv.Quote(id), &answer)
		answers[id] = answer
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("squad: read predictions: %w", err)
	}
	return answers, nil
}

// An NAProb says how likely it is that a question has no answer, as a probability or, in
// null_odds.json, as a difference of logits.
type NAProb struct {
	ID   string
	Prob float64
}

// ReadNAProbs reads null_odds.json or another file of the same form, in its order. A repeated id
// has its first place and its last value, as in Python.
func ReadNAProbs(r io.Reader) ([]NAProb, error) {
	var probs []NAProb
	index := make(map[string]int)
	s := newJSONSource(r)
	err := s.document(func(id string) error {
		what := "the value of question " + strconv.Quote(id)
		if kind := s.dec.PeekKind(); kind != jsontext.KindNumber {
			return s.wrongKind(what, kind, "a number")
		}
		v, err := s.dec.ReadValue()
		if err != nil {
			return err
		}
		prob, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return fmt.Errorf("%s is %s, which is out of range", what, v)
		}
		if i, ok := index[id]; ok {
			probs[i].Prob = prob
			return nil
		}
		index[id] = len(probs)
		probs = append(probs, NAProb{id, prob})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("squad: read no-answer odds: %w", err)
	}
	return probs, nil
}
