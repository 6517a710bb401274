package tf_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

func TestRun(t *testing.T) {
	g := newGraph(t)
	a, b := addPlaceholder(t, g, "a", tf.Float), addPlaceholder(t, g, "b", tf.Float)
	sub := addOperation(t, g, tf.OpSpec{Type: "Sub", Inputs: []tf.Input{a, b}})
	mul := addOperation(t, g, tf.OpSpec{Type: "Mul", Inputs: []tf.Input{a, b}})
	s := newSession(t, g)
	feeds := []tf.Feed{
		{Output: a, Tensor: newTensor(t, tf.Shape{2}, float32(5), 7)},
		{Output: b, Tensor: newTensor(t, tf.Shape{2}, float32(2), 3)},
	}
	out, metadata, err := s.Run(t.Context(), feeds, []tf.Output{mul, sub}, nil)
	require.NoError(t, err)
	assert.Nil(t, metadata)
	for i, want := range [][]float32{{10, 21}, {3, 4}} {
		got, err := tf.Values[float32](out[i])
		require.NoError(t, err)
		assert.Equal(t, want, got)
		require.NoError(t, out[i].Close())
	}
	assert.Same(t, g, s.Graph())
}

func TestRunFeedsOneTensorTwice(t *testing.T) {
	g := newGraph(t)
	a, b := addPlaceholder(t, g, "a", tf.Float), addPlaceholder(t, g, "b", tf.Float)
	sum := addOperation(t, g, tf.OpSpec{Type: "AddV2", Inputs: []tf.Input{a, b}})
	s := newSession(t, g)
	x := newTensor(t, tf.Shape{1}, float32(3))
	assert.Equal(t, []float32{6},
		fetchOne[float32](t, s, sum, tf.Feed{Output: a, Tensor: x}, tf.Feed{Output: b, Tensor: x}))
	require.NoError(t, x.Close(), "nothing holds it any more")
}

func TestRunErrors(t *testing.T) {
	g, other := newGraph(t), newGraph(t)
	a := addPlaceholder(t, g, "a", tf.Float)
	neg := addOperation(t, g, tf.OpSpec{Type: "Neg", Inputs: []tf.Input{a}})
	foreign := addPlaceholder(t, other, "a", tf.Float)
	s := newSession(t, g)
	x, n := newTensor(t, tf.Shape{1}, float32(1)), newTensor(t, tf.Shape{1}, int32(1))
	closed := newTensor(t, tf.Shape{1}, float32(1))
	require.NoError(t, closed.Close())
	for name, tc := range map[string]struct {
		feeds   []tf.Feed
		fetches []tf.Output
		want    string
		code    tf.Code
	}{
		"not fed":       {nil, []tf.Output{neg}, "must feed a value", tf.InvalidArgument},
		"wrong type":    {[]tf.Feed{{a, n}}, []tf.Output{neg}, "int32", tf.InvalidArgument},
		"foreign feed":  {[]tf.Feed{{foreign, x}}, []tf.Output{neg}, "feed 0: a:0 is not of the session's graph", tf.Unknown},
		"foreign fetch": {nil, []tf.Output{foreign}, "fetch 0: a:0 is not of the session's graph", tf.Unknown},
		"no output":     {nil, []tf.Output{{Op: neg.Op, Index: 3}}, "no output 3", tf.Unknown},
		"nil tensor":    {[]tf.Feed{{a, nil}}, []tf.Output{neg}, "a tensor is nil", tf.Unknown},
		"closed tensor": {[]tf.Feed{{a, closed}}, []tf.Output{neg}, "already closed", tf.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := s.Run(t.Context(), tc.feeds, tc.fetches, nil)
			require.ErrorContains(t, err, tc.want)
			assert.Nil(t, out)
			assert.Equal(t, tc.code, tf.ErrCode(err))
		})
	}
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, _, err := s.Run(t.Context(), nil, nil, nil)
	require.ErrorIs(t, err, tf.ErrClosed)
	_, err = s.Devices()
	require.ErrorIs(t, err, tf.ErrClosed)
}

