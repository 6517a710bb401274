package bench_test

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	"github.com/tfbert/go/internal/bench"
)

var update = flag.Bool("update", false, "write the recorded outputs anew")

func assertGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o666))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

// closedResults are of known times.
func closedResults() []bench.Result {
	e := &bench.Environment{
		CPU: "A Processor @ 2 GHz", CPUs: 4, BFloat16: []string{"avx512_bf16", "amx_bf16"},
		Memory: 64 << 30, OS: "linux", Arch: "amd64",
		TensorFlow: "2.21.0", Library: "/lib/libtensorflow_cc.so.2", Go: "go1.26.0", Version: "v1.2.3",
	}
	load := bench.Load{}
	a := bench.NewResult(bench.Row{"base", "reference", "fp32", 128, 1}, load, callsOneByOne(200*ms),
		callsOneByOne(millisecondsUpTo(200)...))
	a.PeakMemory, a.PeakOf, a.Environment = 3<<30, "row", e
	b := bench.NewResult(bench.Row{"my model/v1", "fused", "bf16", 384, 16}, load, callsOneByOne(3*time.Second),
		callsOneByOne(2*time.Second, 1*time.Second))
	b.PeakMemory, b.PeakOf, b.Environment = 1<<30, "row", e
	b.Proof, b.Note = "all of 74 matmuls in bfloat16", "a note"
	return []bench.Result{a, b}
}

func openResults() []bench.Result {
	calls := bench.Calls{{Arrival: 0, Start: 0, End: 5 * ms}, {Arrival: 10 * ms, Start: 10 * ms, End: 45 * ms},
		{Arrival: 20 * ms, Start: 45 * ms, End: 50 * ms}}
	return []bench.Result{bench.NewResult(bench.Row{"base", "fused", "fp32", 128, 8},
		bench.Load{Rate: 100, Poisson: true, Concurrency: 2}, nil, calls)}
}

// written returns what a Writer writes of results. Each result must be there as soon as it is written: the longest
// run may be cut short.
func written[R any](t *testing.T, newWriter func(io.Writer) bench.Writer[R], results []R) string {
	t.Helper()
	var b strings.Builder
	w := newWriter(&b)
	for i := range results {
		before := b.Len()
		require.NoError(t, w.Write(&results[i]))
		assert.Greater(t, b.Len(), before+40)
	}
	require.NoError(t, w.Close())
	return b.String()
}

func TestWriteTable(t *testing.T) {
	assertGolden(t, "table.txt", written(t, bench.NewTable, closedResults()))
	assertGolden(t, "table_rate.txt", written(t, bench.NewTable, openResults()))
}

func TestWriteNothing(t *testing.T) {
	for _, newWriter := range []func(io.Writer) bench.Writer[bench.Result]{
		bench.NewTable, bench.NewGo, bench.NewNVIDIA, bench.NewJSON[bench.Result],
	} {
		assert.Empty(t, written(t, newWriter, nil))
	}
	assert.Empty(t, written(t, bench.NewServerTable, nil))
}

func TestWriteNVIDIA(t *testing.T) {
	assertGolden(t, "nvidia.txt", written(t, bench.NewNVIDIA, closedResults()))

	r := bench.NewResult(bench.Row{PredictBatchSize: 1}, bench.Load{}, nil, callsOneByOne(ms))
	assert.EqualError(t, bench.NewNVIDIA(io.Discard).Write(&r), "run_squad.py's formula takes two batches at least")
}

// The format of Go's benchmarks is read by the library of benchstat.
func TestWriteGo(t *testing.T) {
	text := written(t, bench.NewGo, append(closedResults(), openResults()...))
	assertGolden(t, "go.txt", text)

	files := benchfmt.NewReader(strings.NewReader(text), "go.txt")
	var read []*benchfmt.Result
	for files.Scan() {
		switch r := files.Result().(type) {
		case *benchfmt.Result:
			read = append(read, r.Clone())
		case *benchfmt.UnitMetadata:
			assert.Equal(t, "sequences/s better=higher", r.OrigUnit+" "+r.Key+"="+r.Value)
		default:
			t.Errorf("%v", r)
		}
	}
	require.NoError(t, files.Err())
	require.Len(t, read, 3)
	r := read[0]
	assert.Equal(t, "Predict/model=base/graph=reference/precision=fp32/length=128/batch=1-4", string(r.Name))
	assert.Equal(t, 200, r.Iters)
	assert.Equal(t, "A Processor @ 2 GHz", r.GetConfig("cpu"))
	for unit, want := range map[string]float64{
		"sec/op": 0.1005, "p50-sec/op": 0.1, "p99-sec/op": 0.198, "p100-sec/op": 0.2,
		"sequences/s": 9.95025, "peak-RSS-bytes": 3 << 30,
	} {
		got, ok := r.Value(unit)
		assert.True(t, ok, unit)
		assert.InEpsilon(t, want, got, 1e-6, unit)
	}
	assert.Equal(t, "Predict/model=v1/graph=fused/precision=bf16/length=384/batch=16-4", string(read[1].Name))
	assert.Equal(t, "Predict/model=base/graph=fused/precision=fp32/length=128/batch=8/concurrency=2/rate=100-4",
		string(read[2].Name))
}

func TestResultAsJSON(t *testing.T) {
	text := written(t, bench.NewJSON[bench.Result], append(closedResults()[1:], openResults()...))
	assertGolden(t, "results.json", text)
	var back []bench.Result
	require.NoError(t, json.Unmarshal([]byte(text), &back))
	assert.Equal(t, append(closedResults()[1:], openResults()...), back)
}
