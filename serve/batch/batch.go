// Package batch makes batches of the windows of many requests, as they come: a model is faster at eight
// windows together than at one after the other, but a server's requests have one or two each and
// arrive one by one. It is what Triton calls a dynamic batcher, with a bound on padding of its own.
//
// A Batcher is a squad.Predictor in front of a squad.Predictor. While the model is busy windows
// wait, and those that wait make the next batch; that alone fills batches under load and costs an
// idle server nothing. Options.MaxDelay also lets the model stand idle for a moment, which makes
// larger batches of light load and every answer later.
//
// # Order
//
// The next batch is that of the oldest window of the most urgent priority present. Other windows
// that may share a batch with it fill it, the more urgent first, and where there are more than fit
// those that are nearest to it in length, for the batch is padded to its longest. A window that
// waits for MaxDelay to pass holds up none that it cannot share a batch with. Priority is strict: as
// long as urgent windows keep the model busy no other runs, and MaxWait is what tells its client.
//
// # Errors
//
// A model that fails does not say which window it failed at. So where a batch of several requests
// fails, the windows of each are run again, once and by themselves, and only requests that fail then
// have the error. It is the same for a panic, and for results that are not those of the batch's
// windows. A model that always fails is so asked up to twice for each window. A context error is
// final: the model was told to stop.
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

// Options say what makes a batch and who may wait for one. The zero value is a good start.
type Options struct {
	MaxSize int // windows of a batch, at most; 0 is 8

	// PreferredSizes are those that the model is fast at, if not all are alike. A batch of one of them
	// runs without waiting for MaxDelay to pass; the largest there are windows for is taken. It is
	// Triton's preferred_batch_size.
	PreferredSizes []int

	// MaxTokens of a batch, at most: its windows times the tokens of the longest. It bounds the memory
	// of the model. A window that exceeds it alone runs alone. 0 is no limit.
	MaxTokens int

	// Buckets are ascending lengths. A window shares batches only with those that are longer than the
	// same bounds, and of the same len(InputIDs). All windows of a batch take the time of its longest,
	// for they are padded to it: with one of 30 tokens in a batch of 380, nine tenths of its time are
	// wasted, and the window is late. Narrow buckets waste less and fill more slowly. nil is multiples of
	// 32; a list of no bounds lets all lengths share batches, right for a model that pads every batch to
	// one length.
	Buckets []int

	// MaxDelay is how long a window may wait for others although the model is free; 0 is not at all. It
	// is Triton's max_queue_delay_microseconds.
	MaxDelay time.Duration

	// MaxQueue is the number of windows that wait, at most; 0 is 1024. A request is refused if its
	// windows would exceed it, unless none wait: then one of any size is admitted.
	MaxQueue int

	// MaxWait ends requests of which no window has started when it has passed; 0 is no limit. It is
	// Triton's default_timeout_microseconds.
	MaxWait time.Duration

	Concurrency int // batches that run at once, as Triton's instances do; 0 is 1

	Priorities      int // levels, of which 1 is the most urgent; 0 is 1 level
	DefaultPriority int // of requests that have none; 0 is the least urgent

	// OnBatch, if set, is told of each batch when it has ended, by several goroutines at once if
	// Concurrency is more than 1. It returns before the batch's requests do.
	OnBatch func(Batch)
}

// maxPriorities is more than anyone can tell apart; each bucket has a list for each.
const maxPriorities = 100

