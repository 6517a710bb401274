package squad_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

// A predictor is a model that is a function.
type predictor func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error)

func (p predictor) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	return p(ctx, features)
}

// zeros returns logits of 0.
func zeros(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		results[i] = squad.RawResult{
			UniqueID:    f.UniqueID,
			StartLogits: make([]float32, len(f.InputIDs)),
			EndLogits:   make([]float32, len(f.InputIDs)),
		}
	}
	return results, nil
}

// questions returns n examples, each of as many windows as its number, and so none for the first.
// read counts those that were taken.
func questions(n int, read *int) iter.Seq2[*squad.Example, error] {
	return func(yield func(*squad.Example, error) bool) {
		for i := range n {
			*read++
			ex := &squad.Example{ID: fmt.Sprint(i), Question: "who", Words: squad.Words(strings.Repeat("dog ", 8*i))}
			if !yield(ex, nil) {
				return
			}
		}
	}
}

func TestAnswerAllFillsBatches(t *testing.T) {
	for _, size := range []int{1, 2, 7, 8, 1000, 1 << 40} {
		var sizes, ids []int
		a := &squad.Answerer{Featurizer: *steveFeaturizer(t), BatchSize: size}
		a.Featurizer.DocStride = 100
		a.Predictor = predictor(func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
			sizes = append(sizes, len(features))
			return zeros(ctx, features)
		})
		a.OnExample = func(w *squad.Windows, results []squad.RawResult) error {
			require.Len(t, results, len(w.Features))
			for i, f := range w.Features {
				require.Equal(t, f.UniqueID, results[i].UniqueID)
				ids = append(ids, int(f.UniqueID-1000000000))
			}
			return nil
		}
		read, n := 0, 0
		for p, err := range a.AnswerAll(t.Context(), questions(12, &read)) {
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(n), p.ID)
			if n == 0 {
				assert.Equal(t, "empty", p.Answer)
			} else {
				assert.Equal(t, "dog", p.Answer)
			}
			n++
		}
		assert.Equal(t, 12, n)
		assert.Equal(t, 66, len(ids)) // 0 + 1 + … + 11
		for i, id := range ids {
			assert.Equal(t, i, id)
		}
		for i, s := range sizes {
			assert.Equal(t, min(size, 66-i*size), s)
		}
	}
}

func TestAnswerAllEmpty(t *testing.T) {
	read := 0
	a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(zeros)}
	for range a.AnswerAll(t.Context(), questions(0, &read)) {
		t.Error("an answer without a question")
	}
}

// TestAnswerAllStops holds that the sequence ends at once when it should, with the right error and
// no goroutine left: synctest fails a test that leaves one.
func TestAnswerAllStops(t *testing.T) {
	broken := errors.New("out of memory")
	for _, tt := range []struct {
		name  string
		setUp func(a *squad.Answerer, cancel func()) iter.Seq2[*squad.Example, error]
		want  error
	}{
		{"predictor fails", func(a *squad.Answerer, _ func()) iter.Seq2[*squad.Example, error] {
			a.Predictor = predictor(func(context.Context, []squad.Feature) ([]squad.RawResult, error) { return nil, broken })
			return questions(100, new(int))
		}, broken},
		{"examples fail", func(a *squad.Answerer, _ func()) iter.Seq2[*squad.Example, error] {
			return func(yield func(*squad.Example, error) bool) {
				for ex := range questions(50, new(int)) {
					if !yield(ex, nil) {
						return
					}
				}
				yield(nil, broken)
			}
		}, broken},
		{"OnExample fails", func(a *squad.Answerer, _ func()) iter.Seq2[*squad.Example, error] {
			a.OnExample = func(*squad.Windows, []squad.RawResult) error { return broken }
			return questions(100, new(int))
		}, broken},
		{"cancelled in a batch", func(a *squad.Answerer, cancel func()) iter.Seq2[*squad.Example, error] {
			batches := 0
			a.Predictor = predictor(func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
				if batches++; batches == 3 {
					cancel()
				}
				return zeros(ctx, f)
			})
			return questions(100, new(int))
		}, context.Canceled},
		{"cancelled before", func(a *squad.Answerer, cancel func()) iter.Seq2[*squad.Example, error] {
			cancel()
			a.Predictor = predictor(func(context.Context, []squad.Feature) ([]squad.RawResult, error) {
				panic("called after cancel")
			})
			return questions(100, new(int))
		}, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(zeros)}
				examples := tt.setUp(a, cancel)
				var last error
				for _, err := range a.AnswerAll(ctx, examples) {
					assert.NoError(t, last, "an error must end the sequence")
					last = err
				}
				assert.ErrorIs(t, last, tt.want)
			})
		})
	}

	t.Run("the caller breaks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(zeros)}
			n := 0
			for _, err := range a.AnswerAll(t.Context(), questions(100, new(int))) {
				require.NoError(t, err)
				if n++; n == 20 {
					break
				}
			}
			assert.Equal(t, 20, n)
		})
	})
}

