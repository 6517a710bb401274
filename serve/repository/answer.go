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

// AnswerStream answers a question. After every step windows it calls progress, if that is not nil, with the answer so
// far. A question of very many windows has longer steps, so that there are at most mostUpdates.
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
	docs := m.kept(ctx, q)
	if docs == nil {
		if docs, err = m.tokenize(ctx, q); err != nil {
			return nil, err
		}
	}
	seconds.Tokenize = time.Since(began).Seconds()

	features := allFeatures(docs)
	step = max(1, step, (len(features)+mostUpdates-1)/mostUpdates)
	a := newAnswering(decoder, docs)
	response, err := m.do(ctx, batch.Request{
		Features: features, Priority: q.Priority, Timeout: q.Timeout,
		Progress: func(results []squad.RawResult) error {
			decoding := time.Now()
			for i := range results {
				if err := a.add(&results[i]); err != nil {
					return err
				}
				if progress == nil || a.done%step != 0 || a.done == len(features) {
					continue
				}
				answer := a.answer()
				answer.Seconds = seconds // the batcher tells the time in the queue at the end
				answer.Seconds.Compute = time.Since(began).Seconds() - seconds.Tokenize - seconds.Decode
				seconds.Decode += time.Since(decoding).Seconds()
				if err := progress(answer); err != nil {
					return err
				}
				decoding = time.Now()
			}
			seconds.Decode += time.Since(decoding).Seconds()
			return nil
		},
	}, &seconds)
	if err != nil {
		return nil, err
	}
	seconds.Queue, seconds.Compute = response.Queue.Seconds(), response.Compute.Seconds()
	decoding := time.Now()
	answer = a.answer()
	seconds.Decode += time.Since(decoding).Seconds()
	answer.Seconds = seconds
	return answer, nil
}

// mostUpdates bounds the output of a stream, since each of its answers is as large as the last. It does not lengthen
// steps of 8 for questions of up to 256 windows.
const mostUpdates = 32

// allFeatures returns the windows of all documents.
func allFeatures(docs []document) []squad.Feature {
	if len(docs) == 1 {
		return docs[0].windows.Features
	}
	var features []squad.Feature
	for _, d := range docs {
		features = append(features, d.windows.Features...)
	}
	return features
}

// Admit admits the questions of one request as a whole, or returns the error with which all of them are refused.
// Answer, with the context that Admit returns, then refuses none of them for the time that the others take. The caller
// must call end after the last answer. A question that is not valid takes no part, and its Answer says why.
func (m *Model) Admit(ctx context.Context, questions []*Question) (part context.Context, end func(), err error) {
	m.text.asked(ctx)
	if len(questions) < 2 {
		return ctx, func() {}, nil
	}
	began := time.Now()
	windows, tokens, priority := 0, 0, 0
	kept := map[*Question][]document{}
	for _, q := range questions {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		docs := m.prepare(ctx, q)
		for _, d := range docs {
			windows += len(d.windows.Features)
			for i := range d.windows.Features {
				tokens += d.windows.Features[i].Len
			}
		}
		if windows <= mostKept {
			kept[q] = docs
		}
		if docs != nil && q.Priority > 0 && (priority == 0 || q.Priority < priority) {
			priority = q.Priority
		}
	}
	part, end, err = m.batcher.Admit(context.WithValue(ctx, keptKey{m}, kept), priority, windows, tokens)
	if err != nil {
		m.text.statistics.countRequest(began, len(questions), Seconds{}, err)
	}
	return part, end, err
}

// keptKey is the key of the documents of questions that a model has admitted, which are in a context so that Answer
// need not make them again.
type keptKey struct{ *Model }

func (m *Model) kept(ctx context.Context, q *Question) []document {
	all, _ := ctx.Value(keptKey{m}).(map[*Question][]document)
	return all[q]
}

// mostKept is the number of windows of a request that Admit keeps for Answer. Those of the questions after them are
// made again, so that memory does not grow with what waits.
const mostKept = 2048

// prepare returns the documents of a question, or nil if there is something wrong with it, which its Answer will say.
func (m *Model) prepare(ctx context.Context, q *Question) (docs []document) {
	defer func() {
		if recover() != nil {
			docs = nil
		}
	}()
	docs, _ = m.tokenize(ctx, q)
	return docs
}

