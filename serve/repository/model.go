package repository

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// A Backend is a model in memory.
type Backend struct {
	Predictor squad.Predictor
	Tokenizer *wordpiece.Tokenizer
	SeqLength int // of windows, where a question does not say
	// CheckLength returns an error, in words for clients, unless the model takes sequences of a length.
	CheckLength func(int) error
	Segments    int   // rows of its segment embedding; 0 where it is not known
	Bytes       int64 // that the model's files have; 0 where it is not known

	Inputs, Outputs []TensorInfo // of its signature

	Description string // the graph and its precision, for the log
	Close       func() error
}

// A Source is what a Loader is to load.
type Source struct {
	Name     string
	Version  int64
	Dir      string // of the SavedModel
	ModelDir string // of the model in a repository, with all its versions; "" for a model that is in none

	// MixedPrecision is set if the model's configuration asks for TensorFlow's mixed-precision rewrite.
	MixedPrecision bool
}

// A Loader brings a model into memory.
type Loader func(ctx context.Context, s Source) (*Backend, error)

// A Model is one version of a model as it is served. It may be used by many goroutines at once.
type Model struct {
	name     string
	version  int64
	backend  *Backend
	batcher  *batch.Batcher
	limits   Limits
	defaults squad.Decoder

	tensors, text *Servable

	mu      sync.Mutex
	users   int
	retired chan struct{} // not nil: no more users; closed by the last one
}

// Name returns the name of the model, also where its text model is meant.
func (m *Model) Name() string { return m.name }

// Version returns the number of the version.
func (m *Model) Version() int64 { return m.version }

// Servables returns the model and its text model, by which clients call it.
func (m *Model) Servables() []*Servable { return []*Servable{m.tensors, m.text} }

// Backend returns the model underneath.
func (m *Model) Backend() *Backend { return m.backend }

// Decoder returns how answers are ranked where a question does not say.
func (m *Model) Decoder() squad.Decoder { return m.defaults }

// Batcher returns the batcher that the model's windows go through.
func (m *Model) Batcher() *batch.Batcher { return m.batcher }

// AnswerAll answers questions at once. The first error ends it and names the question.
func (m *Model) AnswerAll(ctx context.Context, questions []*Question) ([]*Answer, error) {
	answers := make([]*Answer, len(questions))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fairStep)
	for i, q := range questions {
		group.Go(func() (err error) {
			defer func() {
				if v := recover(); v != nil { // here it would end the server
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

// warm runs the model once over a window of its full length, since TensorFlow makes a session ready
// in its first run, and once over a short one.
func (m *Model) warm(ctx context.Context) error {
	for _, words := range []int{1, m.backend.SeqLength} {
		text := make([]byte, 0, 2*words)
		for range words {
			text = append(text, "a "...)
		}
		f := m.featurizer()
		example := &squad.Example{Question: "a", Words: squad.Words(string(text))}
		w, err := f.WindowsOf(example)
		if err != nil {
			return err
		}
		if _, err := m.backend.Predictor.Predict(ctx, w.Features[:1]); err != nil {
			return err
		}
	}
	return nil
}

// acquire adds a user, unless the model is retired.
func (m *Model) acquire() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retired != nil {
		return false
	}
	m.users++
	return true
}

// Release ends the use of a model that Acquire or Models returned.
func (m *Model) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users == 0 && m.retired != nil {
		close(m.retired)
	}
}

// close lets the requests under way end and releases the model.
func (m *Model) close() error {
	m.mu.Lock()
	m.retired = make(chan struct{})
	if m.users == 0 {
		close(m.retired)
	}
	m.mu.Unlock()
	<-m.retired
	if err := m.batcher.Close(); err != nil {
		return err
	}
	return m.backend.Close()
}
