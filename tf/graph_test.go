package tf_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

func addConstant[T tf.Element](t testing.TB, g *tf.Graph, shape tf.Shape, data ...T) tf.Output {
	t.Helper()
	return addOperation(t, g, tf.OpSpec{Type: "Const", Attrs: map[string]tf.Attr{
		"dtype": tf.TypeOf[T](), "value": newTensor(t, shape, data...),
	}})
}

func TestGraphQueries(t *testing.T) {
	g := newGraph(t)
	x := addOperation(t, g, tf.OpSpec{Type: "Placeholder", Name: "x", Device: "/device:CPU:0",
		Attrs: map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{-1, 2}}})
	c := addConstant(t, g, tf.Shape{2}, float32(1), 2)
	y := addOperation(t, g, tf.OpSpec{Type: "AddV2", Inputs: []tf.Input{x, c}, ControlInputs: []*tf.Operation{c.Op}})
	z := addOperation(t, g, tf.OpSpec{Type: "AddV2", Inputs: []tf.Input{x, y}})

	assert.Equal(t, "AddV2", y.Op.Name())
	assert.Equal(t, "AddV2_1", z.Op.Name(), "unnamed operations take their type's name, made unique")
	assert.Equal(t, "/device:CPU:0", x.Op.Device())
	assert.Equal(t, "Placeholder", x.Op.Type())
	assert.Equal(t, 1, x.Op.NumOutputs())
	assert.Equal(t, tf.Float, y.DataType())
	shape, known, err := y.Shape()
	require.NoError(t, err)
	assert.True(t, known)
	assert.Equal(t, tf.Shape{-1, 2}, shape)

	out, err := g.Output("x:0")
	require.NoError(t, err)
	assert.Equal(t, "x:0", out.String())
	for name, want := range map[string]string{
		"nothing":  `no operation "nothing"`,
		"x:1":      "no output 1",
		"x:a":      "want NAME or NAME:INDEX",
		"x:-1":     "no output -1",
		"nothing:": "want NAME or NAME:INDEX",
	} {
		_, err := g.Output(name)
		assert.ErrorContains(t, err, want, name)
	}
	var names []string
	for op := range g.Operations() {
		names = append(names, op.Name())
	}
	slices.Sort(names)
	assert.Equal(t, []string{"AddV2", "AddV2_1", "Const", "x"}, names)

	require.NoError(t, g.Close())
	_, ok := g.Operation("x")
	assert.False(t, ok)
	_, err = g.AddOperation(tf.OpSpec{Type: "NoOp"})
	assert.ErrorIs(t, err, tf.ErrClosed)
	assert.Zero(t, x.DataType())
}

// Every kind of attribute is set and read back from the exported GraphDef. Any operation takes any
// attribute whose name begins with an underscore.
func TestAttributeKinds(t *testing.T) {
	g := newGraph(t)
	list := func(l *tfproto.AttrValue_ListValue) *tfproto.AttrValue {
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_List{List: l}}
	}
	shape := &tfproto.TensorShapeProto{Dim: []*tfproto.TensorShapeProto_Dim{{Size: -1}, {Size: 3}}}
	for name, tc := range map[string]struct {
		attr tf.Attr
		want *tfproto.AttrValue
	}{
		"string":       {"VALID", &tfproto.AttrValue{Value: &tfproto.AttrValue_S{S: []byte("VALID")}}},
		"bytes":        {[]byte{0, 255}, &tfproto.AttrValue{Value: &tfproto.AttrValue_S{S: []byte{0, 255}}}},
		"list(string)": {[]string{"a", ""}, list(&tfproto.AttrValue_ListValue{S: [][]byte{[]byte("a"), {}}})},
		"int":          {2, &tfproto.AttrValue{Value: &tfproto.AttrValue_I{I: 2}}},
		"int64":        {int64(-1) << 62, &tfproto.AttrValue{Value: &tfproto.AttrValue_I{I: -1 << 62}}},
		"list(int)":    {[]int64{1, 2, 2, 1}, list(&tfproto.AttrValue_ListValue{I: []int64{1, 2, 2, 1}})},
		"float":        {float32(0.25), &tfproto.AttrValue{Value: &tfproto.AttrValue_F{F: 0.25}}},
		"list(float)":  {[]float32{1, 2}, list(&tfproto.AttrValue_ListValue{F: []float32{1, 2}})},
		"bool":         {true, &tfproto.AttrValue{Value: &tfproto.AttrValue_B{B: true}}},
		"list(bool)":   {[]bool{true, false}, list(&tfproto.AttrValue_ListValue{B: []bool{true, false}})},
		"type":         {tf.Half, &tfproto.AttrValue{Value: &tfproto.AttrValue_Type{Type: 19}}},
		"list(type)":   {[]tf.DataType{tf.Float, tf.Int32}, list(&tfproto.AttrValue_ListValue{Type: []int32{1, 3}})},
		"shape":        {tf.Shape{-1, 3}, &tfproto.AttrValue{Value: &tfproto.AttrValue_Shape{Shape: shape}}},
		"list(shape)":  {[]tf.Shape{{-1, 3}}, list(&tfproto.AttrValue_ListValue{Shape: []*tfproto.TensorShapeProto{shape}})},
		"unknown shape": {tf.UnknownShape{}, &tfproto.AttrValue{Value: &tfproto.AttrValue_Shape{
			Shape: &tfproto.TensorShapeProto{UnknownRank: true}}}},
		"func": {tf.FuncName("body"), &tfproto.AttrValue{Value: &tfproto.AttrValue_Func{
			Func: &tfproto.NameAttrList{Name: "body"}}}},
		"tensor": {newTensor(t, tf.Shape{1}, int32(5)), &tfproto.AttrValue{Value: &tfproto.AttrValue_Tensor{
			Tensor: int32Proto(5)}}},
		"list(tensor)": {[]*tf.Tensor{newTensor(t, tf.Shape{1}, int32(5)), newTensor(t, tf.Shape{1}, int32(6))},
			list(&tfproto.AttrValue_ListValue{Tensor: []*tfproto.TensorProto{int32Proto(5), int32Proto(6)}})},
	} {
		t.Run(name, func(t *testing.T) {
			op, err := g.AddOperation(tf.OpSpec{Type: "NoOp", Attrs: map[string]tf.Attr{"_attr": tc.attr}})
			require.NoError(t, err)
			def := exportGraph(t, g)
			n := slices.IndexFunc(def.Node, func(n *tfproto.NodeDef) bool { return n.Name == op.Name() })
			require.GreaterOrEqual(t, n, 0)
			got := def.Node[n].Attr["_attr"]
			assert.True(t, proto.Equal(tc.want, got), "want %v, got %v", tc.want, got)
		})
	}
	_, err := g.AddOperation(tf.OpSpec{Type: "Placeholder", Attrs: map[string]tf.Attr{"dtype": 1.5}})
	require.ErrorContains(t, err, "attribute dtype: a float64 is not an attribute value")
}