// AnswerAll answers questions at once. It ends with the first error, which names the question.
func (m *Model) AnswerAll(ctx context.Context, questions []*Question) ([]*Answer, error) {
	ctx, end, err := m.Admit(ctx, questions)
	if err != nil {
		return nil, err
	}
	defer end()
	answers := make([]*Answer, len(questions))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(mostAtOnce)
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

// mostAtOnce is the number of questions of one request that are under way at once.
const mostAtOnce = 64

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

// manyBytes is the size of documents that are tokenized one question after the other. They take tens of milliseconds of
// CPU time, and many of them at once would keep the small questions waiting for a CPU. A model takes longer for them.
const manyBytes = 64 << 10

// tokenize cuts a question's documents into windows.
func (m *Model) tokenize(ctx context.Context, q *Question) ([]document, error) {
	bytes, err := m.check(q)
	if err != nil {
		return nil, err
	}
	if bytes > manyBytes {
		m.tokenizing.Lock()
		defer m.tokenizing.Unlock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
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

// check returns the bytes of a question's documents, or what is wrong with it.
func (m *Model) check(q *Question) (bytes int, err error) {
	for _, d := range q.Documents {
		bytes += len(d)
		if !utf8.ValidString(d) {
			return 0, Invalidf("the context is not valid UTF-8")
		}
	}
	switch l := m.limits; {
	case strings.TrimSpace(q.Text) == "":
		return 0, Invalidf("the question is empty")
	case !utf8.ValidString(q.Text):
		return 0, Invalidf("the question is not valid UTF-8")
	case len(q.Text) > l.QuestionBytes:
		return 0, Invalidf("the question has %d bytes: it may have at most %d", len(q.Text), l.QuestionBytes)
	case len(q.Documents) == 0:
		return 0, Invalidf("the context is missing")
	case len(q.Documents) > l.Documents:
		return 0, Invalidf("there are %d documents: there may be at most %d", len(q.Documents), l.Documents)
	case bytes > l.DocumentBytes:
		return 0, Invalidf("the context has %d bytes: it may have at most %d", bytes, l.DocumentBytes)
	}
	return bytes, nil
}

// An answering makes an answer while the results of its windows come.
type answering struct {
	decoder   *squad.Decoder
	docs      []document
	windows   []Window
	decodings []*squad.Decoding // of the documents
	current   int               // the document whose windows come
	done      int               // windows of all documents
	doneHere  int               // and of the current one

	predictions []squad.Prediction // of the documents before the current one
}

func newAnswering(d *squad.Decoder, docs []document) *answering {
	a := &answering{decoder: d, docs: docs}
	for i := range docs {
		a.decodings = append(a.decodings, d.Begin(docs[i].windows.Example))
		features := docs[i].windows.Features
		for k := range features {
			a.windows = append(a.windows, windowOf(&features[k], i, docs[i].passage))
		}
	}
	return a
}

// add adds the result of the next window.
func (a *answering) add(r *squad.RawResult) error {
	for a.doneHere == len(a.docs[a.current].windows.Features) {
		a.predictions = append(a.predictions, a.decodings[a.current].Prediction())
		a.current++
		a.doneHere = 0
	}
	if err := a.decodings[a.current].Add(&a.docs[a.current].windows.Features[a.doneHere], r); err != nil {
		return err
	}
	a.done++
	a.doneHere++
	return nil
}

// answer returns the answer from the windows that have results.
func (a *answering) answer() *Answer {
	x := &Answer{Best: -1, Done: a.done, Windows: a.windows}
	predictions := a.predictions
	for i := a.current; i < len(a.docs); i++ {
		if len(a.docs[i].windows.Features) > 0 && (i > a.current || a.doneHere == 0) {
			break // none of its windows is done, nor of those after it
		}
		predictions = append(predictions, a.decodings[i].Prediction())
	}
	var of []int
	x.Prediction, of = a.decoder.Merge(predictions)
	if len(predictions) == 1 {
		x.Warning = predictions[0].Warning
	}
	for i := range x.NBest {
		c := &x.NBest[i]
		place := Place{Document: of[i]}
		if of[i] >= 0 {
			place.Start, place.End, place.OK = a.docs[of[i]].passage.Locate(c)
		}
		x.Places = append(x.Places, place)
		if x.Best < 0 && c.Text == x.Prediction.Answer {
			x.Best = i
		}
	}
	return x
}

func windowOf(f *squad.Feature, document int, p *squad.Passage) Window {
	first, _ := f.TokenToOrig(f.Len - 1 - f.DocLength)
	last, _ := f.TokenToOrig(f.Len - 2)
	start, end := p.Span(first, last)
	return Window{document, start, end}
}