func TestRunTimeout(t *testing.T) {
	g := newGraph(t)
	item := addEndlessLoop(t, g)
	s := newSession(t, g)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err := s.Run(ctx, nil, []tf.Output{item}, nil)
	require.Equal(t, tf.DeadlineExceeded, tf.ErrCode(err), "%v", err)
}

func TestRunTargets(t *testing.T) {
	g := newGraph(t)
	v := addOperation(t, g, tf.OpSpec{Type: "VarHandleOp", Name: "v", Attrs: map[string]tf.Attr{
		"dtype": tf.Float, "shape": tf.Shape{}, "shared_name": "v"}})
	x := addPlaceholder(t, g, "x", tf.Float)
	assign := addOperation(t, g, tf.OpSpec{Type: "AssignVariableOp", Inputs: []tf.Input{v, x},
		Attrs: map[string]tf.Attr{"dtype": tf.Float}})
	read := addOperation(t, g, tf.OpSpec{Type: "ReadVariableOp", Inputs: []tf.Input{v},
		Attrs: map[string]tf.Attr{"dtype": tf.Float}})
	s := newSession(t, g)
	out, _, err := s.Run(t.Context(), []tf.Feed{{x, newTensor(t, tf.Shape{}, float32(4))}}, nil,
		&tf.RunOptions{Targets: []*tf.Operation{assign.Op}})
	require.NoError(t, err)
	assert.Empty(t, out)
	assert.Equal(t, []float32{4}, fetchOne[float32](t, s, read))
}

func TestRunMetadata(t *testing.T) {
	g := newGraph(t)
	x := addPlaceholder(t, g, "x", tf.Float)
	y := addOperation(t, g, tf.OpSpec{Type: "MatMul", Name: "product", Inputs: []tf.Input{x, x}})
	s := newSession(t, g)
	out, metadata, err := s.Run(t.Context(), []tf.Feed{{x, newTensor(t, tf.Shape{2, 2}, float32(1), 0, 0, 1)}},
		[]tf.Output{y},
		&tf.RunOptions{Trace: true, PartitionGraphs: true})
	require.NoError(t, err)
	require.NoError(t, out[0].Close())

	graphs, err := metadata.PartitionGraphs()
	require.NoError(t, err)
	require.NotEmpty(t, graphs)
	def := &tfproto.GraphDef{}
	require.NoError(t, proto.Unmarshal(graphs[0], def))
	names := map[string]string{}
	for _, n := range def.Node {
		names[n.Name] = n.Op
	}
	assert.Contains(t, names["product"], "MatMul")

	nodes, err := metadata.Nodes()
	require.NoError(t, err)
	found := false
	for _, n := range nodes {
		if n.Node == "product" {
			found = true
			assert.Contains(t, n.Device, "CPU:0")
			assert.Positive(t, n.Duration)
			assert.WithinDuration(t, time.Now(), n.Start, time.Minute)
		}
	}
	assert.True(t, found, "%v", nodes)
	assert.NotEmpty(t, metadata.Bytes())
}

func TestConcurrentRunsAndClose(t *testing.T) {
	g := newGraph(t)
	x := addPlaceholder(t, g, "x", tf.Float)
	y := addOperation(t, g, tf.OpSpec{Type: "Square", Inputs: []tf.Input{x}})
	s := newSession(t, g)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			in, err := tf.NewTensor(tf.Shape{}, []float32{float32(i)})
			if !assert.NoError(t, err) {
				return
			}
			defer in.Close()
			for range 50 {
				out, _, err := s.Run(t.Context(), []tf.Feed{{x, in}}, []tf.Output{y}, nil)
				if err != nil {
					assert.ErrorIs(t, err, tf.ErrClosed)
					return
				}
				v, err := tf.Values[float32](out[0])
				assert.NoError(t, err)
				assert.Equal(t, []float32{float32(i * i)}, v)
				assert.NoError(t, out[0].Close())
			}
		})
	}
	time.Sleep(time.Millisecond)
	require.NoError(t, s.Close())
	wg.Wait()
}

func TestDevices(t *testing.T) {
	s := newSession(t, newGraph(t))
	devices, err := s.Devices()
	require.NoError(t, err)
	require.NotEmpty(t, devices)
	assert.Equal(t, "CPU", devices[0].Type)
	assert.Contains(t, devices[0].Name, "device:CPU:0")
	assert.Positive(t, devices[0].MemoryLimit)
}

