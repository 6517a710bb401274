package squad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"unicode/utf8"
)

// A Predictor is a model: it makes logits of features. It returns one result for each feature, in
// the order of features and in memory of its own: results are kept until the example is decoded.
type Predictor interface {
	Predict(ctx context.Context, features []Feature) ([]RawResult, error)
}

// An Answerer answers questions with a model. It may be used from several goroutines at once if its
// Predictor may.
type Answerer struct {
	Featurizer Featurizer
	Predictor  Predictor
	Decoder    Decoder
	BatchSize  int // features of a batch; 0 is 8

	// OnBatch, if set, is called after each batch, in order. It must not keep the slices.
	OnBatch func(features []Feature, results []RawResult) error
}

// Answer answers a question from a document. A document without word pieces gives what the
// Decoder makes of an example without features: "empty", or "" with WithNegative.
func (a *Answerer) Answer(ctx context.Context, question, document string) (Prediction, error) {
	if !utf8.ValidString(question) || !utf8.ValidString(document) {
		return Prediction{}, errors.New("squad: answer: question or document is not valid UTF-8")
	}
	ex := &Example{Question: question, Words: Words(document)}
	b, err := a.Featurizer.builder()
	if err != nil {
		return Prediction{}, err
	}
	w := b.windows(ex)
	var results []RawResult
	for batch := range slices.Chunk(w.Features, a.batchSize()) {
		r, err := a.run(ctx, batch)
		if err != nil {
			return Prediction{}, err
		}
		results = append(results, r...)
	}
	return a.Decoder.Decode(ex, w.Features, results)
}

// AnswerAll answers examples in their order. Features fill batches across the bounds of examples;
// the last batch may be smaller. An error, also of examples or of ctx, ends the sequence.
//
// Examples are read and tokenised in a goroutine of their own while the model runs, about a batch
// ahead. It has ended when the sequence has, so a caller may then close what examples reads from;
// a read that blocks delays that.
func (a *Answerer) AnswerAll(ctx context.Context, examples iter.Seq2[*Example, error]) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		if err := a.answerAll(ctx, examples, yield); err != nil && err != errStop {
			yield(Prediction{}, err)
		}
	}
}

func (a *Answerer) answerAll(ctx context.Context, examples iter.Seq2[*Example, error], yield func(Prediction, error) bool) error {
	if err := a.Decoder.Check(); err != nil {
		return err
	}
	size := a.batchSize()
	ahead, stop := a.prepare(ctx, examples, size)
	defer stop()

	var (
		queue   []*Windows  // examples without a prediction
		batch   []Feature   // features of queue that have not been run
		results []RawResult // of the first features of queue
	)
	// flush runs the first n features of batch and decodes the examples that are then complete.
	flush := func(n int) error {
		if n > 0 {
			r, err := a.run(ctx, batch[:n])
			if err != nil {
				return err
			}
			results = append(results, r...)
			batch = slices.Delete(batch, 0, n)
		}
		for len(queue) > 0 && len(queue[0].Features) <= len(results) {
			w := queue[0]
			p, err := a.Decoder.Decode(w.Example, w.Features, results[:len(w.Features)])
			if err != nil {
				return err
			}
			queue = slices.Delete(queue, 0, 1)
			results = slices.Delete(results, 0, len(w.Features))
			if !yield(p, nil) {
				return errStop
			}
		}
		return nil
	}
	for {
		next, err := receive(ctx, ahead)
		if err != nil {
			return err
		}
		if next.err != nil {
			return next.err
		}
		if next.windows == nil {
			return flush(len(batch))
		}
		queue = append(queue, next.windows)
		batch = append(batch, next.windows.Features...)
		for len(batch) >= size {
			if err := flush(size); err != nil {
				return err
			}
		}
	}
}

// prepared is an example that is ready to run, an error, or, as the zero value, the end.
type prepared struct {
	windows *Windows
	err     error
}

// prepare makes features of examples in a goroutine. stop ends the goroutine and waits for that.
func (a *Answerer) prepare(ctx context.Context, examples iter.Seq2[*Example, error], buffer int) (ahead <-chan prepared, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c := make(chan prepared, buffer)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(c)
		for w, err := range a.Featurizer.Windows(examples) {
			select {
			case c <- prepared{w, err}:
			case <-ctx.Done():
				return
			}
		}
	})
	return c, func() {
		cancel()
		wg.Wait()
	}
}

// receive returns what comes next or why nothing does.
func receive(ctx context.Context, c <-chan prepared) (prepared, error) {
	select {
	case p, ok := <-c:
		if !ok && ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		return p, nil
	case <-ctx.Done():
		return prepared{}, context.Cause(ctx)
	}
}

// run runs one batch and checks what comes back.
func (a *Answerer) run(ctx context.Context, batch []Feature) ([]RawResult, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	results, err := a.Predictor.Predict(ctx, batch)
	if err != nil {
		return nil, err
	}
	if len(results) != len(batch) {
		return nil, fmt.Errorf("squad: predict: the model returned %d results for %d features",
			len(results), len(batch))
	}
	if a.OnBatch != nil {
		if err := a.OnBatch(batch, results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (a *Answerer) batchSize() int { return max(1, cmp.Or(a.BatchSize, 8)) }
