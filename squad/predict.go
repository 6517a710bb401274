package squad

import (
	"context"
	"errors"
	"iter"
	"sync"
	"unicode/utf8"
)

// A Predictor is a model, which makes logits of features. Predict returns one result for each feature,
// in the order of features. The results must have memory of their own, since they are kept until the
// example is decoded.
type Predictor interface {
	Predict(ctx context.Context, features []Feature) ([]RawResult, error)
}

// An Answerer answers questions with a model. It may be used from several goroutines at once if its
// Predictor and OnExample may. A Concurrency above 1 needs such a Predictor, too.
type Answerer struct {
	Featurizer Featurizer
	Predictor  Predictor
	Decoder    Decoder

	BatchSize   int // windows of a batch, at most; 0 is 8
	MaxTokens   int // of a batch, at most: its windows times the tokens of the longest; 0 is no limit
	Lookahead   int // windows that are read ahead and batched by length; 0 leaves them in file order
	Concurrency int // batches that run at once; 0 is 1

	// OnExample, if set, is called with the windows of each example and what the model made of them,
	// in the order of the examples.
	OnExample func(w *Windows, results []RawResult) error
}

// Answer answers a question from a document. If the document has no word pieces, the answer is that of
// a Decoder without features: "empty", or "" with WithNegative.
func (a *Answerer) Answer(ctx context.Context, question, document string) (Prediction, error) {
	if !utf8.ValidString(question) || !utf8.ValidString(document) {
		return Prediction{}, errors.New("the question or the document is not valid UTF-8")
	}
	w, err := a.Featurizer.WindowsOf(&Example{Question: question, Words: Words(document)})
	if err != nil {
		return Prediction{}, err
	}
	t := newTask(w)
	for _, batch := range a.batcher().cut([]*task{t}, true) {
		if err := a.predict(ctx, batch); err != nil {
			return Prediction{}, err
		}
	}
	return a.decode(t)
}

// AnswerAll answers examples in their order. Batches fill across examples, so that nearly all are full.
// An error, also from examples or from ctx, ends the sequence.
//
// Goroutines read the examples and run the model. They end before the sequence does, so that the caller
// may then close what examples reads from. A read or a model that blocks delays that end. AnswerAll
// holds at most the windows of two passes. A pass is Lookahead windows, or a few batches if that is
// more, and the rest of the example that fills it.
func (a *Answerer) AnswerAll(ctx context.Context, examples iter.Seq2[*Example, error]) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		if err := a.answerAll(ctx, examples, yield); err != nil && err != errStop {
			yield(Prediction{}, err)
		}
	}
}

func (a *Answerer) answerAll(
	ctx context.Context, examples iter.Seq2[*Example, error], yield func(Prediction, error) bool,
) error {
	if err := a.Decoder.Check(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	passes := make(chan []*task)
	batches := make(chan []taskWindow, max(a.Lookahead, minBatches)) // room for the batches of a pass
	wg.Go(func() {
		defer close(passes)
		defer close(batches)
		if err := a.prepare(ctx, examples, passes, batches); err != nil {
			cancel(err)
		}
	})
	for range a.concurrency() {
		wg.Go(func() {
			for batch := range batches {
				if err := a.predict(ctx, batch); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for pass := range passes {
		for i, t := range pass {
			select {
			case <-t.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			p, err := a.decode(t)
			if err != nil {
				return err
			}
			if !yield(p, nil) {
				return errStop
			}
			pass[i] = nil // and its memory with it
		}
	}
	return context.Cause(ctx)
}

// decode makes a prediction of a task that is done.
func (a *Answerer) decode(t *task) (Prediction, error) {
	if a.OnExample != nil {
		if err := a.OnExample(t.Windows, t.results); err != nil {
			return Prediction{}, err
		}
	}
	return a.Decoder.Decode(t.Example, t.Features, t.results)
}
