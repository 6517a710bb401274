package squad_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

// endless returns questions whose passages have as many words as length says, 1 to 8 for a window of
// steve, and counts what is read.
func endless(length func(i int) int, read *atomic.Int64) iter.Seq2[*squad.Example, error] {
	return func(yield func(*squad.Example, error) bool) {
		for i := 0; ; i++ {
			read.Add(1)
			words := make([]string, length(i))
			for j := range words {
				words[j] = []string{"steve", "smith", "dog"}[(i+j)%3]
			}
			if !yield(&squad.Example{ID: fmt.Sprint(i), Question: "who", Words: words}, nil) {
				return
			}
		}
	}
}

// mixed is a length that follows no order.
func mixed(i int) int { return 1 + int(rand.New(rand.NewPCG(1, uint64(i))).Uint32N(8)) }

// shaped is a model whose logits depend on what shares a batch with a window, as those of a real one
// do in their last bits.
func shaped(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	batch := len(features)
	for _, f := range features {
		batch = 31*batch + f.Len
	}
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		r := squad.RawResult{UniqueID: f.UniqueID, StartLogits: make([]float32, f.Len), EndLogits: make([]float32, f.Len)}
		for pos := range f.Len {
			r.StartLogits[pos] = syntheticLogit(uint64(f.UniqueID), uint64(pos)) + float32(batch%97)/128
			r.EndLogits[pos] = syntheticLogit(uint64(f.UniqueID)+1<<32, uint64(pos))
		}
		results[i] = r
	}
	return results, nil
}

// A batch is what a model was given at once.
type batch struct{ n, longest, tokens int }

// recorder passes batches on and keeps their sizes, in the order in which they came: it serves one
// goroutine.
type recorder struct {
	squad.Predictor
	batches []batch
}

func (r *recorder) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	b := batch{n: len(features)}
	for _, f := range features {
		b.longest = max(b.longest, f.Len)
		b.tokens += f.Len
	}
	r.batches = append(r.batches, b)
	return r.Predictor.Predict(ctx, features)
}

func (r *recorder) padding() float64 {
	run, tokens := 0, 0
	for _, b := range r.batches {
		run += b.n * b.longest
		tokens += b.tokens
	}
	return float64(run-tokens) / float64(tokens)
}

func TestAnswerAllByLength(t *testing.T) {
	batchesOf := func(t *testing.T, lookahead, maxTokens int) []batch {
		model := &recorder{Predictor: predictor(shaped)}
		a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: model, Lookahead: lookahead, MaxTokens: maxTokens}
		read, n := new(atomic.Int64), 0
		for p, err := range a.AnswerAll(t.Context(), squad.First(1000, endless(mixed, read))) {
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(n), p.ID)
			n++
		}
		require.Equal(t, 1000, n)
		t.Logf("%d batches, %.1f %% of padding", len(model.batches), 100*model.padding())
		windows := 0
		for _, b := range model.batches {
			windows += b.n
		}
		require.Equal(t, 1000, windows, "a window was run twice or never")
		return model.batches
	}
	padding := func(b []batch) float64 { return (&recorder{batches: b}).padding() }

	inOrder, byLength := batchesOf(t, 0, 0), batchesOf(t, 100, 0)
	assert.Greater(t, padding(inOrder), 0.2)
	assert.Less(t, padding(byLength), 0.05)
	assert.Len(t, byLength, 1000/8, "full batches, though a pass of 100 windows is not made of them")
	assert.Equal(t, 12, byLength[0].longest, "the longest first")

	for _, b := range batchesOf(t, 100, 40) {
		assert.LessOrEqual(t, b.n*b.longest, 40)
		assert.LessOrEqual(t, b.n, 8)
	}
	for _, b := range batchesOf(t, 100, 5) { // less than a window
		assert.Equal(t, 1, b.n)
	}
}

// TestAnswerAllConcurrently holds that the batches, and so the last bits of every answer, do not
// depend on how many run at once.
func TestAnswerAllConcurrently(t *testing.T) {
	answers := func(lookahead, concurrency int) string {
		a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(shaped), Lookahead: lookahead,
			Concurrency: concurrency}
		var all []squad.Prediction
		for p, err := range a.AnswerAll(t.Context(), squad.First(700, endless(mixed, new(atomic.Int64)))) {
			require.NoError(t, err)
			all = append(all, p)
		}
		return string(writeFile(t, squad.NBestFile, all))
	}
	for _, lookahead := range []int{0, 10, 100, 10000} {
		want := answers(lookahead, 0)
		for _, concurrency := range []int{2, 7} {
			assertBytes(t, []byte(want), []byte(answers(lookahead, concurrency)),
				fmt.Sprintf("lookahead %d, concurrency %d", lookahead, concurrency))
		}
	}
}

// TestAnswerAllIsBounded holds that AnswerAll keeps no more than two passes of an endless file, even if a batch
// does not return or the lengths leave windows over.
func TestAnswerAllIsBounded(t *testing.T) {
	const lookahead, answers = 101, 2000 // no multiple of a batch
	constant := func(n int) func(int) int { return func(int) int { return n } }
	for _, tt := range []struct {
		name   string
		length func(i int) int
	}{
		{"mixed", mixed},
		{"equal", constant(8)},
		{"no windows", constant(0)},
		{"what is left over is last again", func(i int) int { return []int{4, 1, 8, 1}[i/lookahead%4] }},
		{"many windows each", constant(8 * 10)},
	} {
		for _, concurrency := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, concurrency), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(shaped), Lookahead: lookahead,
						Concurrency: concurrency}
					a.Featurizer.DocStride = 8
					perExample := max(1, tt.length(0)/8)
					pass := lookahead + perExample
					read := new(atomic.Int64)
					n := 0
					for _, err := range a.AnswerAll(t.Context(), endless(tt.length, read)) {
						require.NoError(t, err)
						n++
						if n%100 == 0 {
							synctest.Wait() // all that can be done without the caller is done
							assert.LessOrEqual(t, (int(read.Load())-n+1)*perExample, 2*pass)
						}
						if n == answers {
							break
						}
					}
					assert.Equal(t, answers, n)
				})
			})
		}
	}

	t.Run("a batch hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var calls, read atomic.Int64
			a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Lookahead: lookahead, Concurrency: 2}
			a.Predictor = predictor(func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
				if calls.Add(1) == 3 {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return shaped(ctx, f)
			})
			go func() {
				synctest.Wait()
				assert.LessOrEqual(t, read.Load(), int64(2*(lookahead+1)+lookahead))
				cancel()
			}()
			var last error
			for _, err := range a.AnswerAll(ctx, endless(mixed, &read)) {
				last = err
			}
			assert.ErrorIs(t, last, context.Canceled)
		})
	})
}
