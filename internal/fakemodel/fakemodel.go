// Package fakemodel has models without TensorFlow, for tests of what stands in front of a model. They
// are quick, count what is done to them, find an answer that a test can tell in advance, and fail when
// they are told to.
package fakemodel

import (
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

// Keys is the number of keys, the words w0 to w999, that the vocabulary has whole.
const Keys = 1000

// Key is a word to ask for: the answer to a question that ends with a key is that key, wherever in the
// passage it stands.
func Key(n int) string { return fmt.Sprintf("w%d", n%Keys) }

// Words that make the batch they are in fail, in its own way each.
const (
	Fail  = "fail"  // with an error
	Crash = "crash" // with a panic
	Slow  = "slow"  // takes Models.Delay, or until its context ends
	NaN   = "nan"   // logits that are no numbers
	Short = "short" // logits for half of the tokens
)

// ErrFail is the error of a batch with the word Fail.
var ErrFail = errors.New("fakemodel: told to fail")

// Vocab has single letters, so that every word of them can be made, the keys, and the words above.
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

// ID is the id of a word that the vocabulary has whole.
func ID(word string) int32 {
	id, ok := Vocab().ID(word)
	if !ok {
		panic("fakemodel: " + word + " is not one piece")
	}
	return id
}

// Models loads models and knows what became of them. Its fields are set before it is used.
type Models struct {
	SeqLength int           // of all of them; 0 is 96
	OneLength bool          // they take sequences of SeqLength only
	Delay     time.Duration // of a batch with the word Slow

	// OnLoad and OnBatch, if set, are asked before. They may wait, fail or panic.
	OnLoad  func(context.Context, repository.Source) error
	OnBatch func(context.Context, repository.Source, []squad.Feature) error

	Loads, Closes, Batches, Windows atomic.Int64
	misuse                          atomic.Pointer[string]
}

// Loaded is the number of models in memory.
func (m *Models) Loaded() int64 { return m.Loads.Load() - m.Closes.Load() }

// Check fails a test if a model was closed twice or used after it was closed, or is still there.
func (m *Models) Check(t testing.TB) {
	t.Helper()
	if p := m.misuse.Load(); p != nil {
		t.Error(*p)
	}
	if n := m.Loaded(); n != 0 {
		t.Errorf("%d models have not been closed", n)
	}
}

func (m *Models) misused(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	m.misuse.Store(&message)
}

// Load is a repository.Loader.
func (m *Models) Load(ctx context.Context, s repository.Source) (*repository.Backend, error) {
	if m.OnLoad != nil {
		if err := m.OnLoad(ctx, s); err != nil {
			return nil, err
		}
	}
	m.Loads.Add(1)
	length := m.SeqLength
	if length == 0 {
		length = 96
	}
	f := &model{models: m, source: s}
	matrix := func(name, kind string) repository.TensorInfo {
		return repository.TensorInfo{Name: name, Type: kind, Shape: []int64{-1, -1}, TensorName: name + ":0"}
	}
	vector := repository.TensorInfo{Name: "unique_ids", Type: repository.Int32, Shape: []int64{-1}, TensorName: "unique_ids:0"}
	return &repository.Backend{
		Predictor: f, Tokenizer: &wordpiece.Tokenizer{Vocab: Vocab()}, SeqLength: length, Segments: 2,
		CheckLength: func(n int) error {
			if n < 1 || n > length || m.OneLength && n != length {
				return fmt.Errorf("fakemodel: the length is %d: it must be at most %d", n, length)
			}
			return nil
		},
		Inputs:      []repository.TensorInfo{matrix("input_ids", repository.Int32), matrix("input_mask", repository.Int32), matrix("segment_ids", repository.Int32), vector},
		Outputs:     []repository.TensorInfo{matrix("start_logits", repository.Float32), matrix("end_logits", repository.Float32), vector},
		Description: "a fake",
		Close:       f.close,
	}, nil
}

type model struct {
	models *Models
	source repository.Source
	closed atomic.Bool
	users  atomic.Int64
}

func (f *model) close() error {
	if n := f.users.Load(); n > 0 {
		f.models.misused("%s, version %d, was closed while it ran %d batches", f.source.Name, f.source.Version, n)
	}
	if f.closed.Swap(true) {
		f.models.misused("%s, version %d, was closed twice", f.source.Name, f.source.Version)
	}
	f.models.Closes.Add(1)
	return nil
}

// Predict implements squad.Predictor.
func (f *model) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	f.users.Add(1)
	defer f.users.Add(-1)
	if f.closed.Load() {
		f.models.misused("%s, version %d, was used after it had been closed", f.source.Name, f.source.Version)
	}
	f.models.Batches.Add(1)
	f.models.Windows.Add(int64(len(features)))
	if f.models.OnBatch != nil {
		if err := f.models.OnBatch(ctx, f.source, features); err != nil {
			return nil, err
		}
	}
	has := func(word string) bool {
		return slices.ContainsFunc(features, func(f squad.Feature) bool { return slices.Contains(f.InputIDs[:f.Len], ID(word)) })
	}
	switch {
	case has(Crash):
		panic("fakemodel: told to crash")
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

// Logits are those of a window for a version of a model: 100 and its version where the passage has the
// last word of the question, and otherwise numbers below 1 that no other window has.
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
