//go:build cgo && unix

package tf_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/faketf"
	"github.com/tfbert/go/tf"
)

// A world is what the operations of the walk work on.
type world struct {
	graph   *tf.Graph
	session *tf.Session
	x, y    tf.Output
	in      *tf.Tensor
	model   string // a SavedModel's folder
	def     []byte // a GraphDef
	library string
}

// newWorld makes y = -x in a session of its own.
func newWorld(t *testing.T, model, library string, def []byte) *world {
	w := &world{model: model, library: library, def: def}
	var err error
	w.graph, err = tf.NewGraph()
	require.NoError(t, err)
	w.x = addOperation(t, w.graph, tf.OpSpec{Type: "Placeholder", Name: "x",
		Attrs: map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{2}}})
	w.y = addOperation(t, w.graph, tf.OpSpec{Type: "Neg", Name: "y", Inputs: []tf.Input{w.x}})
	w.session, err = tf.NewSession(w.graph, nil)
	require.NoError(t, err)
	w.in, err = tf.NewTensor(tf.Shape{2}, []float32{1, 2})
	require.NoError(t, err)
	return w
}

func (w *world) close(t *testing.T) {
	require.NoError(t, w.in.Close())
	require.NoError(t, w.session.Close())
	require.NoError(t, w.graph.Close())
}

// An operation of the walk: do calls one or a few exported functions and closes what they give.
type operation struct {
	does string // the functions, as "Graph.Import"
	do   func(w *world) error
	// ends says that the operation closes something: after a failure it is closed, and a second
	// close does not fail.
	ends bool
}

func closeNew[T interface{ Close() error }](v T, err error) error {
	if err != nil {
		return err
	}
	return v.Close()
}

// operations are all exported functions that call C; TestWalkIsComplete holds that.
var operations = []operation{
	{does: "NewTensor NewTensorFromBytes Tensor.Close", do: func(*world) error {
		return closeNew(tf.NewTensorFromBytes(tf.Int32, tf.Shape{1}, make([]byte, 4)))
	}},
	{does: "NewTensor", do: func(*world) error { return closeNew(tf.NewTensor(tf.Shape{2}, []string{"a", "b"})) }},
	{does: "NewTensor CloseAll", do: func(*world) error {
		t, err := tf.NewTensor(tf.Shape{1}, []int32{1})
		tf.CloseAll([]*tf.Tensor{t})
		return err
	}},
	{does: "Values Tensor.Bytes", do: func(w *world) error {
		if _, err := tf.Values[float32](w.in); err != nil {
			return err
		}
		_, err := w.in.Bytes()
		return err
	}},
	{does: "NewGraph Graph.Close", do: func(*world) error { return closeNew(tf.NewGraph()) }},
	{does: "Graph.AddOperation", do: func(w *world) error {
		_, err := w.graph.AddOperation(tf.OpSpec{
			Type: "Placeholder", Device: "/device:CPU:0", ControlInputs: []*tf.Operation{w.x.Op},
			Attrs: map[string]tf.Attr{"dtype": tf.Float, "_tensor": w.in, "_tensors": []*tf.Tensor{w.in}, "_name": "x"},
		})
		return err
	}},
	{does: "Graph.AddOperation", do: func(w *world) error {
		_, err := w.graph.AddOperation(tf.OpSpec{Type: "ConcatV2", Inputs: []tf.Input{tf.OutputList{w.x, w.y}, w.x}})
		return err
	}},
	{does: "AddConst Builder.Add", do: func(w *world) error {
		b := tf.Builder{Graph: w.graph}
		tf.AddConst[int32](&b, "", nil, 1)
		return b.Err
	}},
	{does: "Graph.Operation Graph.Output Graph.Operations Output.DataType Output.Shape", do: func(w *world) error {
		for op := range w.graph.Operations() {
			if _, _, err := op.Output(0).Shape(); err != nil {
				return err
			}
		}
		o, err := w.graph.Output("x:0")
		_ = o.DataType()
		return err
	}},
	{does: "Graph.GraphDef", do: func(w *world) error { _, err := w.graph.GraphDef(); return err }},
	{does: "Graph.Import NewGraph Graph.Close", do: func(w *world) error {
		g, err := tf.NewGraph()
		if err != nil {
			return err
		}
		defer g.Close()
		return g.Import(w.def, &tf.ImportOptions{Prefix: "p", Device: "/device:CPU:0"})
	}},
	{does: "NewSession", do: func(w *world) error {
		return closeNew(tf.NewSession(w.graph, &tf.SessionOptions{Config: []byte{0x10, 1}}))
	}},
	{does: "LoadSession", do: func(w *world) error {
		return closeNew(tf.LoadSession(w.model, []string{"serve"}, &tf.SessionOptions{Config: []byte{0x10, 1}}))
	}},
	{does: "Session.Close", ends: true, do: func(w *world) error { return w.session.Close() }},
	{does: "Session.Run", do: func(w *world) error {
		out, _, err := w.session.Run(context.Background(), []tf.Feed{{Output: w.x, Tensor: w.in}}, []tf.Output{w.y, w.x},
			&tf.RunOptions{Trace: true, Targets: []*tf.Operation{w.y.Op}})
		for _, o := range out {
			_ = o.Close()
		}
		return err
	}},
	{does: "Session.Devices", do: func(w *world) error { _, err := w.session.Devices(); return err }},
	{does: "OpList", do: func(*world) error { _, err := tf.OpList(); return err }},
	{does: "LoadLibrary", do: func(w *world) error { _, err := tf.LoadLibrary(w.library); return err }},
}