// check says what is wrong with options.
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
			return fmt.Errorf("%s is negative: give a positive one, or 0 for the default", n.name)
		}
	}
	if o.MaxWait > 0 && o.MaxWait <= o.MaxDelay {
		return fmt.Errorf("requests end after a MaxWait of %v, before a MaxDelay of %v lets them start: make MaxWait longer", o.MaxWait, o.MaxDelay)
	}
	if o.Priorities > maxPriorities {
		return fmt.Errorf("%d priorities: give at most %d", o.Priorities, maxPriorities)
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

// DefaultSize is Options.MaxSize where it is 0.
const DefaultSize = 8

const (
	defaultQueue  = 1024
	defaultBucket = 32 // the width
)

// A Batch is what happened to one.
type Batch struct {
	Windows  int
	Requests int
	Tokens   int           // of its windows
	Padded   int           // tokens that the model ran: its windows times the longest of them
	Queue    time.Duration // that the longest waiting window waited; 0 where they run for a second time
	Compute  time.Duration
	Err      error // of the model
}

// ErrClosed is the error of requests that come after Close.
var ErrClosed = errors.New("the batcher is closed")

// ErrTimeout is the error of requests that waited longer than MaxWait or their Timeout.
var ErrTimeout = errors.New("the request waited for too long and was not started")

// ErrPriority is the error, wrapped, of requests with a priority that there is not.
var ErrPriority = errors.New("unknown priority")

// A QueueFullError is the error of requests for which there is no room in the queue.
type QueueFullError struct {
	Waiting, Limit int // windows

	// RetryAfter is the time that the windows ahead take as fast as the model has been lately, in whole
	// seconds and at least one.
	RetryAfter time.Duration
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("the queue is full, with %d windows of at most %d: try again in %v", e.Waiting, e.Limit, e.RetryAfter)
}

// A PanicError is a panic of the model.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked; Error leaves it out, for it is not for clients
}

func (e *PanicError) Error() string {
	first, _, _ := strings.Cut(fmt.Sprint(e.Value), "\n")
	return "the model panicked: " + first
}

// A Request asks for the logits of windows.
type Request struct {
	// Features are read until their batch has ended, which may be after Do has returned with an error.
	Features []squad.Feature

	Priority int           // 1 is the most urgent; 0 is Options.DefaultPriority
	Timeout  time.Duration // used in place of Options.MaxWait where it is positive
}

// A Response has the logits of a request's windows.
type Response struct {
	Results []squad.RawResult // in the order of the features
	Queue   time.Duration     // from arrival until the first window started
	Compute time.Duration     // from then until the last had its result
	Batches int               // that the results came from
}

// A Batcher makes batches of requests for a model. It may be used from several goroutines at once.
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

	// Windows that ran and the seconds they took, those of late weighing more.
	recentWindows, recentSeconds float64
}

// New makes a Batcher for a model. Close ends it.
func New(p squad.Predictor, opts Options) (*Batcher, error) {
	if p == nil {
		return nil, errors.New("no model to make batches for")
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

// Predict is Do with the default priority and timeout, which makes b a squad.Predictor. Unlike those of
// other Predictors, its features may be of different lengths.
func (b *Batcher) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	r, err := b.Do(ctx, Request{Features: features})
	return r.Results, err
}

// Do runs the windows of a request in batches that they may share with those of others. It returns when
// all have results or the request has an error: then none of its windows starts any more, and a batch
// of which all requests have ended is cancelled.
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
	if c.timeout <= 0 || c.timeout > b.opts.MaxDelay { // else waiting for others would be its end
		due += b.opts.MaxDelay
	}
	for i := range c.windows {
		c.windows[i].due = due
		b.queue.push(&c.windows[i])
	}
	b.schedule()
	return c, nil
}

// retryAfter estimates how long the model takes for what waits. b.mu is held.
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

// Waiting is the number of windows in the queue.
func (b *Batcher) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.waiting
}

// Running is the number of batches under way.
func (b *Batcher) Running() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running
}

// Close refuses requests from now on, runs what waits without further delay, and returns when all has
// been answered. It does not cancel anything: the requests' contexts do. It may be called more than
// once, and always returns nil.
func (b *Batcher) Close() error {
	b.mu.Lock()
	b.closed = true
	b.alarm.Stop()
	b.schedule()
	b.mu.Unlock()
	// From here on a batch under way starts the next before it ends, so that none is added to no others.
	b.batches.Wait()
	return nil
}

// now is the time since the batcher began, which is smaller than a time.Time and as good.
func (b *Batcher) now() time.Duration { return time.Since(b.began) }
