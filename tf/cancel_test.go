//go:build cgo && unix

package tf_test

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/faketf"
	"github.com/tfbert/go/tf"
)

// holdRun starts a run of y = -x that TensorFlow keeps until l.Release, and returns what will become of it.
func holdRun(t *testing.T, l faketf.Library, ctx context.Context, s *tf.Session, feeds []tf.Feed,
	y tf.Output) <-chan error {
	t.Helper()
	l.Hold("TF_SessionRun")
	before := l.Held()
	result := make(chan error, 1)
	go func() {
		out, _, err := s.Run(ctx, feeds, []tf.Output{y}, nil)
		for _, o := range out {
			_ = o.Close()
		}
		result <- err
	}()
	eventually(t, "the run is in TensorFlow", func() bool { return l.Held() > before })
	return result
}

// A caller whose context ends has its error while TensorFlow still runs. Everything it then closes
// lives until the run is over, which reads the tensors only after the release here.
func TestCancelledCallerLeavesAtOnce(t *testing.T) {
	l := loadFake(t)
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancelled": context.WithCancel,
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", "", nil)
			ctx, cancel := end(t.Context())
			defer cancel()
			result := holdRun(t, l, ctx, w.session, []tf.Feed{{Output: w.x, Tensor: w.in}}, w.y)
			if name == "cancelled" {
				cancel()
			}
			err := <-result
			require.Error(t, err)
			require.Equal(t, ctx.Err(), err)
			assert.Equal(t, 1, l.Held(), "the run goes on")

			require.NoError(t, w.in.Close())
			_, err = tf.Values[float32](w.in)
			require.Equal(t, tf.ErrClosed, err)
			require.NoError(t, w.graph.Close())
			assert.EqualValues(t, 1, l.Live().Tensors, "the run owns the tensor")

			closed := make(chan error, 1)
			go func() { closed <- w.session.Close() }()
			eventually(t, "the session takes no more runs", func() bool {
				_, err := w.session.Devices()
				return err == tf.ErrClosed
			})
			assert.Empty(t, closed, "Close waits for the run")
			l.Release()
			require.NoError(t, <-closed)
			assertNoneAlive(t, l)
		})
	}
}

// A run that its caller has left keeps all it needs, also where nothing else does: neither the session
// nor the tensors are collected before it is over, and all are after it.
func TestCollectionDuringAbandonedRun(t *testing.T) {
	l := loadFake(t)
	func() {
		w := newWorld(t, "", "", nil)
		ctx, cancel := context.WithCancel(t.Context())
		result := holdRun(t, l, ctx, w.session, []tf.Feed{{Output: w.x, Tensor: w.in}}, w.y)
		cancel()
		require.Equal(t, context.Canceled, <-result)
	}()
	for range 20 {
		runtime.GC()
	}
	assert.EqualValues(t, 1, l.Live().Sessions)
	assert.EqualValues(t, 1, l.Live().Tensors)
	l.Release()
	assertNoneAlive(t, l)
	assert.Zero(t, tf.Alive())
}

// Close of a session waits for a run with a caller, which gets its result; callers that wait for
// their turn do not.
func TestCloseDuringRun(t *testing.T) {
	l := loadFake(t)
	w := newWorld(t, "", "", nil)
	s, err := tf.NewSession(w.graph, &tf.SessionOptions{MaxRuns: 1})
	require.NoError(t, err)
	feeds := []tf.Feed{{Output: w.x, Tensor: w.in}}
	running := holdRun(t, l, t.Context(), s, feeds, w.y)
	waiting := make(chan error, 1)
	go func() {
		_, _, err := s.Run(t.Context(), feeds, []tf.Output{w.y}, nil)
		waiting <- err
	}()
	time.Sleep(5 * time.Millisecond)
	var wg sync.WaitGroup
	for range 2 { // a second Close waits as well
		wg.Go(func() { assert.NoError(t, s.Close()) })
	}
	require.Equal(t, tf.ErrClosed, <-waiting)
	assert.Empty(t, running)
	l.Release()
	require.NoError(t, <-running)
	wg.Wait()
	_, err = s.Devices()
	require.Equal(t, tf.ErrClosed, err)
	w.close(t)
	assertNoneAlive(t, l)
}

