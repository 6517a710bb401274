package tf_test

import (
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/tf"
)

// checkIdentity sends a tensor through a session, so that TensorFlow itself has read and written it.
func checkIdentity[T tf.Element](t *testing.T, shape tf.Shape, data []T) {
	t.Helper()
	t.Run(tf.TypeOf[T]().String(), func(t *testing.T) {
		g := newGraph(t)
		x := addPlaceholder(t, g, "x", tf.TypeOf[T]())
		y := addOperation(t, g, tf.OpSpec{Type: "Identity", Inputs: []tf.Input{x}})
		s := newSession(t, g)
		in := newTensor(t, shape, data...)
		assert.Equal(t, tf.TypeOf[T](), in.DataType())
		out, _, err := s.Run(t.Context(), []tf.Feed{{Output: x, Tensor: in}}, []tf.Output{y}, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, out[0].Close()) }()
		require.NoError(t, in.Close()) // the output must outlive the fed tensor, whose buffer it may share
		assert.Equal(t, tf.TypeOf[T](), out[0].DataType())
		assert.Equal(t, shape, out[0].Shape())
		got, err := tf.Values[T](out[0])
		require.NoError(t, err)
		assert.Equal(t, data, got)
	})
}

func TestTensorTypes(t *testing.T) {
	checkIdentity(t, tf.Shape{3}, []bool{true, false, true})
	checkIdentity(t, tf.Shape{2, 2}, []int8{-128, -1, 0, 127})
	checkIdentity(t, tf.Shape{2}, []int16{math.MinInt16, math.MaxInt16})
	checkIdentity(t, tf.Shape{2, 1}, []int32{math.MinInt32, math.MaxInt32})
	checkIdentity(t, tf.Shape{1, 2}, []int64{math.MinInt64, math.MaxInt64})
	checkIdentity(t, tf.Shape{2}, []uint8{0, 255})
	checkIdentity(t, tf.Shape{1}, []uint16{math.MaxUint16})
	checkIdentity(t, tf.Shape{1}, []uint32{math.MaxUint32})
	checkIdentity(t, tf.Shape{1}, []uint64{math.MaxUint64})
	checkIdentity(t, tf.Shape{3}, []float32{1.5, float32(math.Inf(-1)), math.SmallestNonzeroFloat32})
	checkIdentity(t, tf.Shape{}, []float64{math.Pi})
	checkIdentity(t, tf.Shape{1}, []complex64{1 + 2i})
	checkIdentity(t, tf.Shape{1}, []complex128{1 - 2i})
	checkIdentity(t, tf.Shape{2}, []tf.Float16{0x3c00, 0xfbff})
	checkIdentity(t, tf.Shape{2}, []tf.BFloat16{0x3f80, 0xff7f})
	checkIdentity(t, tf.Shape{2, 2}, []string{"", "short", strings.Repeat("long", 1000), "with\x00nul"})
	checkIdentity(t, tf.Shape{0, 3}, []float32{})
	checkIdentity(t, tf.Shape{0}, []string{})
}

func TestTensorErrors(t *testing.T) {
	loadLibrary(t)
	for name, tc := range map[string]struct {
		make func() (*tf.Tensor, error)
		want string
	}{
		"too few elements": {func() (*tf.Tensor, error) { return tf.NewTensor(tf.Shape{3}, []float32{1}) },
			"shape [3] holds 3 elements, got 1"},
		"unknown dimension": {func() (*tf.Tensor, error) { return tf.NewTensor(tf.Shape{-1}, []float32{1}) },
			"shape [?] has no definite size"},
		"overflow": {func() (*tf.Tensor, error) {
			return tf.NewTensor(tf.Shape{1 << 40, 1 << 40}, []int8{})
		}, "has no definite size"},
		"bytes of strings": {func() (*tf.Tensor, error) {
			return tf.NewTensorFromBytes(tf.String, tf.Shape{1}, []byte("x"))
		}, "string has no fixed size"},
		"half an element": {func() (*tf.Tensor, error) {
			return tf.NewTensorFromBytes(tf.Float, tf.Shape{1}, []byte{1, 2})
		}, "not a whole number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tc.make()
			require.ErrorContains(t, err, tc.want)
		})
	}
	x := newTensor(t, tf.Shape{1}, int32(1))
	_, err := tf.Values[float32](x)
	require.ErrorContains(t, err, "the tensor holds int32, not float32")
	require.NoError(t, x.Close())
	require.NoError(t, x.Close())
	_, err = tf.Values[int32](x)
	require.ErrorIs(t, err, tf.ErrClosed)
}