// TestFaults lets each call that each operation makes fail, with each code, and then each allocation.
// An error must come back, nothing be left and the object be of use, or closed if that was wanted.
func TestFaults(t *testing.T) {
	l := loadFake(t)
	assertNoneAlive(t, l)
	model, library, def := writeModel(t), compileC(t, "int x;"), exportNeg(t)
	hit := map[string]bool{}
	// walk fails the first, second, ... of what arm counts, in a world of its own each.
	walk := func(t *testing.T, op operation, arm func(n int), code tf.Code) {
		for n := 1; ; n++ {
			w := newWorld(t, model, library, def)
			before, operations := l.Live(), operationNames(w.graph)
			arm(n)
			err := op.do(w)
			fired := l.Fired()
			l.Fail(0, 0)
			hit[fired] = true
			if fired == "" {
				require.NoError(t, err)
				w.close(t)
				assertNoneAlive(t, l)
				return
			}
			require.Error(t, err, "%s, call %d", fired, n)
			assert.NotContains(t, err.Error(), "\n")
			if got := tf.ErrCode(err); got != tf.Unknown { // an object that could not be made has no code
				assert.Contains(t, []tf.Code{code, tf.ResourceExhausted}, got, "%s, call %d", fired, n)
			}
			if op.ends {
				assert.Equal(t, err, op.do(w), "closed a second time")
				_, _, err := w.session.Run(t.Context(), nil, nil, nil)
				assert.Equal(t, tf.ErrClosed, err)
			} else {
				assert.Equal(t, before, l.Live(), "%s, call %d", fired, n)
				assert.Equal(t, operations, operationNames(w.graph), "%s, call %d", fired, n)
				require.NoError(t, op.do(w), "again after the failure of %s, call %d", fired, n)
				require.NoError(t, w.session.Close())
			}
			require.NoError(t, w.in.Close())
			require.NoError(t, w.graph.Close())
			assertNoneAlive(t, l)
		}
	}
	for _, op := range operations {
		t.Run(op.does, func(t *testing.T) {
			for code := tf.Canceled; code <= tf.Unauthenticated; code++ {
				walk(t, op, func(n int) { l.Fail(n, int(code)) }, code)
			}
			walk(t, op, l.FailAllocation, tf.ResourceExhausted)
		})
	}
	for _, name := range faketf.Fallible() {
		assert.True(t, hit[name], "%s never failed", name)
	}
}

func operationNames(g *tf.Graph) (names []string) {
	for op := range g.Operations() {
		names = append(names, op.Name())
	}
	return names
}

// exportNeg returns a GraphDef of z = -x.
func exportNeg(t testing.TB) []byte {
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	addOperation(t, g, tf.OpSpec{Type: "Neg", Name: "z", Inputs: []tf.Input{addPlaceholder(t, g, "x", tf.Float)}})
	def, err := g.GraphDef()
	require.NoError(t, err)
	return def
}

// withoutFaults are the exported functions that do not call C, or whose calls cannot fail.
var withoutFaults = []string{
	"Load", "Loaded", "Version", "Path", "Alive", "CaptureLogs", "TrimMemory", "LimitArenas", // before or beside all others
	"Code.String", "Error.Error", "ErrCode", "TypeOf", "DataType.String", "DataType.Size", "Shape.String",
	"Shape.NumElements", "Shape.Compatible", "Tensor.DataType", "Tensor.Shape", "Session.Graph", "Output.String",
	"Operation.Name", "Operation.Type", "Operation.Device", "Operation.NumOutputs", "Operation.Output",
	"RunMetadata.Bytes", "RunMetadata.PartitionGraphs", "RunMetadata.Nodes",
}

// TestWalkIsComplete holds that TestFaults leaves out no exported function.
func TestWalkIsComplete(t *testing.T) {
	walked := slices.Clone(withoutFaults)
	for _, op := range operations {
		walked = append(walked, strings.Fields(op.does)...)
	}
	slices.Sort(walked)
	assert.Equal(t, slices.Compact(walked), exportedNames(t))
}

// exportedNames names the package's exported functions and methods.
func exportedNames(t *testing.T) (names []string) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() {
				continue
			}
			name := f.Name.Name
			if f.Recv != nil {
				receiver := f.Recv.List[0].Type
				if star, ok := receiver.(*ast.StarExpr); ok {
					receiver = star.X
				}
				name = receiver.(*ast.Ident).Name + "." + name
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
