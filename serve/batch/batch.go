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
// Clients take turns: the next window is that of the client that has had the fewest tokens, and among the requests of
// this client that of the request that has had the fewest. A client that comes has its turn at once, whatever others
// have waiting, and begins at what those have had. Other windows that may share a batch with the next fill it in the
// same order. [WithClient] says who a client is.
//
// Priority is strict: while urgent windows keep the model busy, no others run, and MaxWait ends their requests. A
// window that waits for MaxDelay to pass does not hold up windows with which it cannot share a batch.
//
// # Admission
//
// A request is admitted whole or refused at once. It is refused if its context would end before it is done, from the
// speed of the model, from what will have its turn before, and from how much longer such requests took of late. What
// is admitted is not refused later. If it comes to be late, because others came, it has every second batch until it is
// in time again.
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

	// MaxQueue is the number of requests that may wait, of any number of windows; 0 is 1024. Further ones are
	// refused. One client cannot take all places: it has at most 8 times as many as are free.
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

// A QueueFullError is the error of requests for which there is no place in the queue.
type QueueFullError struct {
	Waiting, Limit int // requests

	// RetryAfter is the time that the waiting requests take, in whole seconds and at least one.
	RetryAfter time.Duration
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("the queue is full, with %d requests of at most %d: try again in %v",
		e.Waiting, e.Limit, e.RetryAfter)
}

// A DeadlineError is the error of requests that cannot be done before their contexts end. They are not begun.
type DeadlineError struct {
	Takes, Left time.Duration // that the request would take, and that it has

	// RetryAfter is the time, in whole seconds, after which the request can be done in time if no others come. It is 0
	// if the model is too slow for the request whatever else it has to do.
	RetryAfter time.Duration
}

func (e *DeadlineError) Error() string {
	s := fmt.Sprintf("the request would take %v, and has %v left: ", brief(e.Takes), brief(e.Left))
	if e.RetryAfter > 0 {
		return s + fmt.Sprintf("try again in %v", e.RetryAfter)
	}
	return s + "it is too large for the speed of the model"
}

// brief rounds a time to what a reader wants of it.
func brief(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
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

	// Progress, if set, is called by Do with the results of the first windows as these come: each time with those that
	// follow upon the last ones. They are not kept for Response.Results. An error of Progress ends the request.
	Progress func(results []squad.RawResult) error
}

// A Response has the logits of a request's windows.
type Response struct {
	Results []squad.RawResult // in the order of the features; nil if the request had Progress
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

	speed            speed
	stretch          stretch
	worked, workedAt time.Duration // see clock
	inside           int           // tokens in batches under way
	hurried          bool          // the last batch was one for a request that is late
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
	b.queue = newQueue(opts.Priorities, opts.Buckets)
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

// clientKey is the key of a client's name in a context.
type clientKey struct{}

// WithClient returns a context for the requests of a client, such as a user or an address. Clients take turns.
// Requests without one are all of one client.
func WithClient(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, clientKey{}, name)
}

// jobKey is the key in a context of the job that a Batcher has admitted.
type jobKey struct{ *Batcher }

// Admit admits a request that has several parts, with so many windows and tokens in all, or returns the error with
// which Do would refuse it. Do, with the context that Admit returns, then refuses none of the parts, and they share the
// turns of one request. The caller must call end after the last part.
func (b *Batcher) Admit(
	ctx context.Context, priority, windows, tokens int,
) (part context.Context, end func(), err error) {
	level, err := b.level(priority)
	if err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if windows < 1 {
		return ctx, func() {}, nil
	}
	j, err := b.admit(ctx, level, windows, tokens)
	if err != nil {
		return nil, nil, err
	}
	end = sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.learn(j, j.windows == 0)
		b.queue.settle(j, j.windows, j.tokens)
	})
	return context.WithValue(ctx, jobKey{b}, j), end, nil
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
	c, err := b.enter(ctx, r)
	if err != nil {
		return Response{}, err
	}
	if r.Progress != nil {
		defer b.giveUp(c, errProgress) // if it panics
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
			if r.Progress != nil && (c.err == nil || ctx.Err() == nil) { // also what came before the model failed
				if err := b.report(c, r.Progress); err != nil {
					return Response{}, err
				}
			}
			return c.response, c.err
		case <-c.ready:
			if err := b.report(c, r.Progress); err != nil {
				b.giveUp(c, err)
				return Response{}, err
			}
		case <-canceled:
			b.giveUp(c, context.Cause(ctx))
			canceled = nil
		case <-timeout:
			b.timeOut(c)
			timeout = nil
		}
	}
}

