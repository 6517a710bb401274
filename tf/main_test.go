package tf_test

import (
	"log"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/faketf"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tf"
)

// TestMain fails the run if a test left a tensor, graph or session open.
func TestMain(m *testing.M) {
	done, err := faketf.Use()
	if err != nil {
		log.Fatal(err)
	}
	testenv.Main(m, tf.Alive, done)
}

// loadLibrary loads the machine's TensorFlow, or skips the test.
func loadLibrary(t testing.TB) {
	t.Helper()
	require.NoError(t, tf.Load(testenv.TensorFlow(t)))
}

// realLibrary skips a test of what the fake library does not have.
func realLibrary(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(faketf.Environment) != "" {
		t.Skip("the fake library has no " + what)
	}
}

// runTestAlone runs one test in a process of its own, where nothing is loaded yet, and returns what it printed.
func runTestAlone(t testing.TB, test string, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+test)
	return string(out)
}

func newTensor[T tf.Element](t testing.TB, shape tf.Shape, data ...T) *tf.Tensor {
	t.Helper()
	v, err := tf.NewTensor(shape, data)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

func newGraph(t testing.TB) *tf.Graph {
	t.Helper()
	loadLibrary(t)
	g, err := tf.NewGraph()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

func addOperation(t testing.TB, g *tf.Graph, spec tf.OpSpec) tf.Output {
	t.Helper()
	op, err := g.AddOperation(spec)
	require.NoError(t, err)
	return op.Output(0)
}

func addPlaceholder(t testing.TB, g *tf.Graph, name string, dtype tf.DataType) tf.Output {
	t.Helper()
	return addOperation(t, g, tf.OpSpec{Type: "Placeholder", Name: name, Attrs: map[string]tf.Attr{"dtype": dtype}})
}

func newSession(t testing.TB, g *tf.Graph) *tf.Session {
	t.Helper()
	s, err := tf.NewSession(g, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// fetchOne fetches one output of type T.
func fetchOne[T tf.Element](t testing.TB, s *tf.Session, fetch tf.Output, feeds ...tf.Feed) []T {
	t.Helper()
	out, metadata, err := s.Run(t.Context(), feeds, []tf.Output{fetch}, nil)
	require.NoError(t, err)
	require.Nil(t, metadata)
	require.Len(t, out, 1)
	values, err := tf.Values[T](out[0])
	require.NoError(t, err)
	require.NoError(t, out[0].Close())
	return values
}

func TestDroppedValuesAreReleased(t *testing.T) {
	loadLibrary(t)
	before := tf.Alive()
	for range 100 {
		_, err := tf.NewTensor(tf.Shape{1000}, make([]float64, 1000))
		require.NoError(t, err)
	}
	for range 50 { // cleanups run some time after the collection that finds the tensors dead
		runtime.GC()
		if tf.Alive() == before {
			return
		}
	}
	require.Equal(t, before, tf.Alive())
}
