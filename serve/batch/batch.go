// Package batch makes batches of the windows of many requests as they come. A model is faster at eight
// windows together than at one after the other, but a server's requests have one or two windows each and
// arrive one by one. Triton calls this a dynamic batcher; this one also bounds padding.
//
// A Batcher is a squad.Predictor in front of a squad.Predictor. While the model is busy, windows wait, and
// those that wait make the next batch. That alone fills batches under load and costs an idle server nothing.
// Options.MaxDelay also lets the model stand idle for a moment, which makes larger batches under light load
// and every answer later.
//
// # Order
//
// The next batch is that of the oldest window of the most urgent priority. Other windows that may share a
// batch with it fill it, the more urgent first. Where more would fit than there is room for, those nearest
// in length come first, because a batch is padded to its longest window. A window that waits for MaxDelay
// to pass does not hold up windows with which it cannot share a batch. Priority is strict: while urgent
// windows keep the model busy, no others run, and MaxWait ends their requests.
//
// # Errors
//
// A model that fails does not tell which window made it fail. So if a batch of several requests fails, the
// windows of each request run once more by themselves, and only requests that fail then have the error.
// The same holds for a panic, and for results that do not belong to the batch's windows. A model that always
// fails thus runs each window up to twice. A context error is final: the model was told to stop.
package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tfbert/go/squad"
)

// Options set which windows make a batch and how long they may wait for one. The zero value is a good start.
type Options struct {
	MaxSize int // windows of a batch, at most; 0 is 8

	// PreferredSizes are the sizes at which the model is fast. A batch of one of them, the largest for
	// which there are windows, runs without waiting for MaxDelay. Triton: preferred_batch_size.
	PreferredSizes []int

	// MaxTokens bounds the memory of the model: a batch's windows times the tokens of the longest. A
	// window that exceeds it runs alone. 0 is no limit.
	MaxTokens int

	// Buckets are ascending bounds of lengths. Windows share a batch only if they lie between the same
	// two bounds and have the same len(InputIDs). All windows of a batch take the time of its longest, to
	// which they are padded: a window of 30 tokens in a batch of 380 wastes nine tenths of its time and is
	// late. Narrow buckets waste less and fill more slowly. nil is multiples of 32. An empty list lets all
	// lengths share batches, which suits a model that pads every batch to one length.
	Buckets []int

	// MaxDelay is the time that a window may wait for others while the model is free; 0 is not at all.
	// Triton: max_queue_delay_microseconds.
	MaxDelay time.Duration

	// MaxQueue is the number of windows that may wait; 0 is 1024. A request whose windows would exceed it
	// is refused, unless no windows wait: then a request of any size is admitted.
	MaxQueue int

	// MaxWait ends requests that have waited so long and have no window started; 0 is no limit. Triton:
	// default_timeout_microseconds.
	MaxWait time.Duration

	Concurrency int // batches that run at once, as Triton's instances do; 0 is 1

	Priorities      int // levels, of which 1 is the most urgent; 0 is 1 level
	DefaultPriority int // of requests without one; 0 is the least urgent

	// OnBatch, if set, is called when a batch has ended and before its requests return, by up to
	// Concurrency goroutines at once.
	OnBatch func(Batch)
}

// maxPriorities is more than anyone can tell apart; each bucket has a list for each of them.
const maxPriorities = 100

// check returns an error if options are not valid.
func (o *Options) check() error {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"MaxSize", int64(o.MaxSize)}, {"MaxTokens", int64(o.MaxTokens)}, {"MaxQueue", int64(o.MaxQueue)},
		{"Concurrency", int64(o.Concurrency)}, {"Priorities", int64(o.Priorities)},
		{"DefaultPriority", int64(o.DefaultPriority)}, {"MaxDelay", int64(o.MaxDelay)}, {"MaxWait", int64(o.MaxWait)},
	} {
		if n.value < 0 {
			return fmt.Errorf("%s is negative: use a positive value, or 0 for the default", n.name)
		}
	}
	if o.MaxWait > 0 && o.MaxWait <= o.MaxDelay {
		return fmt.Errorf("requests end after a MaxWait of %v, before a MaxDelay of %v lets them start: "+
			"make MaxWait longer", o.MaxWait, o.MaxDelay)
	}
	if o.Priorities > maxPriorities {
		return fmt.Errorf("there are %d priorities: there may be at most %d", o.Priorities, maxPriorities)
	}
	if o.DefaultPriority > max(1, o.Priorities) {
		return fmt.Errorf("the default priority %d is not one of 1 to %d", o.DefaultPriority, max(1, o.Priorities))
	}
	for _, n := range o.PreferredSizes {
		if most := cmp.Or(o.MaxSize, DefaultSize); n < 1 || n > most {
			return fmt.Errorf("the preferred size %d is not one of 1 to MaxSize, %d", n, most)
		}
	}
	for i, n := range o.Buckets {
		if n < 1 || i > 0 && n <= o.Buckets[i-1] {
			return fmt.Errorf("buckets %v do not ascend from a positive length", o.Buckets)
		}
	}
	return nil
}

