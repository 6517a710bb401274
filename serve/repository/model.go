package repository

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/sync/errgroup"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// A Backend is a model in memory.
type Backend struct {
	Predictor squad.Predictor
	Tokenizer *wordpiece.Tokenizer
	SeqLength int // of windows, where a question does not say
	// CheckLength says why the model cannot take sequences of a length.
	CheckLength func(int) error
	Segments    int // rows of its segment embedding; 0 where it is not known

	Inputs, Outputs []TensorInfo // of its signature

	Description string // the graph and its precision, for the log
	Close       func() error
}

// A Source says what a Loader is to load.
type Source struct {
	Name    string
	Version int64
	Dir     string          // of the SavedModel
	Config  *pb.ModelConfig // of config.pbtxt; nil where there is none
}

// A Loader brings a model into memory.
type Loader func(ctx context.Context, s Source) (*Backend, error)

// A Model is one version of a model as it is served. It may be used by many goroutines at once.
type Model struct {
	name     string
	version  int64
	config   *pb.ModelConfig
	backend  *Backend
	batcher  *batch.Batcher
	limits   Limits
	defaults squad.Decoder

	text    Statistics // of questions
	tensors Statistics // of calls with tensors

	mu      sync.Mutex
	users   int
	retired chan struct{} // not nil: no more users; closed by the last one
}

// Name and Version say which model it is.
func (m *Model) Name() string   { return m.name }
func (m *Model) Version() int64 { return m.version }

// Backend gives the model underneath.
func (m *Model) Backend() *Backend { return m.backend }

// Decoder gives how answers are ranked where a question does not say.
func (m *Model) Decoder() squad.Decoder { return m.defaults }

// Batcher gives the batcher that the model's windows go through.
func (m *Model) Batcher() *batch.Batcher { return m.batcher }

// AnswerAll answers questions at once. The first error ends it.
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
				e.Message = fmt.Sprintf("question %d: %s", i, e.Message)
				return errors.Join(&e, err)
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
		for w, err := range f.Windows(func(yield func(*squad.Example, error) bool) { yield(example, nil) }) {
			if err != nil {
				return err
			}
			if _, err := m.backend.Predictor.Predict(ctx, w.Features[:1]); err != nil {
				return err
			}
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

func (m *Model) release() {
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

// A Handle is a model in use. It stays loaded until Release.
type Handle struct {
	*Model
	Text bool // the text-in model
}

// Release ends the use.
func (h Handle) Release() { h.release() }

// TextSuffix makes the name of a model that of its text-in model.
const TextSuffix = "_qa"

// Name is the name by which the model is called.
func (h Handle) Name() string {
	if h.Text {
		return h.name + TextSuffix
	}
	return h.name
}

// Inputs and Outputs describe what Infer takes and gives.
func (h Handle) Inputs() []TensorInfo {
	if h.Text {
		return textInputs
	}
	return h.backend.Inputs
}

// Outputs describes what Infer gives.
func (h Handle) Outputs() []TensorInfo {
	if h.Text {
		return textOutputs
	}
	return h.backend.Outputs
}

// Statistics gives the counts of what the model has run.
func (h Handle) Statistics() *Statistics {
	if h.Text {
		return &h.text
	}
	return &h.tensors
}
