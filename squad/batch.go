package squad

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
)

// A task is an example on its way through the model.
type task struct {
	*Windows
	results []RawResult
	left    atomic.Int64  // windows without a result
	done    chan struct{} // closed when none is left
}

func newTask(w *Windows) *task {
	t := &task{Windows: w, results: make([]RawResult, len(w.Features)), done: make(chan struct{})}
	t.left.Store(int64(len(w.Features)))
	if len(w.Features) == 0 {
		close(t.done)
	}
	return t
}

// A taskWindow is one window of a task.
type taskWindow struct {
	task  *task
	index int
	kept  bool // from one pass to the next
}

func (w taskWindow) feature() *Feature { return &w.task.Features[w.index] }

func (w taskWindow) finish(r RawResult) {
	w.task.results[w.index] = r
	if w.task.left.Add(-1) == 0 {
		close(w.task.done)
	}
}

// A batcher cuts windows into batches, a pass over some examples at a time. The batches depend only on
// the examples, not on how fast these arrive or run.
type batcher struct {
	size, maxTokens int
	byLength        bool
	shortestFirst   bool         // in the next pass
	rest            []taskWindow // of the pass before, fewer than a batch
}

// cut makes batches of a pass. Windows that do not fill a batch are kept for the next pass, which sorts
// the other way round and so begins about where this one ends. No window is kept twice, because its
// answer and all after it wait. After the last pass none is kept. The first pass begins with the
// longest windows, which shows at once whether memory suffices for them.
func (b *batcher) cut(pass []*task, last bool) (batches [][]taskWindow) {
	windows := b.rest
	for _, t := range pass {
		for i := range t.Features {
			windows = append(windows, taskWindow{task: t, index: i})
		}
	}
	if b.byLength {
		order := -1
		if b.shortestFirst {
			order = 1
		}
		slices.SortStableFunc(windows, func(x, y taskWindow) int {
			return order * cmp.Compare(x.feature().Len, y.feature().Len)
		})
		b.shortestFirst = !b.shortestFirst
	}
	for len(windows) > 0 {
		n, full := b.fill(windows)
		if !full && !last && !slices.ContainsFunc(windows, func(w taskWindow) bool { return w.kept }) {
			break
		}
		batches = append(batches, windows[:n:n])
		windows = windows[n:]
	}
	b.rest = slices.Clone(windows) // a slice of all would hold on to all
	for i := range b.rest {
		b.rest[i].kept = true
	}
	return batches
}

// fill returns how many of the first windows make a batch and whether it is full.
func (b *batcher) fill(windows []taskWindow) (n int, full bool) {
	longest := 0
	for n < min(len(windows), b.size) {
		longest = max(longest, windows[n].feature().Len)
		if n > 0 && b.maxTokens > 0 && (n+1)*longest > b.maxTokens {
			return n, true
		}
		n++
	}
	return n, n == b.size
}

// prepare reads and tokenises examples, a pass at a time. It sends the batches of a pass, for which the
// channel has room, and then the pass itself, which waits until the pass before it is answered.
func (a *Answerer) prepare(
	ctx context.Context, examples iter.Seq2[*Example, error], passes chan<- []*task, batches chan<- []taskWindow,
) error {
	cutter := a.batcher()
	var pass []*task
	held := 0
	flush := func(last bool) error {
		for _, batch := range cutter.cut(pass, last) {
			if err := send(ctx, batches, batch); err != nil {
				return err
			}
		}
		err := send(ctx, passes, pass)
		pass, held = nil, 0
		return err
	}
	for w, err := range a.Featurizer.Windows(examples) {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		pass = append(pass, newTask(w))
		if held += max(1, len(w.Features)); held >= a.passSize() {
			if err := flush(false); err != nil {
				return err
			}
		}
	}
	return flush(true)
}

func send[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// predict runs the model on one batch and checks that it returns a result for each window.
func (a *Answerer) predict(ctx context.Context, batch []taskWindow) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	features := make([]Feature, len(batch))
	for i, w := range batch {
		features[i] = *w.feature()
	}
	results, err := a.Predictor.Predict(ctx, features)
	if err != nil {
		return err
	}
	if len(results) != len(batch) {
		return fmt.Errorf("the model returned %d results for %d features", len(results), len(batch))
	}
	for i, w := range batch {
		w.finish(results[i])
	}
	return nil
}

func (a *Answerer) batcher() *batcher {
	return &batcher{size: a.batchSize(), maxTokens: a.MaxTokens, byLength: a.Lookahead > 0}
}

func (a *Answerer) batchSize() int   { return max(1, cmp.Or(a.BatchSize, 8)) }
func (a *Answerer) concurrency() int { return max(1, a.Concurrency) }

// passSize is the number of windows of a pass. Even in file order a pass has several batches, so that
// one is always ready to run. It does not depend on Concurrency, because the batches must not.
func (a *Answerer) passSize() int { return max(a.Lookahead, minBatches*a.batchSize()) }

// minBatches is the least number of batches in a pass.
const minBatches = 8
