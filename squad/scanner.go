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
	paragraph func(*Paragraph) bool // false stops
	article   func(title string)    // called after the last paragraph of an entry

	// restart is called where a repeated "data" or "paragraphs" replaces what was handed out, as in Python. If it
	// is nil, what is handed out is used at once. Then such keys are mistakes, and so is all that a prediction
	// cannot do without; otherwise that waits in the Paragraph.
	restart func(key string)

	ids     idSet // of a scan without restart
	version *string
	where   place
}

// A place says where in the data set the scanner is. Numbers count from 1; 0 means outside.
type place struct {
	kind                       string // of the entry: "article" in "data", "entry" elsewhere
	entry, paragraph, question int
	title, id                  string
}

// String returns the place in words, outermost first, and "" outside all entries.
func (p place) String() string {
	if p.entry == 0 {
		return ""
	}
	in := []string{fmt.Sprintf("%s %d", p.kind, p.entry)}
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
	s := &scanner{jsonSource: newJSONSource(r, datasetFormat), ids: newIDSet(), article: func(string) {}}
	s.place = func() string { return s.where.String() }
	return s
}

// scanTo scans into a sequence of paragraphs.
func (s *scanner) scanTo(yield func(*Paragraph, error) bool) {
	s.paragraph = func(p *Paragraph) bool { return yield(p, nil) }
	if err := s.scan(); err != nil && !errors.Is(err, errStop) {
		yield(nil, err)
	}
}

// scan reads a file: SQuAD's object with "data", an array of the entries that "data" can hold, or one entry after
// the other, as in JSON lines.
func (s *scanner) scan() error {
	err := s.begin()
	if err == nil {
		err = s.scanFile()
	}
	if err != nil && !errors.Is(err, errStop) {
		return s.locate(err)
	}
	return err
}

func (s *scanner) scanFile() error {
	s.where.kind = "entry"
	if s.dec.PeekKind() == jsontext.KindBeginArray {
		if err := s.array("the file", s.readEntry); err != nil {
			return err
		}
		return s.end()
	}
	root, err := s.readObject("the file", inRoot|inEntry)
	switch {
	case err != nil:
		return err
	case root.has["data"]:
		if err := root.mistakes.first("data"); err != nil {
			return err
		}
		return s.end()
	case !root.isEntry():
		return &ReadError{Format: s.format, Err: root.others.notDataset()}
	}
	s.where.entry = 1
	if err := s.endEntry(root); err != nil {
		return err
	}
	for i := 1; s.dec.PeekKind() != jsontext.KindInvalid; i++ {
		if err := s.readEntry(i); err != nil {
			return err
		}
	}
	return s.end()
}

// Levels of a data set's objects. An entry may be an article with paragraphs, a paragraph with questions, as in
// MRQA's files, or a question with its passage, as in Hugging Face's.
const (
	inRoot = 1 << iota
	inEntry
	inParagraph
	inQuestion
)

// keys are the keys that are read, and in which objects.
var keys = map[string]int{
	"data": inRoot, "version": inRoot,
	"title": inEntry, "paragraphs": inEntry, "header": inEntry,
	"context": inEntry | inParagraph, "qas": inEntry | inParagraph,
	"id": inEntry | inQuestion, "qid": inEntry | inQuestion,
	"question": inEntry | inQuestion, "answers": inEntry | inQuestion,
}

// An object is one of a data set's objects.
type object struct {
	has      map[string]bool // of keys
	mistakes mistakes
	others   kinds // of the values of other keys

	title    string
	context  string
	qas      []Question
	question Question
	qid      string // MRQA's id of a question
}

func (o *object) isEntry() bool {
	return o.has["paragraphs"] || o.has["qas"] || o.has["header"] || o.isQuestion()
}

func (o *object) isQuestion() bool {
	return (o.has["id"] || o.has["context"]) && (o.has["question"] || o.has["answers"])
}

// readObject reads an object of the levels given.
func (s *scanner) readObject(what string, levels int) (*object, error) {
	o := &object{has: make(map[string]bool)}
	var err error
	o.mistakes, err = s.members(what, func(key string) error {
		if keys[key]&levels == 0 {
			o.others.add(s.dec.PeekKind())
			return nil
		}
		again := o.has[key]
		o.has[key] = true
		return s.readMember(o, key, again)
	})
	return o, err
}

