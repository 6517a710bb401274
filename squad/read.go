package squad

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// ReadAnswers reads predictions.json and returns the texts in it by question id. If an id is repeated, its last
// value counts, as in Python. A value that is not a text is an error if isQuestion reports true for its key, and is
// left out otherwise, as the official scripts never look at it. If isQuestion is nil, every key is a question's id.
func ReadAnswers(r io.Reader, isQuestion func(id string) bool) (map[string]string, error) {
	answers := make(map[string]string)
	s := newJSONSource(r, predictionsFormat)
	answered, sawData := false, false
	err := s.document(func(id string) error {
		asked := isQuestion == nil || isQuestion(id)
		what := "the answer to question " + quoted(id)
		delete(answers, id)
		kind := s.dec.PeekKind()
		if kind == jsontext.KindString || kind == jsontext.KindInvalid {
			var answer string
			err := s.string(what, &answer)
			if err == nil {
				answers[id], answered = answer, answered || asked
			}
			return mattersIf(asked, err)
		}
		if id == "data" && kind == jsontext.KindBeginArray && !answered {
			var err error
			if sawData, err = s.peekArticle(); err != nil || sawData {
				return err
			}
		}
		if !asked {
			return nil
		}
		err := s.wrongKind(what, kind, "a string")
		switch kind {
		case jsontext.KindBeginArray:
			err = looksLike(err, nBestFormat)
		case jsontext.KindNumber:
			err = looksLike(err, oddsFormat)
		}
		return err
	})
	if err == nil && sawData && !answered {
		err = looksLike(&ReadError{Format: s.format, Err: errors.New("it answers no question of the data set")},
			datasetFormat)
	}
	if err != nil {
		return nil, err
	}
	return answers, nil
}

// peekArticle reads the beginning of an array. It reports whether the first element could be one of a data set.
func (s *jsonSource) peekArticle() (ok bool, err error) {
	if _, err := s.dec.ReadToken(); err != nil {
		return false, err
	}
	if s.dec.PeekKind() == jsontext.KindBeginObject {
		err = s.object("", func(key string) error {
			ok = ok || key == "paragraphs" || key == "context"
			return nil
		})
	}
	return ok, err
}

// looksLike adds to a mistake what format the file may have instead.
func looksLike(err error, format string) error {
	if bad, ok := err.(*ReadError); ok {
		bad.Err = &ContentError{Format: format, Err: bad.Err}
	}
	return err
}

// mattersIf returns err, but not a mistake in a value that nobody asks for.
func mattersIf(asked bool, err error) error {
	if _, ok := err.(*ReadError); ok && !asked {
		return nil
	}
	return err
}

// An NAProb is how likely it is that a question has no answer, as a probability or, in
// null_odds.json, as a difference of logits.
type NAProb struct {
	ID   string
	Prob float64

	json *number // what the file has, if that is not a float
}

// number returns Prob as Python has it.
func (p *NAProb) number() number {
	if p.json != nil && p.json.float == p.Prob {
		return *p.json
	}
	return number{float: p.Prob}
}

// ReadNAProbs reads null_odds.json, or another file of the same form, in the file's order. If an id is
// repeated, its first place and its last value count, as in Python. A value that is not a number, true or false is
// an error if isQuestion reports true for its key, and is left out otherwise. If isQuestion is nil, every key is a
// question's id.
func ReadNAProbs(r io.Reader, isQuestion func(id string) bool) ([]NAProb, error) {
	s := newJSONSource(r, oddsFormat)
	probs, err := members(&s, func(id string) (*NAProb, error) {
		var n number
		if err := s.number("the value of question "+quoted(id), &n); err != nil {
			return nil, mattersIf(isQuestion == nil || isQuestion(id), err)
		}
		p := &NAProb{ID: id, Prob: n.float}
		if n.whole != nil {
			p.json = &n
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]NAProb, 0, len(probs))
	for _, p := range probs {
		if p != nil {
			list = append(list, *p)
		}
	}
	return list, nil
}

// An NBest is the n-best list of one question.
type NBest struct {
	ID         string
	Candidates []Candidate // without the places in the passage, which the file does not hold
}

// ReadNBest reads nbest_predictions.json in the file's order. If an id is repeated, its first place
// and its last value count, as in Python.
func ReadNBest(r io.Reader) ([]NBest, error) {
	s := newJSONSource(r, nBestFormat)
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