func TestSessionConfig(t *testing.T) {
	g := newGraph(t)
	config, err := proto.Marshal(&tfproto.ConfigProto{IntraOpParallelismThreads: 1})
	require.NoError(t, err)
	s, err := tf.NewSession(g, &tf.SessionOptions{Config: config})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = tf.NewSession(g, &tf.SessionOptions{Config: []byte("no proto")})
	require.Equal(t, tf.InvalidArgument, tf.ErrCode(err), "%v", err)
	_, err = tf.NewSession(g, &tf.SessionOptions{Target: "nowhere://"})
	require.Equal(t, tf.NotFound, tf.ErrCode(err), "%v", err)
}

// writeModel writes a SavedModel of y = x/2 + 2 without variables and returns its folder.
func writeModel(t testing.TB) string {
	t.Helper()
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := tf.Builder{Graph: g}
	x := b.Add(tf.OpSpec{Type: "Placeholder", Name: "x", Attrs: map[string]tf.Attr{"dtype": tf.Float}})
	half := b.Add(tf.OpSpec{Type: "Mul", Inputs: []tf.Input{x, tf.AddConst[float32](&b, "half", tf.Shape{1}, 0.5)}})
	b.Add(tf.OpSpec{Type: "AddV2", Name: "y", Inputs: []tf.Input{half, tf.AddConst[float32](&b, "two", tf.Shape{1}, 2)}})
	require.NoError(t, b.Err)
	model, err := proto.Marshal(&tfproto.SavedModel{SavedModelSchemaVersion: 1, MetaGraphs: []*tfproto.MetaGraphDef{{
		MetaInfoDef: &tfproto.MetaGraphDef_MetaInfoDef{Tags: []string{"serve"}}, GraphDef: exportGraph(t, g)}}})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "saved_model.pb"), model, 0o644))
	return dir
}

func TestLoadSession(t *testing.T) {
	loadLibrary(t)
	runModel(t, writeModel(t))
}

func TestLoadVariables(t *testing.T) {
	loadLibrary(t)
	realLibrary(t, "checkpoints")
	runModel(t, testenv.Shared(t, "data", "savedmodels", "half_plus_two", "00000123"))
}

func runModel(t *testing.T, dir string) {
	s, err := tf.LoadSession(dir, []string{"serve"}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	x, err := s.Graph().Output("x")
	require.NoError(t, err)
	y, err := s.Graph().Output("y")
	require.NoError(t, err)
	got := fetchOne[float32](t, s, y, tf.Feed{Output: x, Tensor: newTensor(t, tf.Shape{3, 1}, float32(1), 2, 10)})
	assert.Equal(t, []float32{2.5, 3, 7}, got)

	_, err = tf.LoadSession(dir, []string{"train"}, nil)
	require.Equal(t, tf.NotFound, tf.ErrCode(err), "%v", err)
	_, err = tf.LoadSession(filepath.Join(t.TempDir(), "nothing"), []string{"serve"}, nil)
	require.Equal(t, tf.NotFound, tf.ErrCode(err), "%v", err)
}

// addEndlessLoop adds an operation that waits for an item of an empty queue.
func addEndlessLoop(t testing.TB, g *tf.Graph) tf.Output {
	t.Helper()
	types := map[string]tf.Attr{"component_types": []tf.DataType{tf.Float}}
	queue := addOperation(t, g, tf.OpSpec{Type: "FIFOQueueV2", Attrs: types})
	return addOperation(t, g, tf.OpSpec{Type: "QueueDequeueV2", Inputs: []tf.Input{queue}, Attrs: types})
}

// A run that its caller has given up is cancelled by Close, which would else wait for ever.
func TestCloseCancelsAbandonedRun(t *testing.T) {
	g := newGraph(t)
	item := addEndlessLoop(t, g)
	s := newSession(t, g)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, _, err := s.Run(ctx, nil, []tf.Output{item}, nil)
	require.Equal(t, context.Canceled, err)
	require.NoError(t, s.Close())
}