func TestTensorBytes(t *testing.T) {
	loadLibrary(t)
	x, err := tf.NewTensorFromBytes(tf.Qint8, tf.Shape{2}, []byte{1, 255})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	assert.Equal(t, tf.Qint8, x.DataType())
	b, err := x.Bytes()
	require.NoError(t, err)
	assert.Equal(t, []byte{1, 255}, b)
	b, err = newTensor(t, tf.Shape{1}, int32(0x01020304)).Bytes()
	require.NoError(t, err)
	assert.Equal(t, []byte{4, 3, 2, 1}, b)
}

func TestTensorCloseWhileRead(t *testing.T) {
	loadLibrary(t)
	x := newTensor(t, tf.Shape{4}, 1.0, 2, 3, 4)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v, err := tf.Values[float64](x)
			if err == nil {
				assert.Equal(t, []float64{1, 2, 3, 4}, v)
			} else {
				assert.ErrorIs(t, err, tf.ErrClosed)
			}
			assert.NoError(t, x.Close())
		})
	}
	wg.Wait()
}

func TestShape(t *testing.T) {
	for _, tc := range []struct {
		shape tf.Shape
		n     int64
		ok    bool
		text  string
	}{
		{tf.Shape{}, 1, true, "[]"},
		{nil, 1, true, "[]"},
		{tf.Shape{1}, 1, true, "[1]"},
		{tf.Shape{2, 3}, 6, true, "[2,3]"},
		{tf.Shape{0, 3}, 0, true, "[0,3]"},
		{tf.Shape{-1, 3}, 0, false, "[?,3]"},
		{tf.Shape{1 << 62, 2}, 0, false, "[4611686018427387904,2]"},
	} {
		n, ok := tc.shape.NumElements()
		assert.Equal(t, tc.n, n, tc.text)
		assert.Equal(t, tc.ok, ok, tc.text)
		assert.Equal(t, tc.text, tc.shape.String())
	}
	assert.True(t, tf.Shape{-1, 3}.Compatible(tf.Shape{7, 3}))
	assert.False(t, tf.Shape{-1, 3}.Compatible(tf.Shape{7, 4}))
	assert.False(t, tf.Shape{-1, 3}.Compatible(tf.Shape{7}))
}

// A string tensor's strings are freed with it, also when it went through a session.
func TestStringTensorsDoNotLeak(t *testing.T) {
	realLibrary(t, "memory that would be measured: what is alive in it is counted")
	g := newGraph(t)
	x := addPlaceholder(t, g, "x", tf.String)
	y := addOperation(t, g, tf.OpSpec{Type: "Identity", Inputs: []tf.Input{x}})
	s := newSession(t, g)
	const size = 1 << 20
	value := []string{strings.Repeat("x", size)}
	round := func() {
		in, err := tf.NewTensor(tf.Shape{1}, value)
		require.NoError(t, err)
		out, _, err := s.Run(t.Context(), []tf.Feed{{Output: x, Tensor: in}}, []tf.Output{y}, nil)
		require.NoError(t, err)
		require.NoError(t, in.Close())
		require.NoError(t, out[0].Close())
	}
	round()
	before := residentBytes(t)
	const rounds = 300
	for range rounds {
		round()
	}
	assert.Less(t, residentBytes(t)-before, int64(rounds*size/2))
}

// residentBytes returns the process's resident memory (proc(5), statm).
func residentBytes(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("this system has no /proc/self/statm")
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	require.NoError(t, err)
	return pages * int64(os.Getpagesize())
}