// DefaultSize is the value of an Options.MaxSize of 0.
const DefaultSize = 8

const (
	defaultQueue  = 1024
	defaultBucket = 32 // the width
)

// A Batch is the report on a batch that has ended.
type Batch struct {
	Windows  int
	Requests int
	Tokens   int           // of its windows
	Padded   int           // tokens that the model ran: its windows times the longest of them
	Queue    time.Duration // the longest wait of its windows; 0 if they ran for a second time
	Compute  time.Duration
	Err      error // of the model
}

// ErrClosed is the error of requests that come after Close.
var ErrClosed = errors.New("the batcher is closed")

// ErrTimeout is the error of requests that waited longer than MaxWait or their Timeout.
var ErrTimeout = errors.New("the request waited for too long and was not started")

// ErrPriority is the error, wrapped, of requests with an unknown priority.
var ErrPriority = errors.New("unknown priority")

// A QueueFullError is the error of requests for which there is no room in the queue.
type QueueFullError struct {
	Waiting, Limit int // windows

	// RetryAfter is the time that the waiting windows take at the model's latest speed, in whole seconds
	// and at least one.
	RetryAfter time.Duration
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("the queue is full, with %d windows of at most %d: try again in %v",
		e.Waiting, e.Limit, e.RetryAfter)
}

// A PanicError is a panic of the model.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked; not in the text of the error, which is for clients
}

func (e *PanicError) Error() string {
	first, _, _ := strings.Cut(fmt.Sprint(e.Value), "\n")
	return "the model panicked: " + first
}

// A Request asks for the logits of windows.
type Request struct {
	// Features are in use until their batch has ended, which may be after Do has returned an error.
	Features []squad.Feature

	Priority int           // 1 is the most urgent; 0 is Options.DefaultPriority
	Timeout  time.Duration // in place of Options.MaxWait, if positive
}

// A Response has the logits of a request's windows.
type Response struct {
	Results []squad.RawResult // in the order of the features
	Queue   time.Duration     // from the arrival to the start of the first window
	Compute time.Duration     // from then to the last result
	Batches int               // that the results came from
}

// A Batcher makes batches of requests for a model. Its methods may be called by many goroutines at once.
type Batcher struct {
	model   squad.Predictor
	opts    Options // with defaults filled in
	began   time.Time
	ids     atomic.Uint32  // windows that were sent to the model
	batches sync.WaitGroup // under way

	mu      sync.Mutex
	queue   queue
	running int
	closed  bool

	alarm    *time.Timer // rings when MaxDelay has passed for a window
	alarmSet bool

	// The windows that ran and their seconds, of which the latest weigh most.
	recentWindows, recentSeconds float64
}

// New returns a Batcher for a model. Close ends it.
func New(p squad.Predictor, opts Options) (*Batcher, error) {
	if p == nil {
		return nil, errors.New("the model is nil")
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	opts.MaxSize = cmp.Or(opts.MaxSize, DefaultSize)
	opts.MaxQueue = cmp.Or(opts.MaxQueue, defaultQueue)
	opts.Concurrency = cmp.Or(opts.Concurrency, 1)
	opts.Priorities = cmp.Or(opts.Priorities, 1)
	opts.DefaultPriority = cmp.Or(opts.DefaultPriority, opts.Priorities)
	opts.PreferredSizes = slices.Sorted(slices.Values(opts.PreferredSizes))
	opts.Buckets = slices.Clone(opts.Buckets)

	b := &Batcher{model: p, opts: opts, began: time.Now()}
	b.queue = queue{levels: opts.Priorities, bounds: opts.Buckets, buckets: map[bucketKey]*bucket{}}
	b.alarm = time.AfterFunc(math.MaxInt64, b.ring)
	b.alarm.Stop()
	return b, nil
}

// Predict implements squad.Predictor by Do, with the default priority and timeout. Unlike other Predictors,
// it takes features of different lengths.
func (b *Batcher) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	r, err := b.Do(ctx, Request{Features: features})
	return r.Results, err
}

