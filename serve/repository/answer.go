package repository

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A Question is asked of one or several documents.
type Question struct {
	Text      string
	Documents []string

	// 0 is the model's default. A MaxSeqLength above the model's is lowered to it.
	MaxSeqLength, DocStride, MaxQueryLength int
	Decoder                                 squad.Decoder

	Priority int           // 1 is the most urgent; 0 is the model's default
	Timeout  time.Duration // to wait in the queue; 0 is the model's
}

// An Answer is a model's answer to a Question.
type Answer struct {
	squad.Prediction
	Places  []Place  // of the candidates in Prediction.NBest
	Best    int      // the candidate that is the answer; -1 if none is
	Windows []Window // of all documents
	Done    int      // windows that the answer is made from
	Seconds Seconds
}

// A Place is where a candidate stands in its document, in code points.
type Place struct {
	Document   int
	Start, End int
	OK         bool // false if the candidate is not in a document
}

// A Window is a part of a document that the model reads at once, in code points.
type Window struct{ Document, Start, End int }

// Seconds are the times of the stages of an answer.
type Seconds struct {
	Tokenize, Queue, Compute, Decode float64

	cache lookups
}

func (s Seconds) max(o Seconds) Seconds {
	return Seconds{
		Tokenize: max(s.Tokenize, o.Tokenize), Queue: max(s.Queue, o.Queue),
		Compute: max(s.Compute, o.Compute), Decode: max(s.Decode, o.Decode),
	}
}

// Limits bound what one request may cost.
type Limits struct {
	QuestionBytes int // 0 is 16 KiB
	DocumentBytes int // of all documents together; 0 is 1 MiB
	Windows       int // of all documents together; 0 is 1024
	Documents     int // 0 is 256
	NBestSize     int // 0 is 100
}

func (l Limits) withDefaults() Limits {
	return Limits{
		cmp.Or(l.QuestionBytes, 16<<10), cmp.Or(l.DocumentBytes, 1<<20), cmp.Or(l.Windows, 1024),
		cmp.Or(l.Documents, 256), cmp.Or(l.NBestSize, 100),
	}
}

// document is a document of a question on its way to an answer.
type document struct {
	passage *squad.Passage
	windows *squad.Windows
}

// Answer answers a question.
func (m *Model) Answer(ctx context.Context, q *Question) (*Answer, error) {
	return m.AnswerStream(ctx, q, 0, nil)
}

// AnswerStream answers a question. After every step windows it calls progress, if that is not nil, with
// the answer so far.
func (m *Model) AnswerStream(
	ctx context.Context, q *Question, step int, progress func(*Answer) error,
) (answer *Answer, err error) {
	began := m.text.begin(ctx)
	var seconds Seconds
	defer func() { m.text.end(ctx, began, 1, seconds, err) }()

	decoder, err := m.decoder(q)
	if err != nil {
		return nil, err
	}
	docs, err := m.tokenize(q)
	if err != nil {
		return nil, err
	}
	seconds.Tokenize = time.Since(began).Seconds()

	var features []squad.Feature
	for _, d := range docs {
		features = append(features, d.windows.Features...)
	}
	if progress == nil {
		step = fairStep
	}
	results := make([]squad.RawResult, 0, len(features))
	for {
		next := features[len(results):min(len(results)+max(1, step), len(features))]
		response, err := m.do(ctx, batch.Request{Features: next, Priority: q.Priority, Timeout: q.Timeout}, &seconds)
		if err != nil {
			return nil, err
		}
		results = append(results, response.Results...)
		seconds.Queue += response.Queue.Seconds()
		seconds.Compute += response.Compute.Seconds()
		complete := len(results) == len(features)
		if !complete && progress == nil {
			continue
		}
		decoding := time.Now()
		answer, err = decode(decoder, docs, results)
		if err != nil {
			return nil, err
		}
		seconds.Decode += time.Since(decoding).Seconds()
		answer.Seconds = seconds
		if complete {
			return answer, nil
		}
		if err := progress(answer); err != nil {
			return nil, err
		}
	}
}

// AnswerAll answers questions at once. It ends with the first error, which names the question.
func (m *Model) AnswerAll(ctx context.Context, questions []*Question) ([]*Answer, error) {
	m.text.asked(ctx)
	answers := make([]*Answer, len(questions))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fairStep)
	for i, q := range questions {
		group.Go(func() (err error) {
			defer func() {
				if v := recover(); v != nil { // in this goroutine it would end the server
					err = &batch.PanicError{Value: v, Stack: debug.Stack()}
				}
			}()
			if answers[i], err = m.Answer(ctx, q); err != nil && len(questions) > 1 {
				e := *AsError(err)
				e.Message, e.Cause = fmt.Sprintf("question %d: %s", i, e.Message), fmt.Errorf("question %d: %w", i, err)
				return &e
			}
			return err
		})
	}
	return answers, group.Wait()
}

// fairStep is the number of windows of a question that wait at once, so that a long document does not keep
// the questions behind it waiting until its last window.
const fairStep = 64

