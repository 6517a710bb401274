// Package fakemodel has models without TensorFlow, for tests of the code in front of a model. They are
// quick, count what is done to them, return answers that a test can know in advance, and fail when told to.
package fakemodel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// Keys is the number of keys, the words w0 to w999, each of which is one word piece.
const Keys = 1000

// Key returns a word to ask for: the answer to a question that ends with a key is that key, wherever it
// stands in the passage.
func Key(n int) string { return fmt.Sprintf("w%d", n%Keys) }

// Words that make their batch fail, each in its own way.
const (
	Fail  = "fail"  // with an error
	Crash = "crash" // with a panic
	Slow  = "slow"  // takes Models.Delay, or until its context ends
	NaN   = "nan"   // logits that are not numbers
	Short = "short" // logits for half of the tokens
)

// ErrFail is the error of a batch with the word Fail.
var ErrFail = errors.New("told to fail")

// Vocab returns a vocabulary of letters and digits, from which every word can be made, the keys, and the
// words above.
var Vocab = sync.OnceValue(func() *wordpiece.Vocab {
	tokens := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "find", ".", "?", ",", "'"}
	for c := 'a'; c <= 'z'; c++ {
		tokens = append(tokens, string(c), "##"+string(c))
	}
	for c := '0'; c <= '9'; c++ {
		tokens = append(tokens, string(c), "##"+string(c))
	}
	for n := range Keys {
		tokens = append(tokens, Key(n))
	}
	tokens = append(tokens, Fail, Crash, Slow, NaN, Short)
	v, err := wordpiece.ReadVocab(strings.NewReader(strings.Join(tokens, "\n")))
	if err != nil {
		panic(err)
	}
	return v
})

// ID returns the id of a word that is one word piece.
func ID(word string) int32 {
	id, ok := Vocab().ID(word)
	if !ok {
		panic("fakemodel: " + word + " is not one piece")
	}
	return id
}

// Models loads models and records what happens to them. Its fields must be set before it is used.
type Models struct {
	SeqLength int           // of all of them; 0 is 96
	OneLength bool          // they only take sequences of SeqLength
	Delay     time.Duration // of a batch with the word Slow

	// OnLoad and OnBatch, if set, are called first. They may wait, fail or panic.
	OnLoad  func(context.Context, repository.Source) error
	OnBatch func(context.Context, repository.Source, []squad.Feature) error

	// Edit, if set, changes what is loaded.
	Edit func(*repository.Backend)

	Loads, Closes, Batches, Windows atomic.Int64
	misuse                          atomic.Pointer[string]
}

// Loaded returns the number of models in memory.
func (m *Models) Loaded() int64 { return m.Loads.Load() - m.Closes.Load() }

// Check fails a test if a model was closed twice, was used after it was closed, or is still in memory.
func (m *Models) Check(t testing.TB) {
	t.Helper()
	if p := m.misuse.Load(); p != nil {
		t.Error(*p)
	}
	if n := m.Loaded(); n != 0 {
		t.Errorf("%d models have not been closed", n)
	}
}

func (m *Models) reportMisuse(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	m.misuse.Store(&message)
}

// Load implements repository.Loader.
func (m *Models) Load(ctx context.Context, s repository.Source) (*repository.Backend, error) {
	if m.OnLoad != nil {
		if err := m.OnLoad(ctx, s); err != nil {
			return nil, err
		}
	}
	m.Loads.Add(1)
	length := cmp.Or(m.SeqLength, 96)
	f := &model{models: m, source: s}
	tensor := func(name, kind string, shape ...int64) repository.TensorInfo {
		return repository.TensorInfo{Name: name, Type: kind, Shape: shape, TensorName: name + ":0"}
	}
	ids := tensor("unique_ids", repository.Int32, -1)
	b := &repository.Backend{
		Predictor: f, Tokenizer: &wordpiece.Tokenizer{Vocab: Vocab()}, SeqLength: length, Segments: 2,
		CheckLength: func(n int) error {
			if n < 1 || n > length || m.OneLength && n != length {
				return fmt.Errorf("the length is %d: it must be at most %d", n, length)
			}
			return nil
		},
		Inputs: []repository.TensorInfo{
			tensor("input_ids", repository.Int32, -1, -1),
			tensor("input_mask", repository.Int32, -1, -1),
			tensor("segment_ids", repository.Int32, -1, -1),
			ids,
		},
		Outputs: []repository.TensorInfo{
			tensor("start_logits", repository.Float32, -1, -1),
			tensor("end_logits", repository.Float32, -1, -1),
			ids,
		},
		Description: "a fake",
		Close:       f.close,
	}
	if m.Edit != nil {
		m.Edit(b)
	}
	return b, nil
}

type model struct {
	models *Models
	source repository.Source
	closed atomic.Bool
	users  atomic.Int64
}

func (f *model) close() error {
	if n := f.users.Load(); n > 0 {
		f.models.reportMisuse("%s, version %d, was closed while it ran %d batches", f.source.Name, f.source.Version, n)
	}
	if f.closed.Swap(true) {
		f.models.reportMisuse("%s, version %d, was closed twice", f.source.Name, f.source.Version)
	}
	f.models.Closes.Add(1)
	return nil
}

// Predict implements squad.Predictor.
func (f *model) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	f.users.Add(1)
	defer f.users.Add(-1)
	if f.closed.Load() {
		f.models.reportMisuse("%s, version %d, was used after it had been closed", f.source.Name, f.source.Version)
	}
	f.models.Batches.Add(1)
	f.models.Windows.Add(int64(len(features)))
	if f.models.OnBatch != nil {
		if err := f.models.OnBatch(ctx, f.source, features); err != nil {
			return nil, err
		}
	}
	has := func(word string) bool {
		return slices.ContainsFunc(features, func(f squad.Feature) bool {
			return slices.Contains(f.InputIDs[:f.Len], ID(word))
		})
	}
	switch {
	case has(Crash):
		panic("told to crash")
	case has(Fail):
		return nil, ErrFail
	case has(Slow):
		select {
		case <-time.After(f.models.Delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	results := make([]squad.RawResult, len(features))
	for i := range features {
		x := &features[i]
		start, end := Logits(x.InputIDs[:x.Len], f.source.Version)
		if slices.Contains(x.InputIDs[:x.Len], ID(NaN)) {
			start[0] = float32(math.NaN())
		}
		if slices.Contains(x.InputIDs[:x.Len], ID(Short)) {
			start = start[:len(start)/2]
		}
		results[i] = squad.RawResult{UniqueID: x.UniqueID, StartLogits: start, EndLogits: end}
	}
	return results, nil
}

// Logits returns the logits of a window from a version of a model: 100 plus the version where the passage
// has the last word of the question, and elsewhere numbers below 1 that no other window has.
func Logits(ids []int32, version int64) (start, end []float32) {
	hash := fnv.New64a()
	for _, id := range ids {
		hash.Write([]byte{byte(id), byte(id >> 8), byte(id >> 16)})
	}
	noise := rand.New(rand.NewPCG(hash.Sum64(), 1))
	start, end = make([]float32, len(ids)), make([]float32, len(ids))
	for i := range ids {
		start[i], end[i] = noise.Float32(), noise.Float32()
	}
	separator := slices.Index(ids, ID("[SEP]"))
	if separator < 1 {
		return start, end
	}
	for i := separator + 1; i < len(ids); i++ {
		if ids[i] == ids[separator-1] {
			start[i], end[i] = 100+float32(version), 100+float32(version)
		}
	}
	return start, end
}
