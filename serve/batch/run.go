package batch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"github.com/tfbert/go/squad"
)

// A batch is windows on their way through the model. Those of a request are side by side: they have one
// priority and arrived together. Batcher.mu guards live.
type batch struct {
	windows []*window
	ctx     context.Context
	cancel  context.CancelFunc // when live is 0, or it has run
	live    int                // windows whose requests have not ended
	queue   time.Duration      // longest wait
}

// schedule starts the batches that are ready, as long as the model is free. It is called when something
// changes: requests arrive, a batch ends, the alarm rings. b.mu is held.
func (b *Batcher) schedule() {
	for b.running < b.opts.Concurrency && b.queue.waiting > 0 {
		now := b.now()
		k, size, due := b.next(now)
		if k == nil {
			b.setAlarm(now, due)
			return
		}
		x := newBatch(b.queue.take(k, func(n, longest int) bool { return n <= size && !b.exceedsTokens(n, longest) }))
		for _, w := range x.windows {
			c := w.call
			x.queue = max(x.queue, now-c.arrival)
			if !c.started {
				c.started, c.start = true, now
			}
		}
		b.running++
		b.batches.Go(func() { b.run(x) })
	}
}

// next finds the bucket to take the next batch from, and how many windows it may have. If there is none it gives
// the time at which there will be one.
func (b *Batcher) next(now time.Duration) (best *bucket, size int, due time.Duration) {
	due = math.MaxInt64
	for _, k := range b.queue.buckets {
		if best != nil && best.before(k) {
			continue
		}
		n, wait := b.plan(k, now)
		if n > 0 {
			best, size = k, n
		}
		due = min(due, wait)
	}
	return best, size, due
}

// plan says whether there is a batch in a bucket now, and how many windows it may have. If they have to
// wait for others it is 0, until the time due.
func (b *Batcher) plan(k *bucket, now time.Duration) (n int, due time.Duration) {
	due = math.MaxInt64
	longest := 0
	for w := range k.all() {
		longest = max(longest, w.feature().Len)
		if n > 0 && b.exceedsTokens(n+1, longest) {
			return b.opts.MaxSize, due
		}
		n++
		due = min(due, w.due)
		if n == b.opts.MaxSize {
			return n, due
		}
	}
	switch {
	case b.closed || b.exceedsTokens(n+1, longest):
		return b.opts.MaxSize, due // no other can come
	case b.opts.MaxDelay > 0 && due <= now:
		return b.opts.MaxSize, due
	}
	// As in Triton, these come before whatever there is also if that need not wait.
	for i := len(b.opts.PreferredSizes) - 1; i >= 0; i-- {
		if size := b.opts.PreferredSizes[i]; size <= n {
			return size, due
		}
	}
	if b.opts.MaxDelay == 0 {
		return b.opts.MaxSize, due
	}
	return 0, due
}

func (b *Batcher) exceedsTokens(windows, longest int) bool {
	return b.opts.MaxTokens > 0 && windows*longest > b.opts.MaxTokens
}

// setAlarm makes the alarm ring at a time, unless it rings before: windows that come later are due later.
// A ring for one that has gone does no harm. b.mu is held.
func (b *Batcher) setAlarm(now, at time.Duration) {
	if !b.alarmSet {
		b.alarmSet = true
		b.alarm.Reset(at - now)
	}
}

func (b *Batcher) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alarmSet = false
	b.schedule()
}

// newBatch makes a batch of windows. Batcher.mu is held.
func newBatch(windows []*window) *batch {
	x := &batch{windows: windows, live: len(windows)}
	// It belongs to several requests, and so has the context of none.
	x.ctx, x.cancel = context.WithCancel(context.Background())
	for _, w := range windows {
		w.batch = x
	}
	return x
}

// run runs a batch and starts the next.
func (b *Batcher) run(x *batch) {
	results, err := b.predict(x)
	if parts := x.requests(); err != nil && len(parts) > 1 && !contextError(err) {
		for _, windows := range parts {
			if y := b.rerun(windows); y != nil {
				results, err := b.predict(y)
				b.deliver(y, results, err)
			}
		}
	} else {
		b.deliver(x, results, err)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
	b.schedule()
}

// rerun makes a batch of one request's windows of one that failed, nil if the request has ended.
func (b *Batcher) rerun(windows []*window) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if windows[0].call.ended {
		return nil
	}
	return newBatch(windows)
}