// errProgress is the error of a request whose Progress panics, which nobody sees.
var errProgress = errors.New("the request's Progress panicked")

// report calls a request's Progress with those of its results that it has not had, and drops them.
func (b *Batcher) report(c *call, progress func([]squad.RawResult) error) error {
	b.mu.Lock()
	results := c.results[c.reported:c.first]
	c.reported = c.first
	b.mu.Unlock()
	if len(results) == 0 {
		return nil
	}
	err := progress(results)
	clear(results)
	return err
}

// level returns a priority as a level, from 0.
func (b *Batcher) level(priority int) (int, error) {
	priority = cmp.Or(priority, b.opts.DefaultPriority)
	if priority < 1 || priority > b.opts.Priorities {
		return 0, fmt.Errorf("%w: %d is not one of 1 to %d", ErrPriority, priority, b.opts.Priorities)
	}
	return priority - 1, nil
}

// enter puts a request's windows into the queue, all or none.
func (b *Batcher) enter(ctx context.Context, r Request) (*call, error) {
	level, err := b.level(r.Priority)
	if err != nil {
		return nil, err
	}
	c := newCall(r)
	if c.timeout <= 0 {
		c.timeout = b.opts.MaxWait
	}
	tokens := 0
	for i := range r.Features {
		tokens += r.Features[i].Len
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	var part bool
	if c.job, part = ctx.Value(jobKey{b}).(*job); !part {
		if c.job, err = b.admit(ctx, level, len(c.windows), tokens); err != nil {
			return nil, err
		}
		c.alone = true
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

// admit adds a job to the queue, or returns why it cannot be done. b.mu is held.
func (b *Batcher) admit(ctx context.Context, level, windows, tokens int) (*job, error) {
	if b.closed {
		return nil, ErrClosed
	}
	q := &b.queue
	name, _ := ctx.Value(clientKey{}).(string)
	id := clientID{level, name}
	own := 0
	if c := q.clients[id]; c != nil {
		own = len(c.jobs)
	}
	if free := b.opts.MaxQueue - q.jobs; free <= 0 || own >= 8*free {
		n, sum := q.before(id, math.MaxInt/2)
		return nil, &QueueFullError{q.jobs, b.opts.MaxQueue, retryAfter(b.seconds(n, sum))}
	}
	j := &job{deadline: math.MaxInt64, admitted: windows, windows: windows, tokens: tokens, arrival: b.now()}
	n, sum := q.before(id, tokens)
	j.expected = b.seconds(n+windows, sum+tokens+b.inside)
	if at, ok := ctx.Deadline(); ok {
		left := time.Until(at)
		j.deadline = j.arrival + left
		takes := j.expected * b.stretch.factor()
		if takes > left.Seconds() {
			err := &DeadlineError{Takes: duration(takes), Left: left}
			if b.seconds(windows, tokens) <= left.Seconds() {
				err.RetryAfter = retryAfter(takes - left.Seconds())
			}
			return nil, err
		}
	}
	q.add(id, j)
	return j, nil
}

// learn compares the time that a job took with what was expected. If it ends before it is done, the time is what it
// would have taken at its pace so far, if that is more. b.mu is held.
func (b *Batcher) learn(j *job, done bool) {
	took, left := (b.now() - j.arrival).Seconds(), (j.deadline - j.arrival).Seconds()
	const least = 0.1 // of its time: what is expected of a short request depends on single batches
	if j.expected < least*left {
		return
	}
	if !done {
		if took < j.expected {
			return // the client went early
		}
		const most = 4
		took *= min(most, float64(j.admitted)/float64(max(1, j.admitted-j.windows)))
	}
	b.stretch.add(took, j.expected)
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
	if !c.job.started {
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
