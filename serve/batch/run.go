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

// A batch is a group of windows on their way through the model. Those of a request stand side by side,
// because they have one priority and arrived together. Batcher.mu guards live.
type batch struct {
	windows []*window
	ctx     context.Context
	cancel  context.CancelFunc // called when live is 0 or the batch has run
	live    int                // windows whose requests have not ended
	queue   time.Duration      // longest wait
}

// schedule starts the batches that are ready while the model is free. It is called at every change: a
// request arrives, a batch ends, the alarm rings. b.mu is held.
func (b *Batcher) schedule() {
	for b.running < b.opts.Concurrency && b.queue.waiting > 0 {
		now := b.now()
		k, size, due := b.next(now)
		if k == nil {
			b.setAlarm(now, due)
			return
		}
		x := newBatch(b.queue.take(k, func(n, longest int) bool {
			return n <= size && !b.exceedsTokens(n, longest)
		}))
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

// next returns the bucket for the next batch and the number of windows that the batch may have. If no
// bucket is ready, it returns nil and the time at which one will be.
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

// plan returns the number of windows that a batch from a bucket may have now. It is 0 if they have to wait
// for others, until the time due.
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
	// As in Triton, these come first even if the windows need not wait for others.
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

// setAlarm sets the alarm to a time, unless it is set already: windows that come later are due later. A
// ring for a window that has gone does no harm. b.mu is held.
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
	// It belongs to several requests, so it does not have the context of any.
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

// rerun returns a new batch of one request's windows in a batch that failed; nil if the request has ended.
func (b *Batcher) rerun(windows []*window) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if windows[0].call.ended {
		return nil
	}
	return newBatch(windows)
}

// requests returns the windows of each request.
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

// predict runs the model and reports the batch to OnBatch.
func (b *Batcher) predict(x *batch) ([]squad.RawResult, error) {
	defer x.cancel()
	if err := x.ctx.Err(); err != nil {
		return nil, err // all requests ended before it began
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

// uniqueID returns an id that no other window under way has. The requests' own ids count from the same
// number, and the result of one window must not pass for another's.
func uniqueID(first uint32, i int) int32 { return int32((first + uint32(i)) & math.MaxInt32) }

// check returns an error unless results belong to the windows that were sent.
func check(results []squad.RawResult, firstID uint32, n int) error {
	if len(results) != n {
		return fmt.Errorf("the model returned %d results for %d windows", len(results), n)
	}
	for i := range results {
		if got, want := results[i].UniqueID, uniqueID(firstID, i); got != want {
			return fmt.Errorf("the model returned window %d where window %d was asked for, %d of %d in the batch",
				got, want, i+1, n)
		}
	}
	return nil
}

// guarded runs the model and returns its panic as an error.
func (b *Batcher) guarded(ctx context.Context, features []squad.Feature) (results []squad.RawResult, err error) {
	defer func() {
		if v := recover(); v != nil {
			results, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return b.model.Predict(ctx, features)
}

// count adds the time of a batch to the estimate of the speed. Twenty batches later it weighs a third.
func (b *Batcher) count(windows int, compute time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	const fade = 0.95
	b.recentWindows = b.recentWindows*fade + float64(windows)
	b.recentSeconds = b.recentSeconds*fade + compute.Seconds()
}

// deliver hands the results of a batch, or its error, to its requests.
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
