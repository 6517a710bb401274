package savedmodel_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

func TestForeignModels(t *testing.T) {
	for _, c := range []struct {
		dir, signature  string
		inputs, outputs []string
		shape           tf.Shape
		want            func(x float32) float32
	}{
		{"half_plus_two/00000123", "serving_default", []string{"x"}, []string{"y"}, tf.Shape{4, 1},
			func(x float32) float32 { return x/2 + 2 }},
		{"half_plus_two/00000123", "regress_x2_to_y3", []string{"inputs"}, []string{"outputs"}, tf.Shape{4, 1},
			func(x float32) float32 { return x/2 + 3 }},
		{"graft_half_plus_two/00000123", "serving_default", []string{"x"}, []string{"y"}, tf.Shape{4, 1},
			func(x float32) float32 { return x/2 + 2 }},
		{"java_saved_model", "serving_default", []string{"x"}, []string{"y"}, tf.Shape{4, 1},
			func(x float32) float32 { return x/2 + 2 }},
		{"java_saved_model", "classify_x2_to_y3", []string{"inputs"}, []string{"scores"}, tf.Shape{4, 1},
			func(x float32) float32 { return x/2 + 3 }},
		{"matrix_half_plus_two/1", "serving_default", []string{"x"}, []string{"y"}, tf.Shape{2, 3, 3},
			func(x float32) float32 { return x/2 + 2 }},
	} {
		for _, opts := range []*savedmodel.Options{{}, second} {
			t.Run(c.dir+" "+c.signature+opts.Device, func(t *testing.T) {
				m := loadModel(t, foreignModel(t, c.dir), opts)
				f := function(t, m, c.signature, c.inputs, c.outputs)
				assert.Equal(t, 1, f.NumInputs())
				n, _ := c.shape.NumElements()
				x, want := make([]float32, n), make([]float32, n)
				for i := range x {
					x[i] = float32(i)*1.5 - 2
					want[i] = c.want(x[i])
				}
				out, err := f.Run(t.Context(), newTensor(t, c.shape, x...))
				require.NoError(t, err)
				assert.Equal(t, c.shape, out[0].Shape())
				assert.Equal(t, want, valuesOf[float32](t, out, err))
			})
		}
	}
}

// A model of tf.function signatures, as TensorFlow 2 writes them.
func TestKerasModel(t *testing.T) {
	for _, opts := range []*savedmodel.Options{{}, second} {
		t.Run(opts.Device, func(t *testing.T) { testKerasModel(t, opts) })
	}
}

func testKerasModel(t *testing.T, opts *savedmodel.Options) {
	m := loadModel(t, foreignModel(t, "java_keras_model"), opts)
	add := function(t, m, "add", []string{"a", "b"}, []string{"output_0"})
	a, b := newTensor[float32](t, nil, 10), newTensor[float32](t, tf.Shape{2}, 1, 2)
	out, err := add.Run(t.Context(), a, b)
	assert.Equal(t, []float32{11, 12}, valuesOf[float32](t, out, err))

	// get_variable returns what the checkpoint holds, independent of its input.
	get := function(t, m, "get_variable", []string{"dummy"}, []string{"output_0"})
	out, err = get.Run(t.Context(), newTensor[float32](t, nil, 5))
	assert.Equal(t, []float32{2}, valuesOf[float32](t, out, err))
}

func TestSeveralSignatureOutputs(t *testing.T) {
	m := loadModel(t, halfPlusTwo(t), nil)
	f := function(t, m, "serving_default", []string{"x"}, []string{"y", "y"})
	out, err := f.Run(t.Context(), newTensor[float32](t, tf.Shape{1, 1}, 4))
	require.NoError(t, err)
	require.Len(t, out, 2)
	for _, o := range out {
		assert.Equal(t, []float32{4}, valuesOf[float32](t, []*tf.Tensor{o}, nil))
	}
	assert.Equal(t, "1.14.0", m.MetaGraph().TensorFlowVersion)
	devices, err := m.Session().Devices()
	require.NoError(t, err)
	assert.NotEmpty(t, devices)
}

func TestLoadErrors(t *testing.T) {
	testenv.TensorFlow(t)
	_, err := savedmodel.Load(halfPlusTwo(t), &savedmodel.Options{Tags: []string{"serve", "gpu"}})
	require.ErrorContains(t, err, "does not have a meta graph with the tags {serve,gpu}, only {serve}")

	// The graph without the values of its variables.
	dir := t.TempDir()
	graph, err := os.ReadFile(filepath.Join(halfPlusTwo(t), savedmodel.GraphFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, savedmodel.GraphFile), graph, 0o666))
	_, err = savedmodel.Load(dir, nil)
	require.EqualError(t, err, dir+" is not complete: the graph has variables, but there is no variables/variables.index")

	require.NoError(t, os.Mkdir(filepath.Join(dir, "variables"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "variables", "variables.index"), []byte("garbage"), 0o666))
	_, err = savedmodel.Load(dir, nil)
	assert.ErrorContains(t, err, "load "+dir)
	assert.Equal(t, tf.DataLoss, tf.ErrCode(err))
}

