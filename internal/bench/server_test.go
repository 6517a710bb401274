package bench_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/bench"
)

var threeSeconds = bench.Stability{Interval: time.Second, Intervals: 3, Most: 8, Tolerance: 0.1}

func TestRunStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var intervals []int
		calls, stable, err := bench.RunStable(t.Context(), callsThatTake(10*ms), bench.Load{Warmup: 5}, threeSeconds,
			func(n int) {
				intervals = append(intervals, n)
			})
		require.NoError(t, err)
		assert.True(t, stable)
		assert.Equal(t, []int{1, 2, 3}, intervals)
		assert.Len(t, calls, 300)
		assert.Equal(t, 3*time.Second, calls.Elapsed())
		assert.Equal(t, bench.Call{Arrival: time.Second, Start: time.Second, End: time.Second + 10*ms}, calls[100])
	})
}

func TestRunStableWaitsForTheFiguresToSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Two intervals of a slow start, then all alike.
		slow := make([]time.Duration, 15)
		for i := range slow {
			slow[i] = 130 * ms
		}
		intervals := 0
		calls, stable, err := bench.RunStable(t.Context(), callsThatTake(append(slow, 10*ms)...), bench.Load{}, threeSeconds,
			func(n int) { intervals = n })
		require.NoError(t, err)
		assert.True(t, stable)
		assert.Equal(t, 5, intervals)
		assert.Len(t, calls, 300)
	})
}

func TestRunStableGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		restless := func(context.Context, *bench.Call) error {
			time.Sleep(time.Duration(10+40*(int(time.Since(began).Seconds())%2)) * ms)
			return nil
		}
		_, stable, err := bench.RunStable(t.Context(), restless, bench.Load{}, threeSeconds, nil)
		require.NoError(t, err)
		assert.False(t, stable)

		_, _, err = bench.RunStable(t.Context(), restless, bench.Load{}, bench.Stability{Intervals: 3, Most: 1}, nil)
		assert.EqualError(t, err, "cannot measure 3 intervals of 0s, of at most 1")
	})
}

func TestServerResult(t *testing.T) {
	calls := bench.Calls{
		{Arrival: 0, Start: 0, End: 100 * ms, Queued: 10 * ms, Compute: 80 * ms},
		{Arrival: 100 * ms, Start: 110 * ms, End: 115 * ms, Refused: true},
		{Arrival: 200 * ms, Start: 230 * ms, End: 500 * ms, Queued: 20 * ms, Compute: 200 * ms},
	}
	load := bench.Load{Rate: 10, Poisson: true, Concurrency: 4}
	r, err := bench.NewServerResult("http://localhost:8501", "minilm", load, calls, false)
	require.NoError(t, err)
	assert.Equal(t, 2, r.Requests)
	assert.Equal(t, 1, r.Refused)
	assert.Equal(t, 4.0, r.Throughput)
	assert.Equal(t, []float64{100, 300, 0, 30, 10, 20, 80, 200, 10, 50}, []float64{
		r.Latency.P50, r.Latency.P99, r.Wait.P50, r.Wait.P99, r.Queue.P50, r.Queue.P99,
		r.Compute.P50, r.Compute.P99, r.Overhead.P50, r.Overhead.P99,
	})
	closed, err := bench.NewServerResult("http://localhost:8501", "minilm", bench.Load{}, calls[:1], true)
	require.NoError(t, err)
	assertGolden(t, "server.txt", written(t, bench.NewServerTable, []bench.ServerResult{r, closed}))

	_, err = bench.NewServerResult("", "", load, calls[1:2], true)
	assert.EqualError(t, err, "the server refused all of 1 requests")
}
