// Package bench measures a model: it calls it in a closed loop or at a rate of requests, and returns
// latency and throughput as percentiles, by the reference's formula, in the format of Go's benchmarks
// and as a plot. It does not know TensorFlow: it calls a function.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Load says how calls are made. A run ends when both Calls and Duration are reached.
type Load struct {
	Warmup      int           // calls before those that count
	Calls       int           // at least
	Duration    time.Duration // at least
	Concurrency int           // calls at once, at most; 0 is 1

	// Rate is the number of calls that arrive in a second. 0 is a closed loop: a call begins when one
	// before has ended.
	Rate float64
	// Poisson makes calls arrive as those of independent clients do, at random with Rate as the mean,
	// and not in equal steps.
	Poisson bool

	stop  *atomic.Bool // if set, no call begins when it is true
	ended func(Call)   // if set, called with each call that counts
}

func (l *Load) check() error {
	switch {
	case l.Calls < 1 && l.Duration <= 0:
		return errors.New("neither calls nor a duration to measure")
	case l.Warmup < 0 || l.Concurrency < 0:
		return errors.New("a negative number of calls")
	case !(l.Rate >= 0 && l.Rate <= 1e9): // which NaN is not
		return fmt.Errorf("%v is not a rate of calls", l.Rate)
	}
	return nil
}

// A Call is one call of a run, in times since the run began. It arrives when it should begin, and starts later if
// earlier calls still keep the model busy.
type Call struct {
	Arrival, Start, End time.Duration

	// The function that is called may set these: whether a busy server refused the call, how long the
	// call waited in the server, and how long the model ran.
	Refused         bool
	Queued, Compute time.Duration
}

// Latency is what a client waits. It begins with the arrival: if it began with the start, a slow call
// would hide how long it made those behind it wait.
func (c Call) Latency() time.Duration { return c.End - c.Arrival }

// Wait is the part of the latency before the call starts.
func (c Call) Wait() time.Duration { return c.Start - c.Arrival }

// Service is the part of the latency after that.
func (c Call) Service() time.Duration { return c.End - c.Start }

// Calls are those of one run, in the order of their arrivals.
type Calls []Call

// Elapsed is the time from the run's beginning to its last end.
func (c Calls) Elapsed() (d time.Duration) {
	for i := range c {
		d = max(d, c[i].End)
	}
	return d
}

// Times returns one time of each call, as in c.Times(Call.Latency).
func (c Calls) Times(of func(Call) time.Duration) []time.Duration {
	times := make([]time.Duration, len(c))
	for i, call := range c {
		times[i] = of(call)
	}
	return times
}

// Run calls f as l says and returns the calls of the warm-up, which is a closed loop, and those that
// count. If done is not nil, Run calls it after each of these with their number, from one goroutine at a
// time. The first error of f, or the end of ctx, ends the run.
func Run(
	ctx context.Context, f func(context.Context, *Call) error, l Load, done func(calls int),
) (warmup, calls Calls, err error) {
	if err := l.check(); err != nil {
		return nil, nil, err
	}
	if l.Warmup > 0 {
		if warmup, err = run(ctx, f, Load{Calls: l.Warmup, Concurrency: l.Concurrency}, nil); err != nil {
			return nil, nil, err
		}
	}
	calls, err = run(ctx, f, l, done)
	return warmup, calls, err
}

func run(ctx context.Context, f func(context.Context, *Call) error, l Load, done func(calls int)) (Calls, error) {
	r := &runner{load: l, began: time.Now(), random: rand.New(rand.NewPCG(1, 2)), done: done}
	workers, ctx := errgroup.WithContext(ctx)
	for range max(1, l.Concurrency) {
		workers.Go(func() error {
			for {
				i, arrival, ok := r.take()
				if !ok {
					return nil
				}
				if err := sleep(ctx, arrival-time.Since(r.began)); err != nil {
					return err
				}
				c := Call{Arrival: arrival, Start: time.Since(r.began)}
				if err := f(ctx, &c); err != nil {
					return err
				}
				c.End = time.Since(r.began)
				r.put(i, c)
			}
		})
	}
	if err := workers.Wait(); err != nil {
		return nil, err
	}
	return r.calls, nil
}

// sleep waits for a time to pass, none if d is not positive.
func sleep(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// runner hands calls to workers, first come, first served.
type runner struct {
	load   Load
	began  time.Time
	random *rand.Rand
	done   func(calls int)

	mu      sync.Mutex
	arrival time.Duration // of the next call, if there is a rate
	calls   Calls
	ended   int
}

// take hands a worker that is free the next call to make.
func (r *runner) take() (i int, arrival time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	arrival = r.arrival
	if r.load.Rate == 0 {
		arrival = time.Since(r.began)
	}
	if len(r.calls) >= r.load.Calls && arrival >= r.load.Duration || r.load.stop != nil && r.load.stop.Load() {
		return 0, 0, false
	}
	if r.load.Rate > 0 {
		gap := float64(time.Second) / r.load.Rate
		if r.load.Poisson {
			gap *= r.random.ExpFloat64()
		}
		r.arrival += time.Duration(gap)
	}
	r.calls = append(r.calls, Call{})
	return len(r.calls) - 1, arrival, true
}

func (r *runner) put(i int, c Call) {
	if r.load.Rate == 0 {
		c.Arrival = c.Start // nothing was due before
	}
	if r.load.ended != nil {
		r.load.ended(c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[i] = c
	r.ended++
	if r.done != nil {
		r.done(r.ended)
	}
}
