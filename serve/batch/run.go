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
	tokens  int
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
		level, _ := k.head()
		late := b.late(now, level)
		if late != nil {
			k, size = late.shares[0].of.bucket, b.opts.MaxSize
		}
		x := newBatch(b.queue.take(k, late, size, b.exceedsTokens))
		for _, w := range x.windows {
			c := w.call
			x.queue = max(x.queue, now-c.arrival)
			if !c.started {
				c.started, c.start = true, now
			}
			x.tokens += w.tokens()
		}
		b.clock(now)
		b.running++
		b.inside += x.tokens
		b.batches.Go(func() { b.run(x) })
	}
}

// late returns the job of a level that has the next batch because it, or one that is due later, would not be done in
// time otherwise. Only every second batch is for such jobs, so that those of other clients still have their turns. A
// job that cannot be done in time even alone does not count.
func (b *Batcher) late(now time.Duration, level int) *job {
	if b.hurried {
		b.hurried = false
		return nil
	}
	work := 0.0
	var first *job
	for _, j := range b.queue.due {
		alone := b.seconds(j.windows, j.tokens)
		if j.client.id.level != level || now+duration(alone) > j.deadline {
			continue
		}
		work += alone
		if first == nil && j.turn.waiting > 0 {
			first = j
		}
		if first == nil || work == 0 {
			continue
		}
		const margin = 2 // half of the batches are not its own
		length := j.tokens / j.windows
		batch := b.seconds(b.opts.MaxSize, b.opts.MaxSize*length)
		if now+duration(margin*work+2*batch) > j.deadline {
			b.hurried = true
			return first
		}
	}
	return nil
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
	if k.n >= b.opts.MaxSize {
		return b.opts.MaxSize, math.MaxInt64
	}
	n, due = k.n, math.MaxInt64
	longest := 0
	k.all(func(w *window) {
		longest, due = max(longest, w.tokens()), min(due, w.due)
	})
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
	b.clock(b.now())
	b.running--
	b.inside -= x.tokens
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
	b.mu.Lock()
	start := b.now()
	worked := b.clock(start)
	b.mu.Unlock()
	results, err := b.guarded(x.ctx, features)
	if err == nil {
		err = check(results, firstID, n)
	}
	b.mu.Lock()
	end := b.now()
	compute := end - start
	if !contextError(err) {
		b.speed.add(tokens, (b.clock(end) - worked).Seconds())
	}
	b.mu.Unlock()
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

// WarmUp runs the model over windows before it has requests, without the queue and without OnBatch. From the time of
// the last run, the first request can be told how long it would take.
func (b *Batcher) WarmUp(ctx context.Context, features []squad.Feature) error {
	start := b.now()
	if _, err := b.model.Predict(ctx, features); err != nil {
		return err
	}
	tokens := 0
	for i := range features {
		tokens += features[i].Len
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.speed = speed{}
	b.speed.add(tokens, (b.now() - start).Seconds())
	return nil
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
			c.results[w.index] = results[i]
			c.results[w.index].UniqueID = c.features[w.index].UniqueID
			w.done = true
			if c.left--; c.left == 0 {
				c.response.Queue, c.response.Compute = c.start-c.arrival, now-c.start
				if c.advance(); c.ready == nil {
					c.response.Results = c.results
				}
				if c.alone {
					b.learn(c.job, true)
				}
				c.end()
			}
		}
	}
	for i, w := range x.windows {
		if c := w.call; !c.ended && c.ready != nil && (i == 0 || x.windows[i-1].call != c) {
			c.advance()
		}
	}
}

// advance tells Do of the windows at the beginning that have results.
func (c *call) advance() {
	from := c.first
	for c.first < len(c.windows) && c.windows[c.first].done {
		c.first++
	}
	if c.first > from && c.ready != nil {
		select {
		case c.ready <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

// fail ends a request with an error, if it has not ended. Its windows leave the queue, and batches that
// no other request waits for are cancelled. b.mu is held.
func (b *Batcher) fail(c *call, err error) {
	if c.ended {
		return
	}
	if c.alone {
		b.learn(c.job, false)
	}
	for i := range c.windows {
		w := &c.windows[i]
		if w.share != nil {
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