func TestFuncErrors(t *testing.T) {
	m := loadModel(t, halfPlusTwo(t), nil)
	for _, c := range []struct {
		name, signature string
		inputs, outputs []string
		want            string
	}{
		{"signature", "predict", nil, nil,
			`no signature "predict", only classify_x_to_y, regress_x2_to_y3, regress_x_to_y, regress_x_to_y2, serving_default`},
		{"input", "serving_default", []string{"inputs"}, nil, `signature "serving_default" has no input "inputs", only x`},
		{"output", "serving_default", []string{"x"}, []string{"outputs"},
			`signature "serving_default" has no output "outputs", only y`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := m.Func(c.signature, c.inputs, c.outputs)
			assert.EqualError(t, err, c.want)
		})
	}
	keras := loadModel(t, foreignModel(t, "java_keras_model"), nil)
	_, err := keras.Func("__saved_model_init_op", nil, []string{"__saved_model_init_op"})
	assert.ErrorContains(t, err, `the tensor of "__saved_model_init_op": `)
}

func TestRunErrors(t *testing.T) {
	m := loadModel(t, halfPlusTwo(t), nil)
	f := function(t, m, "serving_default", []string{"x"}, []string{"y"})
	closed := newTensor[float32](t, tf.Shape{1, 1}, 1)
	require.NoError(t, closed.Close())
	for _, c := range []struct {
		name string
		in   []*tf.Tensor
		want string
	}{
		{"no tensor", nil, "run: the function takes 1 inputs, got 0"},
		{"too many", []*tf.Tensor{closed, closed}, "run: the function takes 1 inputs, got 2"},
		{"nil", []*tf.Tensor{nil}, `run: input "x" is nil`},
		{"type", []*tf.Tensor{newTensor[int32](t, tf.Shape{1, 1}, 1)}, `run: input "x" takes float32, got int32`},
		{"shape", []*tf.Tensor{newTensor[float32](t, tf.Shape{1, 2}, 1, 2)}, `run: input "x" takes shape [?,1], got [1,2]`},
		{"rank", []*tf.Tensor{newTensor[float32](t, nil, 1)}, `run: input "x" takes shape [?,1], got []`},
		{"closed", []*tf.Tensor{closed}, "already closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.Run(t.Context(), c.in...)
			require.ErrorContains(t, err, c.want)
		})
	}
	// An input that is not bound is TensorFlow's to miss.
	unfed := function(t, m, "serving_default", nil, []string{"y"})
	_, err := unfed.Run(t.Context())
	assert.Equal(t, tf.InvalidArgument, tf.ErrCode(err), "%v", err)
	require.NoError(t, m.Close())
	_, err = f.Run(t.Context(), newTensor[float32](t, tf.Shape{1, 1}, 1))
	assert.ErrorIs(t, err, tf.ErrClosed)
	require.NoError(t, m.Close())
}

func TestRunContext(t *testing.T) {
	dir := t.TempDir()
	writeBlocked(t, dir)
	m := loadModel(t, dir, nil)
	f := function(t, m, savedmodel.DefaultSignature, nil, []string{"item"})

	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.Run(ctx)
		assert.Equal(t, context.Canceled, err)
	})
	t.Run("expired before", func(t *testing.T) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		_, err := f.Run(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
	})
	t.Run("deadline", func(t *testing.T) {
		// Not a whole number of milliseconds, so that TensorFlow's timeout comes first.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond+900*time.Microsecond)
		defer cancel()
		_, err := f.Run(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, tf.DeadlineExceeded, tf.ErrCode(err))
		assert.NotContains(t, err.Error(), "\n")
	})
}

// writeBlocked writes a model whose only output waits for an item of an empty queue.
func writeBlocked(t testing.TB, dir string) {
	t.Helper()
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := tf.Builder{Graph: g}
	types := []tf.DataType{tf.Float}
	queue := b.Add(tf.OpSpec{Type: "FIFOQueueV2", Name: "queue", Attrs: map[string]tf.Attr{"component_types": types}})
	item := b.Add(tf.OpSpec{Type: "QueueDequeueV2", Name: "item", Inputs: []tf.Input{queue},
		Attrs: map[string]tf.Attr{"component_types": types}})
	require.NoError(t, b.Err)
	require.NoError(t, savedmodel.Write(dir, savedmodel.Content{Graph: g, Signatures: []savedmodel.Signature{{
		Key: savedmodel.DefaultSignature, Outputs: []savedmodel.TensorInfo{{Key: "item", Name: item.String()}},
	}}}))
}

func TestRunMetadata(t *testing.T) {
	m := loadModel(t, halfPlusTwo(t), nil)
	f := function(t, m, "serving_default", []string{"x"}, []string{"y"})
	out, metadata, err := f.RunWith(t.Context(), &tf.RunOptions{Trace: true}, newTensor[float32](t, tf.Shape{1, 1}, 4))
	assert.Equal(t, []float32{4}, valuesOf[float32](t, out, err))
	require.NotNil(t, metadata)
	nodes, err := metadata.Nodes()
	require.NoError(t, err)
	assert.NotEmpty(t, nodes)
}

func TestConcurrentRuns(t *testing.T) {
	m := loadModel(t, halfPlusTwo(t), nil)
	f := function(t, m, "serving_default", []string{"x"}, []string{"y"})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 50 {
				x := float32(worker*1000 + i)
				in, err := tf.NewTensor(tf.Shape{1, 1}, []float32{x})
				if !assert.NoError(t, err) {
					return
				}
				out, err := f.Run(t.Context(), in)
				if !assert.NoError(t, err) {
					return
				}
				y, err := tf.Values[float32](out[0])
				assert.NoError(t, err)
				assert.Equal(t, []float32{x/2 + 2}, y)
				assert.NoError(t, out[0].Close())
				assert.NoError(t, in.Close())
			}
		})
	}
	wg.Wait()
}
