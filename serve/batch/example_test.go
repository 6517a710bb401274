package batch_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// lastWord is a model whose answer is always the last word piece of the passage.
type lastWord struct{}

func (lastWord) Predict(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		logits := make([]float32, len(f.InputIDs))
		logits[f.Len-2] = 5 // before the last [SEP]
		results[i] = squad.RawResult{UniqueID: f.UniqueID, StartLogits: logits, EndLogits: logits}
	}
	return results, nil
}

// Four clients ask a question each, and the model runs once.
func Example() {
	vocab, err := wordpiece.ReadVocab(strings.NewReader(
		"[PAD]\n[UNK]\n[CLS]\n[SEP]\nwho\nmoved\nthe\nsi\n##lt\nto\nport\nellery\n?\n."))
	if err != nil {
		log.Fatal(err)
	}
	model, err := batch.New(lastWord{}, batch.Options{ // with a model: tfbert.Open
		MaxSize:  4,
		MaxDelay: time.Minute,
		OnBatch:  func(b batch.Batch) { fmt.Println(b.Windows, "windows of", b.Requests, "requests") },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	answerer := &squad.Answerer{
		Featurizer: squad.Featurizer{Tokenizer: &wordpiece.Tokenizer{Vocab: vocab}},
		Predictor:  model,
	}

	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			p, err := answerer.Answer(context.Background(), "Who moved the silt?", "To Port Ellery")
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(p.Answer)
		})
	}
	clients.Wait()
	// Output:
	// 4 windows of 4 requests
	// Ellery
	// Ellery
	// Ellery
	// Ellery
}
