package squad

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A scanner reads a data set in one pass and hands out each paragraph when it is complete.
type scanner struct {
	jsonSource
	questionsOnly bool                  // skip what the reference skips in predict mode
	paragraph     func(*Paragraph) bool // false stops
	article       func(title string)    // called after the article's last paragraph

	sawData bool
	version string
	ids     idSet
	place   place
}

// A place says where in the data set the scanner is. Numbers count from 1; 0 means outside.
type place struct {
	article, paragraph, question int
	title, id                    string
}

// String returns the place in words, outermost first, and "" outside all articles.
func (p place) String() string {
	var in []string
	if p.article > 0 {
		in = append(in, fmt.Sprintf("article %d", p.article))
	}
	if p.title != "" {
		in[0] += " (" + quoted(p.title) + ")"
	}
	if p.paragraph > 0 {
		in = append(in, fmt.Sprintf("paragraph %d", p.paragraph))
	}
	if p.id != "" {
		in = append(in, "question "+quoted(p.id))
	} else if p.question > 0 {
		in = append(in, fmt.Sprintf("question %d", p.question))
	}
	return strings.Join(in, ", ")
}

// errStop ends a scan when its consumer wants no more.
var errStop = errors.New("stop")

func newScanner(r io.Reader) *scanner {
	return &scanner{jsonSource: newJSONSource(r, "data set"), ids: newIDSet(), article: func(string) {}}
}

// scanTo scans into a sequence of paragraphs.
func (s *scanner) scanTo(yield func(*Paragraph, error) bool) {
	s.paragraph = func(p *Paragraph) bool { return yield(p, nil) }
	if err := s.scan(); err != nil && !errors.Is(err, errStop) {
		yield(nil, err)
	}
}

func (s *scanner) scan() error {
	err := s.document(s.readRoot)
	if read := (*ReadError)(nil); errors.As(err, &read) {
		read.Place = s.place.String()
	}
	if err == nil && !s.sawData {
		return &ReadError{Format: s.format, Err: errors.New(`not a SQuAD file: there is no "data"`)}
	}
	return err
}

func (s *scanner) readRoot(key string) error {
	switch key {
	case "version":
		return s.label(&s.version)
	case "data":
		if s.sawData {
			return errors.New(`"data" appears twice`)
		}
		s.sawData = true
		return s.array(`"data"`, s.readArticle)
	}
	return s.dec.SkipValue()
}

func (s *scanner) readArticle(i int) error {
	s.place = place{article: i + 1}
	sawParagraphs := false
	err := s.object("the article", func(key string) error {
		switch key {
		case "title":
			return s.label(&s.place.title)
		case "paragraphs":
			if sawParagraphs {
				return errors.New(`"paragraphs" appears twice`)
			}
			sawParagraphs = true
			return s.array(`"paragraphs"`, s.readParagraph)
		}
		return s.dec.SkipValue()
	})
	if err != nil {
		return err
	}
	if !sawParagraphs {
		return errors.New(`not a SQuAD file: the article has no "paragraphs"`)
	}
	s.article(s.place.title)
	s.place = place{}
	return nil
}

func (s *scanner) readParagraph(i int) error {
	s.place.paragraph = i + 1
	p := new(Paragraph)
	sawContext, sawQAs := false, false
	err := s.object("the paragraph", func(key string) error {
		switch key {
		case "context":
			sawContext = true
			return s.string(`"context"`, &p.Context)
		case "qas":
			sawQAs = true
			p.QAs = p.QAs[:0] // of a repeated key the last value counts, as in Python
			return s.array(`"qas"`, func(i int) error {
				q, err := s.readQuestion(i)
				p.QAs = append(p.QAs, q)
				return err
			})
		}
		return s.dec.SkipValue()
	})
	switch {
	case err != nil:
		return err
	case !sawContext:
		return errors.New(`the paragraph has no "context"`)
	case !sawQAs:
		return errors.New(`the paragraph has no "qas"`)
	}
	for _, q := range p.QAs {
		if !s.ids.add(q.ID) {
			return fmt.Errorf("the question id %s appears twice: give every question an id of its own, "+
				"or answers would be lost", quoted(q.ID))
		}
	}
	s.place.paragraph = 0
	if !s.paragraph(p) {
		return errStop
	}
	return nil
}

func (s *scanner) readQuestion(i int) (Question, error) {
	s.place.question = i + 1
	var q Question
	sawID, sawQuestion := false, false
	err := s.object("the question", func(key string) error {
		switch key {
		case "id":
			sawID = true
			err := s.id(&q.ID)
			s.place.id = q.ID
			return err
		case "question":
			sawQuestion = true
			return s.string(`"question"`, &q.Question)
		}
		if !s.questionsOnly {
			switch key {
			case "answers":
				return s.answers(key, &q.Answers)
			case "plausible_answers":
				return s.answers(key, &q.PlausibleAnswers)
			case "is_impossible":
				return s.bool(`"is_impossible"`, &q.IsImpossible)
			}
		}
		return s.dec.SkipValue()
	})
	switch {
	case err != nil:
		return q, err
	case !sawID:
		return q, errors.New(`the question has no "id"`)
	case !sawQuestion:
		return q, errors.New(`the question has no "question"`)
	}
	s.place.question, s.place.id = 0, ""
	return q, nil
}

// answers reads a list of reference answers. null stands for an empty list.
func (s *scanner) answers(key string, dst *[]Answer) error {
	*dst = nil
	if s.dec.PeekKind() == jsontext.KindNull {
		return s.dec.SkipValue()
	}
	return s.array(strconv.Quote(key), func(int) error {
		var a Answer
		sawText := false
		err := s.object("an answer", func(key string) error {
			switch key {
			case "text":
				sawText = true
				return s.string(`"text"`, &a.Text)
			case "answer_start":
				return s.int(`"answer_start"`, &a.AnswerStart)
			}
			return s.dec.SkipValue()
		})
		if err == nil && !sawText {
			err = fmt.Errorf(`an entry of %q has no "text"`, key)
		}
		*dst = append(*dst, a)
		return err
	})
}

// id reads a question's id, a string or a whole number, as the key that Python's json.dumps writes for
// it.
func (s *scanner) id(dst *string) error {
	const want = "a string or a whole number"
	kind := s.dec.PeekKind()
	if kind == jsontext.KindString {
		return s.string(`"id"`, dst)
	}
	if kind != jsontext.KindNumber {
		return s.wrongKind(`"id"`, kind, want)
	}
	v, err := s.dec.ReadValue()
	if err != nil {
		return err
	}
	if bytes.ContainsAny(v, ".eE") {
		return fmt.Errorf(`"id" is %s, want %s`, brief(string(v)), want)
	}
	*dst = string(v)
	if *dst == "-0" {
		*dst = "0"
	}
	return nil
}

// An idSet finds repeated ids. It keeps only a 128-bit hash of each, so that its size does not depend
// on the length of the ids.
type idSet struct {
	seeds [2]maphash.Seed
	seen  map[[2]uint64]struct{}
}

func newIDSet() idSet {
	return idSet{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		seen:  make(map[[2]uint64]struct{}),
	}
}

// add reports whether id is new.
func (s *idSet) add(id string) bool {
	n := len(s.seen)
	s.seen[[2]uint64{maphash.String(s.seeds[0], id), maphash.String(s.seeds[1], id)}] = struct{}{}
	return len(s.seen) > n
}
