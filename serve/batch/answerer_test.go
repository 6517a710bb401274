package batch_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// arbitrary is a model with arbitrary logits, which are always the same for a window.
func arbitrary(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		seed := uint64(f.Len)
		for _, id := range f.InputIDs {
			seed = seed*31 + uint64(id)
		}
		rnd := rand.New(rand.NewPCG(seed, 3))
		results[i] = squad.RawResult{UniqueID: f.UniqueID}
		for range f.Len {
			results[i].StartLogits = append(results[i].StartLogits, 10*rnd.Float32())
			results[i].EndLogits = append(results[i].EndLogits, 10*rnd.Float32())
		}
	}
	return results, nil
}

// Clients that share a batcher get the answers, to the last bit, that each would get from the model alone.
func TestAnswersAreThoseOfTheModelAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vocab, err := wordpiece.ReadVocab(strings.NewReader("[PAD]\n[UNK]\n[CLS]\n[SEP]\nwho\na\nb\nc\nd\ne\n"))
		require.NoError(t, err)
		rnd := rand.New(rand.NewPCG(1, 2))
		var batches []batch.Batch
		batcher, err := batch.New(predictor(arbitrary), batch.Options{
			MaxDelay: ms,
			OnBatch:  func(b batch.Batch) { batches = append(batches, b) },
		})
		require.NoError(t, err)

		var clients sync.WaitGroup
		for client := range 20 {
			alone := &squad.Answerer{
				Featurizer: squad.Featurizer{
					Tokenizer:      &wordpiece.Tokenizer{Vocab: vocab},
					MaxSeqLength:   64 << (client % 2),
					MaxQueryLength: 10,
					DocStride:      20,
				},
				Predictor: predictor(arbitrary),
				Decoder:   squad.Decoder{WithNegative: client%3 == 0},
			}
			shared := *alone
			shared.Predictor = batcher
			var documents []string
			for range 20 {
				words := make([]string, rnd.IntN(200))
				for i := range words {
					words[i] = string(rune('a' + rnd.IntN(5)))
				}
				documents = append(documents, strings.Join(words, " "))
			}
			clients.Go(func() {
				for i, document := range documents {
					question := "who" + strings.Repeat(" a", i)
					want, err := alone.Answer(t.Context(), question, document)
					assert.NoError(t, err)
					got, err := shared.Answer(t.Context(), question, document)
					assert.NoError(t, err)
					assert.Equal(t, want, got)
				}
			})
		}
		clients.Wait()
		require.NoError(t, batcher.Close())
		assert.True(t, slices.ContainsFunc(batches, func(b batch.Batch) bool { return b.Requests > 1 }))
	})
}