func int32Proto(v int32) *tfproto.TensorProto {
	return &tfproto.TensorProto{Dtype: int32(tf.Int32), IntVal: []int32{v},
		TensorShape: &tfproto.TensorShapeProto{Dim: []*tfproto.TensorShapeProto_Dim{{Size: 1}}}}
}

func exportGraph(t testing.TB, g *tf.Graph) *tfproto.GraphDef {
	t.Helper()
	b, err := g.GraphDef()
	require.NoError(t, err)
	def := &tfproto.GraphDef{}
	require.NoError(t, proto.Unmarshal(b, def))
	return def
}

func TestTensorAttributes(t *testing.T) {
	g := newGraph(t)
	c := addConstant(t, g, tf.Shape{2}, int64(7), 8)
	s := newSession(t, g)
	assert.Equal(t, []int64{7, 8}, fetchOne[int64](t, s, c))
	text := addConstant(t, g, tf.Shape{1}, "text that does not fit twenty-three bytes")
	assert.Equal(t, []string{"text that does not fit twenty-three bytes"}, fetchOne[string](t, s, text))
}

func TestAddOperationErrors(t *testing.T) {
	g, other := newGraph(t), newGraph(t)
	x := addPlaceholder(t, g, "x", tf.Float)
	foreign := addPlaceholder(t, other, "x", tf.Float)
	for name, tc := range map[string]struct {
		spec tf.OpSpec
		want string
		code tf.Code
	}{
		"unknown type": {tf.OpSpec{Type: "NoSuchOp"}, "Op type not registered 'NoSuchOp'", tf.InvalidArgument},
		"name taken":   {tf.OpSpec{Type: "NoOp", Name: "x"}, "the graph has an operation of that name", tf.AlreadyExists},
		"other graph":  {tf.OpSpec{Type: "Identity", Inputs: []tf.Input{foreign}}, "belongs to another graph", tf.Unknown},
		"no operation": {tf.OpSpec{Type: "Identity", Inputs: []tf.Input{tf.Output{}}}, "an output has no operation",
			tf.Unknown},
		"bad attribute": {tf.OpSpec{Type: "Placeholder", Attrs: map[string]tf.Attr{"dtype": "float"}},
			"", tf.InvalidArgument},
		"missing input": {tf.OpSpec{Type: "MatMul", Inputs: []tf.Input{x}}, "", tf.InvalidArgument},
		"nul":           {tf.OpSpec{Type: "NoOp", Name: "a\x00b"}, "contains NUL", tf.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := g.AddOperation(tc.spec)
			require.ErrorContains(t, err, tc.want)
			assert.Equal(t, tc.code, tf.ErrCode(err))
		})
	}
	assert.Len(t, exportGraph(t, g).Node, 1, "a failed operation leaves the graph as it was")
}

func TestImportExport(t *testing.T) {
	g := newGraph(t)
	x := addPlaceholder(t, g, "x", tf.Float)
	addOperation(t, g, tf.OpSpec{Type: "Neg", Name: "y", Inputs: []tf.Input{x}})
	def, err := g.GraphDef()
	require.NoError(t, err)

	copied := newGraph(t)
	require.NoError(t, copied.Import(def, nil))
	require.NoError(t, copied.Import(def, &tf.ImportOptions{Prefix: "second", Device: "/device:CPU:0"}))
	for _, prefix := range []string{"", "second/"} {
		in, err := copied.Output(prefix + "x")
		require.NoError(t, err)
		out, err := copied.Output(prefix + "y")
		require.NoError(t, err)
		s := newSession(t, copied)
		assert.Equal(t, []float32{-2.5},
			fetchOne[float32](t, s, out, tf.Feed{Output: in, Tensor: newTensor(t, tf.Shape{1}, float32(2.5))}))
	}
	y, _ := copied.Operation("second/y")
	assert.Equal(t, "/device:CPU:0", y.Device())
	assert.Equal(t, tf.InvalidArgument, tf.ErrCode(copied.Import([]byte("garbage"), nil)))
	assert.Equal(t, tf.InvalidArgument, tf.ErrCode(copied.Import(def, nil)), "names are taken")
}
