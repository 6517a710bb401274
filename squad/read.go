package squad

import (
	"fmt"
	"io"
)

// ReadAnswers reads predictions.json and returns the answer to each question by its id. If an id is
// repeated, its last answer counts, as in Python.
func ReadAnswers(r io.Reader) (map[string]string, error) {
	answers := make(map[string]string)
	s := newJSONSource(r, "predictions")
	err := s.document(func(id string) error {
		var answer string
		err := s.string("the answer to question "+quoted(id), &answer)
		answers[id] = answer
		return err
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

// An NAProb is how likely it is that a question has no answer, as a probability or, in
// null_odds.json, as a difference of logits.
type NAProb struct {
	ID   string
	Prob float64
}

// ReadNAProbs reads null_odds.json, or another file of the same form, in the file's order. If an id is
// repeated, its first place and its last value count, as in Python.
func ReadNAProbs(r io.Reader) ([]NAProb, error) {
	s := newJSONSource(r, "no-answer odds")
	return members(&s, func(id string) (NAProb, error) {
		p := NAProb{ID: id}
		return p, s.float("the value of question "+quoted(id), &p.Prob)
	})
}

// An NBest is the n-best list of one question.
type NBest struct {
	ID         string
	Candidates []Candidate // without the places in the passage, which the file does not hold
}

// ReadNBest reads nbest_predictions.json in the file's order. If an id is repeated, its first place
// and its last value count, as in Python.
func ReadNBest(r io.Reader) ([]NBest, error) {
	s := newJSONSource(r, "n-best lists")
	return members(&s, func(id string) (NBest, error) {
		list := NBest{ID: id}
		what := "the n-best list of question " + quoted(id)
		err := s.array(what, func(i int) error {
			c := Candidate{Window: -1, StartWord: -1, EndWord: -1}
			what := fmt.Sprintf("entry %d of %s", i, what)
			err := s.object(what, func(key string) error {
				switch what := key + " in " + what; key {
				case "text":
					return s.string(what, &c.Text)
				case "probability":
					return s.float(what, &c.Probability)
				case "start_logit":
					return s.float(what, &c.StartLogit)
				case "end_logit":
					return s.float(what, &c.EndLogit)
				}
				return s.dec.SkipValue()
			})
			list.Candidates = append(list.Candidates, c)
			return err
		})
		return list, err
	})
}

// members reads a file that is one object. It returns what read makes of each member, in the file's
// order. If a key is repeated, its first place and its last value count, as in Python.
func members[T any](s *jsonSource, read func(key string) (T, error)) ([]T, error) {
	var list []T
	index := make(map[string]int)
	err := s.document(func(key string) error {
		v, err := read(key)
		if i, ok := index[key]; ok {
			list[i] = v
		} else {
			index[key] = len(list)
			list = append(list, v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
