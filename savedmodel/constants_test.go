package savedmodel_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// scaleModel is a graph that multiplies by a constant which is written with it.
func scaleModel(t *testing.T, c savedmodel.Constant) savedmodel.Content {
	t.Helper()
	require.NoError(t, tf.Load(testenv.TensorFlow(t)))
	g, err := tf.NewGraph()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	b := tf.Builder{Graph: g}
	x := b.Add(tf.OpSpec{Type: "Placeholder", Name: "x",
		Attrs: map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{-1, 2}}})
	b.Add(tf.OpSpec{Type: "Mul", Name: "y", Inputs: []tf.Input{x, savedmodel.AddConstant(&b, c)}})
	require.NoError(t, b.Err)
	return savedmodel.Content{Graph: g, Constants: []savedmodel.Constant{c}, Signatures: []savedmodel.Signature{{
		Key:     savedmodel.DefaultSignature,
		Inputs:  []savedmodel.TensorInfo{{Key: "x", Name: "x"}},
		Outputs: []savedmodel.TensorInfo{{Key: "y", Name: "y"}},
	}}}
}

func floats(values ...float32) func() ([]byte, error) {
	return func() ([]byte, error) {
		var b []byte
		for _, v := range values {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		return b, nil
	}
}

func TestConstants(t *testing.T) {
	dir := t.TempDir()
	c := savedmodel.Constant{Name: "scope/scale", DType: tf.Float, Shape: tf.Shape{2}, Data: floats(2, -3)}
	require.NoError(t, savedmodel.Write(dir, scaleModel(t, c)))

	info, err := savedmodel.Inspect(dir)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"Const": 1, "Mul": 1, "Placeholder": 1}, info.MetaGraphs[0].Ops)

	m, err := savedmodel.Load(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	f, err := m.Func(savedmodel.DefaultSignature, []string{"x"}, []string{"y"})
	require.NoError(t, err)
	x, err := tf.NewTensor(tf.Shape{1, 2}, []float32{5, 7})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	y, err := f.Run(t.Context(), x)
	require.NoError(t, err)
	defer func() { require.NoError(t, y[0].Close()) }()
	values, err := tf.Values[float32](y[0])
	require.NoError(t, err)
	assert.Equal(t, []float32{10, -21}, values)
}

func TestConstantErrors(t *testing.T) {
	good := savedmodel.Constant{Name: "scale", DType: tf.Float, Shape: tf.Shape{2}, Data: floats(1, 2)}
	for name, tc := range map[string]struct {
		change func(c *savedmodel.Constant)
		want   string
	}{
		"too little data": {
			func(c *savedmodel.Constant) { c.Data = floats(1) },
			"constant scale: got 4 bytes for float32 [2]",
		},
		"no data": {
			func(c *savedmodel.Constant) { c.Data = func() ([]byte, error) { return nil, errors.New("gone") } },
			"constant scale: gone",
		},
		"no placeholder": {
			func(c *savedmodel.Constant) { c.Name = "other" },
			"the graph has no placeholder for the constant other",
		},
		"unknown size": {func(c *savedmodel.Constant) { c.Shape = tf.Shape{-1} }, "has no size"},
		"more than 2 GiB": {
			func(c *savedmodel.Constant) { c.Shape = tf.Shape{1 << 30} },
			"TensorFlow reads no more than 2147483647",
		},
	} {
		t.Run(name, func(t *testing.T) {
			content := scaleModel(t, good)
			tc.change(&content.Constants[0])
			require.ErrorContains(t, savedmodel.Write(t.TempDir(), content), tc.want)
		})
	}
}

func TestPrecisionNames(t *testing.T) {
	for _, p := range []savedmodel.Precision{savedmodel.FP32, savedmodel.FP16, savedmodel.BF16, savedmodel.INT8} {
		text, err := p.MarshalText()
		require.NoError(t, err)
		var back savedmodel.Precision
		require.NoError(t, back.UnmarshalText(text))
		assert.Equal(t, p, back)
	}
	_, err := savedmodel.ParsePrecision("int4")
	require.ErrorContains(t, err, `unknown precision "int4": want one of fp32, fp16, bf16, int8`)
}