// requests gives the windows of each request.
func (x *batch) requests() (parts [][]*window) {
	for from := 0; from < len(x.windows); {
		to := from + 1
		for to < len(x.windows) && x.windows[to].call == x.windows[from].call {
			to++
		}
		parts = append(parts, x.windows[from:to])
		from = to
	}
	return parts
}

func contextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// predict asks the model and tells OnBatch.
func (b *Batcher) predict(x *batch) ([]squad.RawResult, error) {
	defer x.cancel()
	if err := x.ctx.Err(); err != nil {
		return nil, err // all have gone before it began
	}
	n := len(x.windows)
	tokens, longest := 0, 0
	features := make([]squad.Feature, n)
	firstID := b.ids.Add(uint32(n)) - uint32(n)
	for i, w := range x.windows {
		features[i] = *w.feature()
		features[i].UniqueID = uniqueID(firstID, i)
		tokens += features[i].Len
		longest = max(longest, features[i].Len)
	}
	start := b.now()
	results, err := b.guarded(x.ctx, features)
	if err == nil {
		err = check(results, firstID, n)
	}
	compute := b.now() - start
	b.count(n, compute)
	if b.opts.OnBatch != nil {
		b.opts.OnBatch(Batch{
			Windows:  n,
			Requests: len(x.requests()),
			Tokens:   tokens,
			Padded:   n * longest,
			Queue:    x.queue,
			Compute:  compute,
			Err:      err,
		})
	}
	return results, err
}

// uniqueID is an id that no other window has that is under way: requests count from the same number, and
// a result of another window must not pass for a window's own.
func uniqueID(first uint32, i int) int32 { return int32((first + uint32(i)) & math.MaxInt32) }

// check makes sure that results are those of the windows that were sent.
func check(results []squad.RawResult, firstID uint32, n int) error {
	if len(results) != n {
		return fmt.Errorf("the model returned %d results for %d windows", len(results), n)
	}
	for i := range results {
		if got, want := results[i].UniqueID, uniqueID(firstID, i); got != want {
			return fmt.Errorf("the model returned window %d where window %d was asked for, %d of %d in the batch", got, want, i+1, n)
		}
	}
	return nil
}

// guarded asks the model and survives its panics.
func (b *Batcher) guarded(ctx context.Context, features []squad.Feature) (results []squad.RawResult, err error) {
	defer func() {
		if v := recover(); v != nil {
			results, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return b.model.Predict(ctx, features)
}

// count notes what a batch took. Twenty batches later it weighs a third.
func (b *Batcher) count(windows int, compute time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	const fade = 0.95
	b.recentWindows = b.recentWindows*fade + float64(windows)
	b.recentSeconds = b.recentSeconds*fade + compute.Seconds()
}

// deliver gives the requests of a batch what the model made of it.
func (b *Batcher) deliver(x *batch, results []squad.RawResult, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for i, w := range x.windows {
		c := w.call
		w.batch = nil
		switch {
		case c.ended:
		case err != nil:
			b.fail(c, err)
		default:
			if i == 0 || x.windows[i-1].call != c {
				c.response.Batches++
			}
			c.response.Results[w.index] = results[i]
			c.response.Results[w.index].UniqueID = c.features[w.index].UniqueID
			if c.left--; c.left == 0 {
				c.response.Queue, c.response.Compute = c.start-c.arrival, now-c.start
				c.end()
			}
		}
	}
}

// fail ends a request with an error, if it has not ended. Its windows leave the queue, and batches that
// no other request waits for are cancelled. b.mu is held.
func (b *Batcher) fail(c *call, err error) {
	if c.ended {
		return
	}
	for i := range c.windows {
		w := &c.windows[i]
		if w.bucket != nil {
			b.queue.remove(w)
		}
		if x := w.batch; x != nil {
			if x.live--; x.live == 0 {
				x.cancel()
			}
		}
	}
	c.response, c.err = Response{}, err
	c.end()
}

func (c *call) end() {
	c.ended = true
	close(c.done)
}
