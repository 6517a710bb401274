package bench

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Stability says when figures are stable: when Intervals in a row differ by no more than Tolerance in
// throughput and in latency.
type Stability struct {
	Interval  time.Duration
	Intervals int     // in a row
	Most      int     // intervals to measure before giving up
	Tolerance float64 // of their mean
}

// RunStable calls f as l says, without a pause, until the figures of the last intervals agree, and returns
// the calls that ended in these. stable is false if they still differed after the most intervals.
func RunStable(
	ctx context.Context, f func(context.Context, *Call) error, l Load, s Stability, done func(interval int),
) (calls Calls, stable bool, err error) {
	if s.Interval <= 0 || s.Intervals < 1 || s.Most < s.Intervals {
		return nil, false, fmt.Errorf("cannot measure %d intervals of %v, of at most %d", s.Intervals, s.Interval, s.Most)
	}
	l.Calls, l.Duration, l.stop = 0, time.Duration(s.Most+1)*s.Interval, new(atomic.Bool)
	var mu sync.Mutex
	var ended Calls
	interval := 0 // that have passed
	last := func(n int) Calls {
		from, to := time.Duration(interval-n)*s.Interval, time.Duration(interval)*s.Interval
		var last Calls
		for _, c := range ended {
			if c.End > from && c.End <= to {
				c.Arrival, c.Start, c.End = c.Arrival-from, c.Start-from, c.End-from
				last = append(last, c)
			}
		}
		return last
	}
	l.ended = func(c Call) {
		mu.Lock()
		defer mu.Unlock()
		if l.stop.Load() {
			return
		}
		ended = append(ended, c)
		for c.End >= time.Duration(interval+1)*s.Interval {
			interval++
			if done != nil {
				done(interval)
			}
			if interval < s.Intervals {
				continue
			}
			stable = s.agree(last(s.Intervals))
			if stable || interval == s.Most {
				calls = last(s.Intervals)
				l.stop.Store(true)
				return
			}
		}
	}
	if _, _, err = Run(ctx, f, l, nil); err == nil && len(calls) == 0 {
		err = fmt.Errorf("no call ended in %d intervals of %v: make them longer", s.Intervals, s.Interval)
	}
	return calls, stable, err
}

// agree reports whether the intervals that calls ended in agree in throughput and in mean latency.
func (s *Stability) agree(calls Calls) bool {
	runs := make([]Calls, s.Intervals)
	for _, c := range calls {
		i := min(int((c.End-1)/s.Interval), s.Intervals-1)
		runs[i] = append(runs[i], c)
	}
	for _, figure := range []func(Calls) float64{
		func(c Calls) float64 { return float64(len(c)) },
		func(c Calls) float64 { return average(c.Times(Call.Latency)) },
	} {
		mean := 0.0
		for _, run := range runs {
			if len(run) == 0 {
				return false
			}
			mean += figure(run) / float64(len(runs))
		}
		for _, run := range runs {
			if x := figure(run); x < mean*(1-s.Tolerance) || x > mean*(1+s.Tolerance) {
				return false
			}
		}
	}
	return true
}

// A ServerResult is what was measured of a server.
type ServerResult struct {
	URL         string  `json:"url"`
	Model       string  `json:"model"`
	Concurrency int     `json:"concurrency"`
	Rate        float64 `json:"request_rate,omitempty"`
	Poisson     bool    `json:"poisson,omitempty"`
	Requests    int     `json:"requests"` // that were answered
	Refused     int     `json:"refused"`  // because the queue was full
	Seconds     float64 `json:"seconds"`
	Throughput  float64 `json:"throughput"` // answers a second
	Stable      bool    `json:"stable"`

	Latency Stats `json:"latency_ms"` // from a request's arrival
	Wait    Stats `json:"wait_ms"`    // in the client, from arrival to its being sent
	Queue   Stats `json:"queue_ms"`   // in the server
	Compute Stats `json:"compute_ms"` // of the model
	// Overhead is what is left of the time from sending to the answer without Queue and Compute.
	Overhead Stats `json:"overhead_ms"`
}

// NewServerResult computes a result from a run of l.
func NewServerResult(url, model string, l Load, calls Calls, stable bool) (ServerResult, error) {
	var answered Calls
	for _, c := range calls {
		if !c.Refused {
			answered = append(answered, c)
		}
	}
	r := ServerResult{
		URL: url, Model: model, Concurrency: max(1, l.Concurrency), Rate: l.Rate, Poisson: l.Poisson && l.Rate > 0,
		Requests: len(answered), Refused: len(calls) - len(answered), Seconds: calls.Elapsed().Seconds(), Stable: stable,
	}
	if r.Requests == 0 {
		return r, fmt.Errorf("the server refused all of %d requests", len(calls))
	}
	r.Throughput = float64(r.Requests) / r.Seconds
	r.Latency, r.Wait = NewStats(answered.Times(Call.Latency)), NewStats(answered.Times(Call.Wait))
	r.Queue = NewStats(answered.Times(func(c Call) time.Duration { return c.Queued }))
	r.Compute = NewStats(answered.Times(func(c Call) time.Duration { return c.Compute }))
	r.Overhead = NewStats(answered.Times(func(c Call) time.Duration { return c.Service() - c.Queued - c.Compute }))
	return r, nil
}

// NewServerTable returns a Writer for people.
func NewServerTable(w io.Writer) Writer[ServerResult] { return &serverTable{w: w} }

type serverTable struct {
	w        io.Writer
	rows     *columns // nil before the first
	unstable bool     // whether a result was
}

func (t *serverTable) Write(r *ServerResult) (err error) {
	if t.rows == nil {
		fmt.Fprintf(t.w, "%s %s\n\n", r.URL, r.Model)
		header := []string{
			"load", "at once", "requests", "refused", "answers/s", "avg ms", "50%", "90%", "95%", "99%", "100%",
			"client wait 99%", "queue 50%", "queue 99%", "model 50%", "model 99%", "other 50%",
		}
		sample := append([]string{r.load() + " *", "", "", "", ""}, samples(12)...)
		if t.rows, err = newColumns(t.w, header, sample); err != nil {
			return err
		}
	}
	load := r.load()
	if !r.Stable {
		load, t.unstable = load+" *", true
	}
	l := &r.Latency
	cells := []string{
		load, strconv.Itoa(r.Concurrency), strconv.Itoa(r.Requests), strconv.Itoa(r.Refused),
		fmt.Sprintf("%.1f", r.Throughput),
	}
	return t.rows.write(append(cells, figures(l.Average, l.P50, l.P90, l.P95, l.P99, l.P100,
		r.Wait.P99, r.Queue.P50, r.Queue.P99, r.Compute.P50, r.Compute.P99, r.Overhead.P50)...))
}

func (t *serverTable) Close() (err error) {
	if t.unstable {
		_, err = fmt.Fprintln(t.w, "\n*: throughput or latency still varied when the most intervals had been measured")
	}
	return err
}

// load returns how questions were asked.
func (r *ServerResult) load() string {
	switch {
	case r.Poisson:
		return fmt.Sprintf("%g/s poisson", r.Rate)
	case r.Rate > 0:
		return fmt.Sprintf("%g/s", r.Rate)
	}
	return "closed"
}