// decoder returns a question's decoder, checked and with its defaults.
func (m *Model) decoder(q *Question) (*squad.Decoder, error) {
	d := q.Decoder
	d.NBestSize = cmp.Or(d.NBestSize, squad.DefaultNBestSize)
	switch {
	case d.NBestSize < 0 || d.MaxAnswerLength < 0:
		return nil, Invalidf("n_best_size and max_answer_length must be positive")
	case d.NBestSize > m.limits.NBestSize:
		return nil, Invalidf("n_best_size is %d: it must be at most %d", d.NBestSize, m.limits.NBestSize)
	}
	if err := d.Check(); err != nil {
		return nil, Invalidf("%v", err)
	}
	return &d, nil
}

// featurizer returns one for windows of the model's length.
func (m *Model) featurizer() squad.Featurizer {
	f := squad.Featurizer{Tokenizer: m.backend.Tokenizer, MaxSeqLength: m.backend.SeqLength}
	if f.MaxSeqLength <= squad.DefaultMaxQueryLength+3 { // which leaves no room for a passage
		f.MaxQueryLength = max(1, f.MaxSeqLength/2-3)
	}
	return f
}

// mostPieces is more word pieces than a question or a passage has; sums of it do not overflow.
const mostPieces = 1 << 30

// tokenize cuts a question's documents into windows.
func (m *Model) tokenize(q *Question) ([]document, error) {
	if err := m.check(q); err != nil {
		return nil, err
	}
	f := m.featurizer()
	f.MaxWindows = m.limits.Windows
	if n := q.MaxSeqLength; n != 0 && m.backend.CheckLength(n) == nil {
		f.MaxSeqLength = n
	} else if n != 0 && n < m.backend.SeqLength {
		return nil, Invalidf("max_seq_length is %d: this model takes %d", n, m.backend.SeqLength)
	}
	f.DocStride = min(q.DocStride, mostPieces)
	if q.MaxQueryLength != 0 {
		f.MaxQueryLength = min(q.MaxQueryLength, mostPieces)
	}
	if err := f.Check(); err != nil {
		return nil, Invalidf("%v", err)
	}
	docs := make([]document, len(q.Documents))
	for i, text := range q.Documents {
		d := &docs[i]
		d.passage = squad.NewPassage(text)
		example := &squad.Example{Question: q.Text, Words: d.passage.Words}
		var err error
		if d.windows, err = f.WindowsOf(example); err != nil {
			return nil, err
		}
		if f.MaxWindows -= len(d.windows.Features); f.MaxWindows <= 0 && i < len(docs)-1 {
			return nil, Invalidf("the documents make more than %d windows: send fewer of them or raise doc_stride",
				m.limits.Windows)
		}
	}
	return docs, nil
}

func (m *Model) check(q *Question) error {
	bytes := 0
	for _, d := range q.Documents {
		bytes += len(d)
		if !utf8.ValidString(d) {
			return Invalidf("the context is not valid UTF-8")
		}
	}
	switch l := m.limits; {
	case strings.TrimSpace(q.Text) == "":
		return Invalidf("the question is empty")
	case !utf8.ValidString(q.Text):
		return Invalidf("the question is not valid UTF-8")
	case len(q.Text) > l.QuestionBytes:
		return Invalidf("the question has %d bytes: it may have at most %d", len(q.Text), l.QuestionBytes)
	case len(q.Documents) == 0:
		return Invalidf("the context is missing")
	case len(q.Documents) > l.Documents:
		return Invalidf("there are %d documents: there may be at most %d", len(q.Documents), l.Documents)
	case bytes > l.DocumentBytes:
		return Invalidf("the context has %d bytes: it may have at most %d", bytes, l.DocumentBytes)
	}
	return nil
}

// decode returns the answer from the windows that have results.
func decode(d *squad.Decoder, docs []document, results []squad.RawResult) (*Answer, error) {
	a := &Answer{Best: -1, Done: len(results)}
	predictions := make([]squad.Prediction, 0, len(docs))
	for i := range docs {
		features := docs[i].windows.Features
		for k := range features {
			a.Windows = append(a.Windows, windowOf(&features[k], i, docs[i].passage))
		}
		done := min(len(features), len(results))
		if len(predictions) < i || done == 0 && len(features) > 0 {
			continue // none of its windows is done, nor of those after it
		}
		p, err := d.Decode(docs[i].windows.Example, features[:done], results[:done])
		if err != nil {
			return nil, err
		}
		results = results[done:]
		predictions = append(predictions, p)
	}
	var of []int
	a.Prediction, of = d.Merge(predictions)
	if len(predictions) == 1 {
		a.Warning = predictions[0].Warning
	}
	for i := range a.NBest {
		c := &a.NBest[i]
		place := Place{Document: of[i]}
		if of[i] >= 0 {
			place.Start, place.End, place.OK = docs[of[i]].passage.Locate(c)
		}
		a.Places = append(a.Places, place)
		if a.Best < 0 && c.Text == a.Prediction.Answer {
			a.Best = i
		}
	}
	return a, nil
}

func windowOf(f *squad.Feature, document int, p *squad.Passage) Window {
	first, _ := f.TokenToOrig(f.Len - 1 - f.DocLength)
	last, _ := f.TokenToOrig(f.Len - 2)
	start, end := p.Span(first, last)
	return Window{document, start, end}
}