// TestAnswerAllWorksAhead holds that features are made while the model runs, but not many.
func TestAnswerAllWorksAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := 0
		first := true
		a := &squad.Answerer{Featurizer: *steveFeaturizer(t), BatchSize: 4}
		a.Predictor = predictor(func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
			if first {
				first = false
				synctest.Wait()             // the goroutine has done all it will do
				assert.Greater(t, read, 9)  // the first pass: 8 batches or more, 1 + 1 + 2 + … + 8 windows
				assert.Less(t, read, 9+5+1) // and the second
			}
			return zeros(ctx, f)
		})
		n := 0
		for _, err := range a.AnswerAll(t.Context(), questions(50, &read)) {
			require.NoError(t, err)
			n++
		}
		assert.Equal(t, 50, n)
	})
}

func TestAnswerAllErrors(t *testing.T) {
	all := func(a *squad.Answerer) error {
		for _, err := range a.AnswerAll(t.Context(), questions(5, new(int))) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	spoil := func(f func(r []squad.RawResult) []squad.RawResult) squad.Predictor {
		return predictor(func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
			r, _ := zeros(ctx, features)
			return f(r), nil
		})
	}
	a := &squad.Answerer{Featurizer: *steveFeaturizer(t)}

	a.Predictor = spoil(func(r []squad.RawResult) []squad.RawResult { return r[1:] })
	assert.EqualError(t, all(a), "the model returned 7 results for 8 features")
	_, err := a.Answer(t.Context(), "who", "dog")
	assert.EqualError(t, err, "the model returned 0 results for 1 features")

	a.Predictor = spoil(func(r []squad.RawResult) []squad.RawResult { r[1].UniqueID++; return r })
	assert.EqualError(t, all(a),
		`decode question "2", window 0: got the result of feature 1000000002, want that of 1000000001`)

	a.Predictor = spoil(func(r []squad.RawResult) []squad.RawResult {
		r[min(2, len(r)-1)].EndLogits[0] = float32(math.NaN())
		return r
	})
	assert.ErrorContains(t, all(a), `decode question "2", window 1: the end logit at position 0 is NaN`)

	a.Predictor = predictor(zeros)
	a.Decoder.NBestSize = -1
	assert.ErrorContains(t, all(a), "n_best_size is -1")
	a.Decoder.NBestSize = 0
	a.Featurizer.Tokenizer = nil
	assert.ErrorContains(t, all(a), "no tokenizer")
	_, err = a.Answer(t.Context(), "who", "dog")
	assert.ErrorContains(t, err, "no tokenizer")
}

func TestAnswer(t *testing.T) {
	a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(zeros), BatchSize: 2}
	p, err := a.Answer(t.Context(), "who", strings.Repeat("Dog ", 50))
	require.NoError(t, err)
	assert.Equal(t, "Dog", p.Answer)

	p, err = a.Answer(t.Context(), "who", "")
	require.NoError(t, err)
	assert.Equal(t, "empty", p.Answer)

	_, err = a.Answer(t.Context(), "who\xff", "dog")
	assert.EqualError(t, err, "the question or the document is not valid UTF-8")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Answer(ctx, "who", "dog")
	assert.ErrorIs(t, err, context.Canceled)
}

func TestFirst(t *testing.T) {
	for _, tt := range []struct{ n, want int }{{-1, 0}, {0, 0}, {3, 3}, {5, 5}, {9, 5}} {
		read, n := 0, 0
		for range squad.First(tt.n, questions(5, &read)) {
			n++
		}
		assert.Equal(t, tt.want, n)
		assert.Equal(t, tt.want, read)
	}
}