// readMember reads a member of o. Of a repeated key the last value counts, as in Python.
func (s *scanner) readMember(o *object, key string, again bool) error {
	switch key {
	case "data":
		s.where.kind = "article"
		if o.has["paragraphs"] && s.restart == nil {
			return errors.New(`"data" appears after "paragraphs"`)
		}
		return s.stream(key, again || o.has["paragraphs"], s.readEntry)
	case "paragraphs":
		if o.has["data"] {
			return nil
		}
		return s.stream(key, again, s.readParagraph)
	case "version":
		s.version = new(string)
		return s.label(s.version)
	case "title":
		err := s.label(&o.title)
		s.where.title = o.title
		return err
	case "context":
		return s.string(`"context"`, &o.context)
	case "qas":
		o.qas = nil
		return s.list(`"qas"`, func(i int) error {
			q, err := s.readQuestion(i)
			o.qas = append(o.qas, q)
			return err
		})
	case "id":
		err := s.id(&o.question.ID)
		s.where.id = o.question.ID
		return err
	case "qid":
		return s.label(&o.qid)
	case "question":
		return s.string(`"question"`, &o.question.Question)
	case "answers":
		o.question.Answers = nil
		return s.answers(&o.question.Answers)
	}
	return nil
}

// stream reads a list whose elements are handed out while it is read. again reports whether others were before.
func (s *scanner) stream(key string, again bool, element func(i int) error) error {
	if again && s.restart == nil {
		return fmt.Errorf("%q appears twice", key)
	}
	if again {
		s.restart(key)
	}
	err := s.list(strconv.Quote(key), element)
	if bad, ok := err.(*ReadError); ok && s.restart == nil {
		return finalError{bad}
	}
	return err
}

// A finalError is a mistake that no later value of its key can replace.
type finalError struct{ *ReadError }

func (e finalError) Unwrap() error { return e.ReadError }

func (s *scanner) readEntry(i int) error {
	s.where = place{kind: s.where.kind, entry: i + 1}
	o, err := s.readObject("the "+s.where.kind, inEntry)
	if err != nil {
		return err
	}
	return s.endEntry(o)
}

// endEntry hands out what an entry holds, unless that was done while it was read.
func (s *scanner) endEntry(o *object) error {
	var err error
	switch {
	case o.has["paragraphs"]:
		err = o.mistakes.first("paragraphs")
	case o.has["qas"]:
		err = s.endParagraph("paragraph", o)
	case o.isQuestion():
		if err = s.endQuestion(o); err == nil {
			o.qas, o.has["qas"] = []Question{o.question}, true
			err = s.endParagraph("question", o)
		}
	case o.has["header"]:
		return nil
	default:
		err = s.errorf(`not a SQuAD file: the %s has no "paragraphs"`, s.where.kind)
	}
	if err != nil {
		return err
	}
	s.article(o.title)
	s.where = place{kind: s.where.kind}
	return nil
}

func (s *scanner) readParagraph(i int) error {
	s.where.paragraph, s.where.question, s.where.id = i+1, 0, ""
	o, err := s.readObject("the paragraph", inParagraph)
	if err != nil {
		return err
	}
	return s.endParagraph("paragraph", o)
}

// endParagraph hands out the paragraph that an object of some kind holds.
func (s *scanner) endParagraph(kind string, o *object) error {
	if err := o.mistakes.first("context", "qas"); err != nil && s.restart == nil {
		return err
	}
	p := &Paragraph{Context: o.context, QAs: o.qas}
	if p.noContext = s.missing(kind, o, "context"); p.noContext != nil && s.restart == nil {
		return p.noContext
	}
	if err := s.missing(kind, o, "qas"); err != nil {
		return err
	}
	s.where.question, s.where.id = 0, ""
	for _, q := range p.QAs {
		if s.restart == nil && !s.ids.add(q.ID) {
			return s.errorf("the question id %s appears twice: give every question an id of its own, "+
				"or answers would be lost", quoted(q.ID))
		}
	}
	s.where.paragraph = 0
	if !s.paragraph(p) {
		return errStop
	}
	return nil
}

func (s *scanner) readQuestion(i int) (Question, error) {
	s.where.question, s.where.id = i+1, ""
	o, err := s.readObject("the question", inQuestion)
	if err == nil {
		err = s.endQuestion(o)
	}
	if _, located := err.(*ReadError); located || err == nil {
		s.where.question, s.where.id = 0, ""
	}
	return o.question, err
}

