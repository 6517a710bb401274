package bench_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/bench"
)

const ms = time.Millisecond

// callsThatTake makes a function that takes the given times in turn, and the last one from then on.
func callsThatTake(times ...time.Duration) func(context.Context, *bench.Call) error {
	var mu sync.Mutex
	return func(context.Context, *bench.Call) error {
		mu.Lock()
		d := times[0]
		if len(times) > 1 {
			times = times[1:]
		}
		mu.Unlock()
		time.Sleep(d)
		return nil
	}
}

func runLoad(t *testing.T, f func(context.Context, *bench.Call) error, l bench.Load) (warmup, calls bench.Calls) {
	t.Helper()
	warmup, calls, err := bench.Run(t.Context(), f, l, nil)
	require.NoError(t, err)
	return warmup, calls
}

func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		warmup, calls := runLoad(t, callsThatTake(50*ms, 20*ms, 10*ms, 30*ms), bench.Load{Warmup: 2, Calls: 3})
		assert.Equal(t, bench.Calls{{Arrival: 0, Start: 0, End: 50 * ms}, {Arrival: 50 * ms, Start: 50 * ms, End: 70 * ms}},
			warmup)
		assert.Equal(t, bench.Calls{{Arrival: 0, Start: 0, End: 10 * ms}, {Arrival: 10 * ms, Start: 10 * ms, End: 40 * ms},
			{Arrival: 40 * ms, Start: 40 * ms, End: 70 * ms}}, calls)
		assert.Equal(t, 70*ms, calls.Elapsed())
	})
}

func TestRunEndsWhenCallsAndDurationAreReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			calls    int
			duration time.Duration
			want     int
		}{{5, 0, 5}, {0, 95 * ms, 10}, {20, 95 * ms, 20}, {2, 95 * ms, 10}} {
			_, calls := runLoad(t, callsThatTake(10*ms), bench.Load{Calls: tc.calls, Duration: tc.duration})
			assert.Len(t, calls, tc.want, "%+v", tc)
			_, calls = runLoad(t, callsThatTake(ms), bench.Load{Calls: tc.calls, Duration: tc.duration, Rate: 100})
			assert.Len(t, calls, tc.want, "%+v at a rate", tc)
		}
	})
}

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			now += n
			most = max(most, now)
		}
		f := func(context.Context, *bench.Call) error {
			count(1)
			defer count(-1)
			time.Sleep(10 * ms)
			return nil
		}
		_, calls := runLoad(t, f, bench.Load{Calls: 30, Concurrency: 3})
		assert.Len(t, calls, 30)
		assert.Equal(t, 100*ms, calls.Elapsed())
		assert.Equal(t, 3, most)
	})
}

// A call that blocks the model for long delays those that arrive meanwhile, and their latencies tell.
func TestRateHasNoCoordinatedOmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, calls := runLoad(t, callsThatTake(5*ms, 35*ms, 5*ms), bench.Load{Calls: 7, Rate: 100})
		assert.Equal(t, bench.Calls{
			{Arrival: 0, Start: 0, End: 5 * ms},
			{Arrival: 10 * ms, Start: 10 * ms, End: 45 * ms},
			{Arrival: 20 * ms, Start: 45 * ms, End: 50 * ms},
			{Arrival: 30 * ms, Start: 50 * ms, End: 55 * ms},
			{Arrival: 40 * ms, Start: 55 * ms, End: 60 * ms},
			{Arrival: 50 * ms, Start: 60 * ms, End: 65 * ms},
			{Arrival: 60 * ms, Start: 65 * ms, End: 70 * ms},
		}, calls)
		assert.Equal(t, 30*ms, calls[2].Latency())
		assert.Equal(t, 25*ms, calls[2].Wait())
		assert.Equal(t, 5*ms, calls[2].Service())

		_, calls = runLoad(t, callsThatTake(5*ms, 35*ms, 5*ms), bench.Load{Calls: 3, Rate: 100, Concurrency: 2})
		assert.Equal(t, bench.Call{Arrival: 20 * ms, Start: 20 * ms, End: 25 * ms}, calls[2],
			"a second one at once does not wait")
	})
}

func TestPoissonArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 20000, 200
		_, calls := runLoad(t, callsThatTake(0), bench.Load{Calls: n, Rate: rate, Poisson: true})
		// The gaps are exponential: their deviation is their mean, and exp(-1) of them exceed it.
		var sum, squares, long float64
		for i := range n - 1 {
			gap := (calls[i+1].Arrival - calls[i].Arrival).Seconds() * rate
			sum, squares = sum+gap, squares+gap*gap
			if gap > 1 {
				long++
			}
		}
		mean := sum / (n - 1)
		assert.InDelta(t, 1, mean, 0.03)
		assert.InDelta(t, 1, math.Sqrt(squares/(n-1)-mean*mean), 0.05)
		assert.InDelta(t, math.Exp(-1), long/(n-1), 0.02)
	})
}

func TestRunTellsHowFarItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		_, _, err := bench.Run(t.Context(), callsThatTake(ms), bench.Load{Warmup: 3, Calls: 4, Concurrency: 2}, func(n int) {
			told = append(told, n)
		})
		require.NoError(t, err)
		assert.Equal(t, []int{1, 2, 3, 4}, told)
	})
}

func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		fails := func(context.Context, *bench.Call) error { return broken }
		for _, l := range []bench.Load{{Warmup: 1, Calls: 1}, {Calls: 100}, {Calls: 100, Rate: 1, Concurrency: 4}} {
			warmup, calls, err := bench.Run(t.Context(), fails, l, nil)
			assert.Equal(t, broken, err)
			assert.Empty(t, warmup)
			assert.Empty(t, calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 25*ms)
		defer cancel()
		_, _, err := bench.Run(ctx, callsThatTake(10*ms), bench.Load{Calls: 100}, nil)
		assert.ErrorIs(t, err, context.DeadlineExceeded)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, _, err = bench.Run(ctx, callsThatTake(ms), bench.Load{Calls: 2, Rate: 0.001}, nil)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(start), "nobody waits for the next arrival")
	})
}

func TestRunRefuses(t *testing.T) {
	for want, l := range map[string]bench.Load{
		"neither calls nor a duration to measure": {Warmup: 1},
		"a negative number of calls":              {Calls: 1, Warmup: -1},
		"NaN is not a rate of calls":              {Calls: 1, Rate: math.NaN()},
		"-1 is not a rate of calls":               {Calls: 1, Rate: -1},
	} {
		_, _, err := bench.Run(t.Context(), callsThatTake(0), l, nil)
		assert.EqualError(t, err, want)
	}
}
