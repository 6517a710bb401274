package tf_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tf"
)

// inCaller is a ConfigProto with inter_op_parallelism_threads -1: operations run on the thread that
// calls. With threads of its own a run takes 9 to 70 us, by how long ago the one before was and whether
// they have gone to sleep since, and nothing can be seen of what is measured here.
var inCaller = []byte{0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}

// A sums session adds pairs of vectors of ones: a run of it is little more than the call.
type sums struct {
	ctx     context.Context
	session *tf.Session
	feeds   []tf.Feed
	fetches []tf.Output
}

func newSums(t testing.TB, pairs, elements int, config []byte) *sums {
	t.Helper()
	g := newGraph(t)
	s := &sums{ctx: context.Background()}
	ones := slices.Repeat([]int32{1}, elements)
	for i := range pairs {
		a := addPlaceholder(t, g, fmt.Sprintf("a%d", i), tf.Int32)
		b := addPlaceholder(t, g, fmt.Sprintf("b%d", i), tf.Int32)
		for _, o := range []tf.Output{a, b} {
			s.feeds = append(s.feeds, tf.Feed{Output: o, Tensor: newTensor(t, tf.Shape{int64(elements)}, ones...)})
		}
		s.fetches = append(s.fetches,
			addOperation(t, g, tf.OpSpec{Type: "AddV2", Name: fmt.Sprintf("sum%d", i), Inputs: []tf.Input{a, b}}))
	}
	var err error
	s.session, err = tf.NewSession(g, &tf.SessionOptions{Config: config})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.session.Close()) })
	return s
}

func (s *sums) run(t testing.TB) {
	out, _, err := s.session.Run(s.ctx, s.feeds, s.fetches, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range out {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// median returns the median time of n runs.
func (s *sums) median(t testing.TB, n int) time.Duration {
	times := make([]time.Duration, n)
	for i := range times {
		start := time.Now()
		s.run(t)
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[n/2]
}

// A run allocates for its results; neither the number nor the size of the tensors fed adds to that.
func TestRunAllocations(t *testing.T) {
	count := func(pairs, elements int) float64 {
		s := newSums(t, pairs, elements, inCaller)
		s.fetches = s.fetches[:1]
		s.run(t) // TensorFlow's executor is made
		return testing.AllocsPerRun(100, func() { s.run(t) })
	}
	few := count(4, 1)
	assert.Equal(t, few, count(32, 1), "feeds")
	assert.Equal(t, few, count(4, 1<<16), "elements")
	assert.LessOrEqual(t, few, 13.)
}

func BenchmarkSessionRun(b *testing.B) {
	for _, pairs := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("feeds=%d", 2*pairs), func(b *testing.B) {
			s := newSums(b, pairs, 8, inCaller)
			b.ReportAllocs()
			for b.Loop() {
				s.run(b)
			}
		})
	}
	// A context that can end costs a goroutine.
	b.Run("feeds=4/cancellable", func(b *testing.B) {
		s := newSums(b, 2, 8, inCaller)
		s.ctx = b.Context()
		b.ReportAllocs()
		for b.Loop() {
			s.run(b)
		}
	})
}

// BenchmarkRunBesideC alternates runs from Go and from C and returns the medians of both.
func BenchmarkRunBesideC(b *testing.B) {
	c, s := startC(b, inCaller), newSums(b, 2, 8, inCaller)
	var inGo, inC []time.Duration
	for b.Loop() {
		inC = append(inC, c.median(b, 1000))
		inGo = append(inGo, s.median(b, 1000))
	}
	b.ReportMetric(float64(median(inGo)), "go-ns/run")
	b.ReportMetric(float64(median(inC)), "c-ns/run")
	b.ReportMetric(float64(median(inGo)-median(inC)), "more-ns/run")
}

// TestRunBesideC holds the time that Go adds to a run. The bound leaves room for a machine that does
// other things; BenchmarkRunBesideC measures it.
func TestRunBesideC(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	if raceDetector {
		t.Skip("a measurement, and the race detector adds most of the time that Go takes")
	}
	c, s := startC(t, inCaller), newSums(t, 2, 8, inCaller)
	best := time.Hour // of a few attempts: what disturbs only adds
	for range 10 {
		inC, inGo := c.median(t, 500), s.median(t, 500)
		best = min(best, inGo-inC)
	}
	t.Logf("a run takes %v longer from Go than from C", best)
	assert.Less(t, best, 30*time.Microsecond)
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// cProgram is testdata/run.c, running.
type cProgram struct {
	in  *bufio.Writer
	out *bufio.Reader
}

func startC(t testing.TB, config []byte) *cProgram {
	t.Helper()
	loadLibrary(t)
	cc, err := exec.LookPath("cc")
	if err != nil {
		testenv.Missing(t, "cc", "no C compiler here")
	}
	program := filepath.Join(t.TempDir(), "run")
	out, err := exec.Command(cc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, filepath.Join("testdata", "run.c"),
		"-ldl").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(program, tf.Path(), hex.EncodeToString(config))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	})
	return &cProgram{bufio.NewWriter(in), bufio.NewReader(stdout)}
}

func (c *cProgram) median(t testing.TB, n int) time.Duration {
	_, err := fmt.Fprintln(c.in, n)
	require.NoError(t, err)
	require.NoError(t, c.in.Flush())
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	require.NoError(t, err)
	return time.Duration(ns)
}