// endQuestion completes the question that an object holds.
func (s *scanner) endQuestion(o *object) error {
	q := &o.question
	if !o.has["id"] && o.qid != "" {
		q.ID = o.qid
	} else if err := s.missing("question", o, "id"); err != nil {
		return err
	}
	if q.noQuestion = s.missing("question", o, "question"); q.noQuestion != nil && s.restart == nil {
		return q.noQuestion
	}
	q.badAnswers = o.mistakes.first("answers")
	return nil
}

// missing returns an error if an object of some kind has no valid member of a key.
func (s *scanner) missing(kind string, o *object, key string) error {
	if !o.has[key] {
		return s.errorf("the %s has no %q", kind, key)
	}
	return o.mistakes.first(key)
}

// list reads an array. An empty string or object is an empty list to Python, too.
func (s *scanner) list(what string, element func(i int) error) error {
	kind := s.dec.PeekKind()
	if kind != jsontext.KindString && kind != jsontext.KindBeginObject {
		return s.array(what, element)
	}
	if next := bytes.TrimLeft(s.dec.UnreadBuffer(), " \t\r\n:,"); len(next) > 1 && next[0] == '"' && next[1] != '"' {
		return s.wrongKind(what, kind, "an array") // without reading the string, which may be long
	}
	t, err := s.dec.ReadToken()
	if err != nil {
		return err
	}
	if kind == jsontext.KindString && t.String() == "" {
		return nil
	}
	if kind == jsontext.KindBeginObject && s.dec.PeekKind() == jsontext.KindEndObject {
		_, err := s.dec.ReadToken()
		return err
	}
	return s.wrongKind(what, kind, "an array")
}

// answers reads the texts of reference answers: SQuAD's list of objects, MRQA's of texts or Hugging Face's object of
// lists. null stands for an empty list.
func (s *scanner) answers(dst *[]string) error {
	add := func(what string) error {
		var text string
		err := s.string(what, &text)
		*dst = append(*dst, text)
		return err
	}
	what, sawText := `"answers"`, false
	switch s.dec.PeekKind() {
	case jsontext.KindNull:
		return s.dec.SkipValue()
	case jsontext.KindBeginObject:
		empty := true
		err := s.object(what, func(key string) error {
			empty = false
			if key != "text" {
				return nil
			}
			sawText, *dst = true, nil
			if s.dec.PeekKind() == jsontext.KindString {
				return add(`"text"`)
			}
			return s.list(`"text"`, func(int) error { return add("an answer") })
		})
		if err == nil && !empty && !sawText {
			err = s.errorf(`%s has no "text"`, what)
		}
		return err
	}
	return s.list(what, func(int) error {
		if s.dec.PeekKind() == jsontext.KindString {
			return add("an answer")
		}
		sawText := false
		var text string
		err := s.object("an answer", func(key string) error {
			if key != "text" {
				return nil
			}
			sawText = true
			return s.string(`"text"`, &text)
		})
		if err == nil && !sawText {
			err = s.errorf(`an entry of %s has no "text"`, what)
		}
		*dst = append(*dst, text)
		return err
	})
}

// id reads a question's id as the key that Python's json.dumps writes for it.
func (s *scanner) id(dst *string) error {
	switch kind := s.dec.PeekKind(); kind {
	case jsontext.KindString:
		return s.string(`"id"`, dst)
	case jsontext.KindNull:
		*dst = "null"
		return s.dec.SkipValue()
	case jsontext.KindNumber, jsontext.KindTrue, jsontext.KindFalse:
		var n number
		err := s.number(`"id"`, &n)
		*dst = n.String()
		return err
	default:
		return s.wrongKind(`"id"`, kind, "a string or a number")
	}
}

// kinds counts values that are not read, to tell what file has them.
type kinds struct{ texts, numbers, others int }

func (k *kinds) add(kind jsontext.Kind) {
	switch kind {
	case jsontext.KindString:
		k.texts++
	case jsontext.KindNumber:
		k.numbers++
	default:
		k.others++
	}
}

// notDataset returns the error for a file that is one object of such values.
func (k *kinds) notDataset() error {
	err := errors.New(`not a SQuAD file: there is no "data"`)
	switch {
	case k.texts > 0 && k.numbers+k.others == 0:
		return &ContentError{Format: predictionsFormat, Err: err}
	case k.numbers > 0 && k.texts+k.others == 0:
		return &ContentError{Format: oddsFormat, Err: err}
	}
	return err
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