// Do runs the windows of a request in batches, which they may share with those of others. It returns when
// all have results, or with an error. Then the request's other windows do not start, and a batch is
// cancelled if all of its requests have ended.
func (b *Batcher) Do(ctx context.Context, r Request) (Response, error) {
	if len(r.Features) == 0 {
		return Response{}, nil
	}
	if ctx.Err() != nil {
		return Response{}, context.Cause(ctx)
	}
	c, err := b.admit(r)
	if err != nil {
		return Response{}, err
	}
	var timeout <-chan time.Time
	if c.timeout > 0 {
		t := time.NewTimer(c.timeout)
		defer t.Stop()
		timeout = t.C
	}
	canceled := ctx.Done()
	for {
		select {
		case <-c.done:
			return c.response, c.err
		case <-canceled:
			b.giveUp(c, context.Cause(ctx))
			canceled = nil
		case <-timeout:
			b.timeOut(c)
			timeout = nil
		}
	}
}

// admit puts a request's windows into the queue, all or none.
func (b *Batcher) admit(r Request) (*call, error) {
	priority := cmp.Or(r.Priority, b.opts.DefaultPriority)
	if priority < 1 || priority > b.opts.Priorities {
		return nil, fmt.Errorf("%w: %d is not one of 1 to %d", ErrPriority, priority, b.opts.Priorities)
	}
	c := newCall(r, priority-1)
	if c.timeout <= 0 {
		c.timeout = b.opts.MaxWait
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	if n := b.queue.waiting; n > 0 && n+len(c.windows) > b.opts.MaxQueue {
		return nil, &QueueFullError{Waiting: n, Limit: b.opts.MaxQueue, RetryAfter: b.retryAfter()}
	}
	c.arrival = b.now()
	due := c.arrival
	if c.timeout <= 0 || c.timeout > b.opts.MaxDelay { // otherwise it would time out while it waits for others
		due += b.opts.MaxDelay
	}
	for i := range c.windows {
		c.windows[i].due = due
		b.queue.push(&c.windows[i])
	}
	b.schedule()
	return c, nil
}

// retryAfter estimates the time that the model takes for the waiting windows. b.mu is held.
func (b *Batcher) retryAfter() time.Duration {
	seconds := 1.0
	if b.recentWindows > 0 {
		perWindow := b.recentSeconds / b.recentWindows / float64(b.opts.Concurrency)
		seconds = max(1, math.Ceil(perWindow*float64(b.queue.waiting)))
	}
	return time.Duration(min(seconds, math.MaxInt64/1e9)) * time.Second
}

// giveUp ends a request whose client has gone.
func (b *Batcher) giveUp(c *call, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail(c, err)
}

// timeOut ends a request that has waited long enough, unless it has started.
func (b *Batcher) timeOut(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.started {
		b.fail(c, ErrTimeout)
	}
}

// Waiting returns the number of windows in the queue.
func (b *Batcher) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.waiting
}

// Running returns the number of batches under way.
func (b *Batcher) Running() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running
}

// Close refuses requests from now on, runs the waiting ones without delay, and returns when all have ended.
// Only their contexts cancel requests. Close may be called more than once and always returns nil.
func (b *Batcher) Close() error {
	b.mu.Lock()
	b.closed = true
	b.alarm.Stop()
	b.schedule()
	b.mu.Unlock()
	// From here on a batch under way starts the next before it ends: the WaitGroup reaches zero only once.
	b.batches.Wait()
	return nil
}

// now returns the time since the batcher began, which is smaller than a time.Time and as good.
func (b *Batcher) now() time.Duration { return time.Since(b.began) }
