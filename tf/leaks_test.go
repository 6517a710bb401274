package tf_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/tf"
)

// raceDetector is set by race_test.go. With the detector resident memory grows by some 350 bytes for every
// run, without it by none: it says nothing about the package then.
var raceDetector bool

// TestLeaks holds resident memory flat over many runs, loads and failed loads. Some come first, in
// which allocators, thread pools and caches grow to their size. With TFBERT_LEAKS=full there are more.
func TestLeaks(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	loadLibrary(t)
	dir := writeModel(t)
	full := os.Getenv("TFBERT_LEAKS") == "full"
	const mib = 1 << 20
	const bound = 8 * mib
	for _, tc := range []struct {
		what               string
		first, short, full int
		do                 func(t *testing.T) func()
	}{
		{"runs", 10_000, 20_000, 100_000, func(t *testing.T) func() {
			s, err := tf.LoadSession(dir, []string{"serve"}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			x, err := s.Graph().Output("x")
			require.NoError(t, err)
			y, err := s.Graph().Output("y")
			require.NoError(t, err)
			in := make([]float32, 1024)
			return func() {
				v, err := tf.NewTensor(tf.Shape{1024}, in)
				require.NoError(t, err)
				out, metadata, err := s.Run(t.Context(), []tf.Feed{{Output: x, Tensor: v}}, []tf.Output{y}, nil)
				require.NoError(t, err)
				require.Nil(t, metadata)
				require.NoError(t, out[0].Close())
				require.NoError(t, v.Close())
			}
		}},
		{"loads", 20, 40, 200, func(t *testing.T) func() {
			return func() {
				s, err := tf.LoadSession(dir, []string{"serve"}, nil)
				require.NoError(t, err)
				two, err := s.Graph().Output("two")
				require.NoError(t, err)
				assert.Equal(t, []float32{2}, fetchOne[float32](t, s, two))
				require.NoError(t, s.Close())
			}
		}},
		{"failed loads", 100, 200, 1000, func(t *testing.T) func() {
			damaged := t.TempDir()
			model, err := os.ReadFile(filepath.Join(dir, "saved_model.pb"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(damaged, "saved_model.pb"), model[:len(model)/2], 0o644))
			return func() {
				_, err := tf.LoadSession(damaged, []string{"serve"}, nil)
				require.Error(t, err)
				_, err = tf.LoadSession(dir, []string{"train"}, nil)
				require.Equal(t, tf.NotFound, tf.ErrCode(err))
				_, err = tf.LoadSession(dir, []string{"serve"}, &tf.SessionOptions{Config: []byte("no proto")})
				require.Equal(t, tf.InvalidArgument, tf.ErrCode(err))
			}
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			n := tc.short
			if full {
				n = tc.full
			}
			do := tc.do(t)
			alive := tf.Alive()
			for range tc.first {
				do()
			}
			runtime.GC()
			before := residentBytes(t)
			for range n {
				do()
			}
			runtime.GC()
			grown := residentBytes(t) - before
			t.Logf("%d %s: resident memory %.1f MiB, then %+.1f MiB", n, tc.what, float64(before)/mib, float64(grown)/mib)
			if !raceDetector {
				assert.Less(t, grown, int64(bound))
			}
			assert.Equal(t, alive, tf.Alive())
		})
	}
}
