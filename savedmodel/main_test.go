package savedmodel_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// TestMain fails the run if a test left a tensor, graph or session open.
func TestMain(m *testing.M) { testenv.Main(m, tf.Alive) }

// foreignModel returns the folder of a SavedModel that another project made.
func foreignModel(t testing.TB, elem ...string) string {
	t.Helper()
	return testenv.Shared(t, append([]string{"data", "savedmodels"}, elem...)...)
}

func halfPlusTwo(t testing.TB) string { return foreignModel(t, "half_plus_two", "00000123") }

func loadModel(t testing.TB, dir string, opts *savedmodel.Options) *savedmodel.Model {
	t.Helper()
	testenv.TensorFlow(t)
	m, err := savedmodel.Load(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close()) })
	return m
}

func function(t testing.TB, m *savedmodel.Model, signature string, inputs, outputs []string) *savedmodel.Func {
	t.Helper()
	f, err := m.Func(signature, inputs, outputs)
	require.NoError(t, err)
	return f
}

func newTensor[T tf.Element](t testing.TB, shape tf.Shape, data ...T) *tf.Tensor {
	t.Helper()
	v, err := tf.NewTensor(shape, data)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

// valuesOf returns the elements of the only tensor of a run, and closes it.
func valuesOf[T tf.Element](t testing.TB, out []*tf.Tensor, err error) []T {
	t.Helper()
	require.NoError(t, err)
	require.Len(t, out, 1)
	v, err := tf.Values[T](out[0])
	require.NoError(t, err)
	require.NoError(t, out[0].Close())
	return v
}

// writeLinear writes a model of our own, with two variables: y = a*x + b.
func writeLinear(t testing.TB, dir string, a, b float32) {
	t.Helper()
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()

	builder := tf.Builder{Graph: g}
	x := builder.Add(tf.OpSpec{Type: "Placeholder", Name: "x",
		Attrs: map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{-1, 2}}})
	variable := func(name string, shape tf.Shape) (*savedmodel.Variable, tf.Output) {
		v, err := savedmodel.AddVariable(g, name, tf.Float, shape)
		require.NoError(t, err)
		return v, builder.Add(tf.OpSpec{Type: "ReadVariableOp", Name: "read/" + name,
			Inputs: []tf.Input{v.Handle}, Attrs: map[string]tf.Attr{"dtype": tf.Float}})
	}
	slope, slopeValue := variable("line/slope", tf.Shape{2})
	offset, offsetValue := variable("line/offset", nil)
	product := builder.Add(tf.OpSpec{Type: "Mul", Name: "product", Inputs: []tf.Input{x, slopeValue}})
	y := builder.Add(tf.OpSpec{Type: "AddV2", Name: "y", Inputs: []tf.Input{product, offsetValue}})
	require.NoError(t, builder.Err)
	require.NoError(t, savedmodel.Write(dir, savedmodel.Content{
		Graph:     g,
		Variables: []*savedmodel.Variable{slope, offset},
		Signatures: []savedmodel.Signature{{
			Key:     savedmodel.DefaultSignature,
			Inputs:  []savedmodel.TensorInfo{{Key: "x", Name: "x"}},
			Outputs: []savedmodel.TensorInfo{{Key: "y", Name: y.String()}},
		}},
	}))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(savedmodel.VariablesPrefix)), 0o777))
	w, err := checkpoint.Create(filepath.Join(dir, savedmodel.VariablesPrefix))
	require.NoError(t, err)
	defer w.Abort()
	require.NoError(t, w.AddFloat32s("line/slope", []int64{2}, []float32{a, a}))
	require.NoError(t, w.AddFloat32s("line/offset", nil, []float32{b}))
	require.NoError(t, w.Close())
}
