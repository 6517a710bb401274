package bench

import (
	"math"
	"slices"
	"time"
)

// Stats describe times, in milliseconds.
type Stats struct {
	Average   float64 `json:"average"`
	Deviation float64 `json:"standard_deviation"` // of a sample: 0 for fewer than two
	P50       float64 `json:"p50"`
	P90       float64 `json:"p90"`
	P95       float64 `json:"p95"`
	P99       float64 `json:"p99"`
	P100      float64 `json:"p100"`
}

// NewStats describes times, at least one.
func NewStats(times []time.Duration) Stats {
	sorted := slices.Sorted(slices.Values(times))
	s := Stats{
		Average: average(sorted),
		P50:     milliseconds(Percentile(sorted, 50)),
		P90:     milliseconds(Percentile(sorted, 90)),
		P95:     milliseconds(Percentile(sorted, 95)),
		P99:     milliseconds(Percentile(sorted, 99)),
		P100:    milliseconds(Percentile(sorted, 100)),
	}
	if n := len(sorted); n > 1 {
		squares := 0.0
		for _, t := range sorted {
			d := milliseconds(t) - s.Average
			squares += d * d
		}
		s.Deviation = math.Sqrt(squares / float64(n-1))
	}
	return s
}

// Percentile returns the least of the times, which are in ascending order, that p per cent of them do
// not exceed.
func Percentile(ascending []time.Duration, p int) time.Duration {
	n := len(ascending)
	return ascending[max(1, (p*n+99)/100)-1]
}

func average(times []time.Duration) float64 {
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return milliseconds(sum) / float64(len(times))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Reference holds the figures that run_squad.py of NVIDIA's last release prints, by its formula. It
// takes the warm-up in, leaves the slowest hundredth out of the throughput but not of the average, and
// has as the level P the time at the place int(n*P) of the n times in ascending order, counted from 1.
type Reference struct {
	TotalSeconds     float64 `json:"total_seconds"`
	Sentences        int     `json:"sentences"`
	CountedSeconds   float64 `json:"counted_seconds"` // "W/O Overhead"
	CountedSentences int     `json:"counted_sentences"`
	Average          float64 `json:"latency_average_ms"`
	Level50          float64 `json:"latency_confidence_level_50_ms"`
	Level90          float64 `json:"latency_confidence_level_90_ms"`
	Level95          float64 `json:"latency_confidence_level_95_ms"`
	Level99          float64 `json:"latency_confidence_level_99_ms"`
	Level100         float64 `json:"latency_confidence_level_100_ms"`
	Throughput       float64 `json:"throughput_average"`
}

// newReference applies the formula to the times of all calls, those of the warm-up too, each of a
// batch of sentences. It returns nil for fewer than two, for which the script fails.
func newReference(times []time.Duration, total time.Duration, batch int) *Reference {
	n := len(times)
	if n < 2 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(times))
	counted := int(float64(n) * 0.99)
	var sum time.Duration
	for _, t := range sorted[:counted] {
		sum += t
	}
	level := func(p float64) float64 { return milliseconds(sorted[int(float64(n)*p)-1]) }
	return &Reference{
		TotalSeconds: total.Seconds(), Sentences: n * batch,
		CountedSeconds: sum.Seconds(), CountedSentences: counted * batch,
		Average: average(sorted),
		Level50: level(0.50), Level90: level(0.90), Level95: level(0.95), Level99: level(0.99), Level100: level(1),
		Throughput: float64(counted*batch) / sum.Seconds(),
	}
}