// A caller whose context ends while it waits for its turn leaves at once, without having called
// TensorFlow.
func TestCancelledWhileWaiting(t *testing.T) {
	l := loadFake(t)
	w := newWorld(t, "", "", nil)
	s, err := tf.NewSession(w.graph, &tf.SessionOptions{MaxRuns: 1})
	require.NoError(t, err)
	feeds := []tf.Feed{{Output: w.x, Tensor: w.in}}
	running := holdRun(t, l, t.Context(), s, feeds, w.y)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, _, err = s.Run(ctx, feeds, []tf.Output{w.y}, nil)
	require.Equal(t, context.DeadlineExceeded, err)
	require.Equal(t, 1, l.Held())
	l.Release()
	require.NoError(t, <-running)
	require.NoError(t, s.Close())
	w.close(t)
}

// Thousands of callers are as many goroutines, but no more runs, and threads, than MaxRuns allows.
func TestManyCallers(t *testing.T) {
	l := loadFake(t)
	const callers, most = 5000, 16
	w := newWorld(t, "", "", nil)
	s, err := tf.NewSession(w.graph, &tf.SessionOptions{MaxRuns: most})
	require.NoError(t, err)
	feeds := []tf.Feed{{Output: w.x, Tensor: w.in}}
	l.MostRuns()
	l.Hold("TF_SessionRun")
	threads, goroutines := threadCount(t), runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done, cancelled atomic.Int64
	for i := range callers {
		ctx := ctx
		if i%2 == 0 {
			ctx = t.Context()
		}
		wg.Go(func() {
			out, _, err := s.Run(ctx, feeds, []tf.Output{w.y}, nil)
			if err == context.Canceled {
				cancelled.Add(1)
				return
			}
			if assert.NoError(t, err) {
				assert.NoError(t, out[0].Close())
				done.Add(1)
			}
		})
	}
	eventually(t, "TensorFlow is full", func() bool { return l.Held() == most })
	assert.LessOrEqual(t, threadCount(t)-threads, most+runtime.GOMAXPROCS(0)+8)
	assert.LessOrEqual(t, runtime.NumGoroutine()-goroutines, callers+most)
	cancel()
	eventually(t, "the cancelled callers are gone", func() bool { return cancelled.Load() == callers/2 })
	assert.LessOrEqual(t, runtime.NumGoroutine()-goroutines, callers/2+most)
	l.Release()
	wg.Wait()
	assert.EqualValues(t, callers/2, done.Load())
	assert.LessOrEqual(t, l.MostRuns(), most)
	require.NoError(t, s.Close())
	w.close(t)
	assertNoneAlive(t, l)
}

// threadCount returns the process's threads (proc(5), status).
func threadCount(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("this system has no /proc/self/status")
	}
	n, err := strconv.Atoi(string(regexp.MustCompile(`Threads:\s+(\d+)`).FindSubmatch(b)[1]))
	require.NoError(t, err)
	return n
}

// Runs, cancellations, closes, drops and collections, all at once.
func TestEverythingAtOnce(t *testing.T) {
	loadLibrary(t)
	stop := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			g, err := tf.NewGraph()
			require.NoError(t, err)
			x := addPlaceholder(t, g, "x", tf.Float)
			y := addOperation(t, g, tf.OpSpec{Type: "Neg", Inputs: []tf.Input{x}})
			s, err := tf.NewSession(g, &tf.SessionOptions{MaxRuns: 2})
			require.NoError(t, err)
			require.NoError(t, g.Close())
			var runs sync.WaitGroup
			for i := range 50 {
				runs.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
					defer cancel()
					in, err := tf.NewTensor(tf.Shape{2}, []float32{float32(i), 2})
					if !assert.NoError(t, err) {
						return
					}
					out, _, err := s.Run(ctx, []tf.Feed{{Output: x, Tensor: in}}, []tf.Output{y}, nil)
					assert.NoError(t, in.Close())
					if err != nil {
						code := tf.ErrCode(err)
						assert.True(t, code == tf.DeadlineExceeded || err == tf.ErrClosed, "%v", err)
						return
					}
					v, err := tf.Values[float32](out[0])
					assert.NoError(t, err)
					assert.Equal(t, []float32{-float32(i), -2}, v)
					if i%2 == 0 { // the others are dropped
						assert.NoError(t, out[0].Close())
					}
				})
				if i == 40 {
					runs.Go(func() { assert.NoError(t, s.Close()) })
				}
			}
			runs.Wait()
		})
	}
	wg.Wait()
	close(stop)
	collector.Wait()
	eventually(t, "nothing is alive", func() bool { return tf.Alive() == tf.Counts{} })
}
