package bench_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/tfbert/go/internal/bench"
)

// millisecondsUpTo returns 1 to n milliseconds, in descending order.
func millisecondsUpTo(n int) []time.Duration {
	times := make([]time.Duration, n)
	for i := range times {
		times[i] = time.Duration(n-i) * ms
	}
	return times
}

func TestStats(t *testing.T) {
	for _, tc := range []struct {
		times []time.Duration
		want  bench.Stats
	}{
		{millisecondsUpTo(1), bench.Stats{Average: 1, P50: 1, P90: 1, P95: 1, P99: 1, P100: 1}},
		{millisecondsUpTo(2), bench.Stats{Average: 1.5, Deviation: 0.7071067811865476, P50: 1, P90: 2, P95: 2, P99: 2,
			P100: 2}},
		{millisecondsUpTo(10), bench.Stats{Average: 5.5, Deviation: 3.0276503540974917, P50: 5, P90: 9, P95: 10, P99: 10,
			P100: 10}},
		{millisecondsUpTo(100), bench.Stats{Average: 50.5, Deviation: 29.011491975882016, P50: 50, P90: 90, P95: 95, P99: 99,
			P100: 100}},
		{millisecondsUpTo(101), bench.Stats{Average: 51, Deviation: 29.300170647967224, P50: 51, P90: 91, P95: 96, P99: 100,
			P100: 101}},
		{[]time.Duration{1500 * time.Microsecond, 500 * time.Microsecond},
			bench.Stats{Average: 1, Deviation: 0.7071067811865476, P50: 0.5, P90: 1.5, P95: 1.5, P99: 1.5, P100: 1.5}},
	} {
		before := slices.Clone(tc.times)
		assert.Equal(t, tc.want, bench.NewStats(tc.times))
		assert.Equal(t, before, tc.times, "the caller's times stay in their order")
	}
}

// callsOneByOne returns calls that each take the given time, one after another.
func callsOneByOne(times ...time.Duration) (calls bench.Calls) {
	at := time.Duration(0)
	for _, d := range times {
		calls = append(calls, bench.Call{Arrival: at, Start: at, End: at + d})
		at += d
	}
	return calls
}

func TestNewResult(t *testing.T) {
	row := bench.Row{PredictBatchSize: 8}
	r := bench.NewResult(row, bench.Load{}, callsOneByOne(100*ms), callsOneByOne(millisecondsUpTo(99)...))
	assert.Equal(t, 99, r.Batches)
	assert.Equal(t, 1, r.Concurrency)
	assert.InDelta(t, 4.95, r.Seconds, 1e-9)
	assert.InDelta(t, 99*8/4.95, r.Throughput, 1e-9)
	assert.Equal(t, 50., r.Latency.P50)
	assert.Equal(t, 99., r.Latency.P99)
	assert.Nil(t, r.Queue)

	// What the script's lines of Python give for the same times, [x/1000 for x in range(1, 101)]: n is
	// 100, the slowest one is left out of the throughput, and the levels are at places 50, 90, 95, 99.
	assert.InDelta(t, 99*8/4.95, r.Reference.Throughput, 1e-9)
	assert.InDelta(t, 4.95, r.Reference.CountedSeconds, 1e-9)
	assert.InDelta(t, 5.05, r.Reference.TotalSeconds, 1e-9)
	assert.Equal(t, bench.Reference{
		TotalSeconds: r.Reference.TotalSeconds, Sentences: 800,
		CountedSeconds: r.Reference.CountedSeconds, CountedSentences: 792,
		Average: 50.5, Level50: 50, Level90: 90, Level95: 95, Level99: 99, Level100: 100, Throughput: r.Reference.Throughput,
	}, *r.Reference)

	// Of 7 times the places are 3, 6, 6, 6 and 7, where the percentiles are at 4, 7, 7, 7 and 7.
	r = bench.NewResult(row, bench.Load{}, nil, callsOneByOne(millisecondsUpTo(7)...))
	c, l := r.Reference, r.Latency
	assert.Equal(t, []float64{3, 6, 6, 6, 7}, []float64{c.Level50, c.Level90, c.Level95, c.Level99, c.Level100})
	assert.Equal(t, []float64{4, 7, 7, 7, 7}, []float64{l.P50, l.P90, l.P95, l.P99, l.P100})
	assert.Equal(t, 48, c.CountedSentences)
	assert.InDelta(t, 48/0.021, c.Throughput, 1e-9)

	assert.Nil(t, bench.NewResult(row, bench.Load{}, nil, callsOneByOne(ms)).Reference, "the script fails at one time")
}

func TestNewResultOfARate(t *testing.T) {
	calls := bench.Calls{{Arrival: 0, Start: 0, End: 5 * ms}, {Arrival: 10 * ms, Start: 10 * ms, End: 45 * ms},
		{Arrival: 20 * ms, Start: 45 * ms, End: 50 * ms}}
	r := bench.NewResult(bench.Row{PredictBatchSize: 1}, bench.Load{Rate: 100, Poisson: true, Concurrency: 2}, nil, calls)
	assert.InDelta(t, 60, r.Throughput, 1e-9)
	assert.Equal(t, 35., r.Latency.P100, "the second call's, which ran 35 ms")
	assert.Equal(t, 30., r.Latency.P50, "the third call's, which waited 25 ms and ran 5 ms")
	assert.Equal(t, 25., r.Queue.P100)
	assert.Equal(t, 5., r.Reference.Level50, "the script measures runs, not waiting")
	assert.True(t, r.Poisson)
	assert.Equal(t, 2, r.Concurrency)
}
