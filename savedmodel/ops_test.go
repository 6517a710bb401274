package savedmodel

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// TestOpTable holds that every operation of the library has a class. The operations of a newer version are
// refused until somebody has classed them.
func TestOpTable(t *testing.T) {
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	if !strings.HasPrefix(tf.Version(), "2.21.") {
		t.Skipf("ops.txt is of TensorFlow 2.21, this is %s", tf.Version())
	}
	data, err := tf.OpList()
	require.NoError(t, err)
	list := &tfproto.OpList{}
	require.NoError(t, proto.Unmarshal(data, list))
	have := map[string]bool{}
	for _, op := range list.Op {
		have[op.Name] = true
		assert.Contains(t, opClasses(), op.Name)
	}
	for op := range opClasses() {
		assert.True(t, have[op], "TensorFlow has no %s", op)
	}
}

func TestOpTableClasses(t *testing.T) {
	classes := map[OpClass]int{}
	for _, class := range opClasses() {
		classes[class]++
	}
	known := []OpClass{ClassCompute, ClassFile, ClassNetwork, ClassPython, ClassCode, ClassProcess, ClassOther}
	assert.ElementsMatch(t, known,
		slices.Collect(maps.Keys(classes)))
	for op := range saverOps {
		assert.Equal(t, ClassFile, opClasses()[op], op)
	}
	for op := range callOps {
		assert.Equal(t, ClassCompute, opClasses()[op], op)
	}
	// Operations that reach further than their names say.
	for op, want := range map[string]OpClass{
		"ImmutableConst": ClassFile, "DecodeProtoV2": ClassFile, "EncodeProto": ClassFile,
		"FixedUnigramCandidateSampler": ClassFile, "LoadAndRemapMatrix": ClassFile,
		"GenerateVocabRemapping": ClassFile, "Skipgram": ClassFile, "CacheDataset": ClassFile,
		"PrintV2": ClassFile, "DebugIdentity": ClassNetwork, "RegisterDataset": ClassNetwork, "RemoteCall": ClassNetwork,
		"DatasetFromGraph": ClassCode, "XlaCallModule": ClassCode, "XlaCustomCallV2": ClassCode,
		"Abort": ClassProcess, "Empty": ClassOther, "_MklMatMul": ClassOther, "_FusedMatMul": ClassCompute,
	} {
		assert.Equal(t, want, opClasses()[op], op)
	}
}

func TestOpPolicy(t *testing.T) {
	for s, want := range map[string]OpPolicy{
		"all":                     {},
		"standard":                {Standard: true, Also: []string{}},
		"standard,MyOp,DecodeGif": {Standard: true, Also: []string{"MyOp", "DecodeGif"}},
	} {
		p, err := ParseOpPolicy(s)
		require.NoError(t, err)
		assert.Equal(t, want, p)
		assert.Equal(t, s, p.String())
	}
	for _, s := range []string{"", "none", "all,MyOp", "standard,", ",standard", "MyOp"} {
		_, err := ParseOpPolicy(s)
		assert.ErrorContains(t, err, "not \""+s+"\"")
	}
}

func opNode(name, op string, inputs ...string) *tfproto.NodeDef {
	return &tfproto.NodeDef{Name: name, Op: op, Input: inputs}
}

func funcAttr(name string, attrs map[string]*tfproto.AttrValue) *tfproto.AttrValue {
	return &tfproto.AttrValue{Value: &tfproto.AttrValue_Func{Func: &tfproto.NameAttrList{Name: name, Attr: attrs}}}
}

// callNode makes a node that names a function in an attribute.
func callNode(name, op, attr, f string, inputs ...string) *tfproto.NodeDef {
	n := opNode(name, op, inputs...)
	n.Attr = map[string]*tfproto.AttrValue{attr: funcAttr(f, nil)}
	return n
}

// branchNode makes a node that names functions in a list, which our messages do not have.
func branchNode(name string, functions []string, inputs ...string) *tfproto.NodeDef {
	list := &tfproto.AttrValue_ListValue{}
	var b []byte
	for _, f := range functions {
		b = protowire.AppendBytes(protowire.AppendTag(b, 9, protowire.BytesType),
			protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), f))
	}
	list.ProtoReflect().SetUnknown(b)
	n := opNode(name, "Case", inputs...)
	n.Attr = map[string]*tfproto.AttrValue{"branches": {Value: &tfproto.AttrValue_List{List: list}}}
	return n
}

// A product of integers writes past its end where its addend has another type than its result.
func TestOpsProductOfIntegers(t *testing.T) {
	product := func(addend, result, bias tf.DataType, ops ...string) *tfproto.NodeDef {
		dtype := func(d tf.DataType) *tfproto.AttrValue {
			return &tfproto.AttrValue{Value: &tfproto.AttrValue_Type{Type: int32(d)}}
		}
		list := &tfproto.AttrValue_ListValue{}
		for _, op := range ops {
			list.S = append(list.S, []byte(op))
		}
		n := opNode("product", "_QuantizedMatMul")
		n.Attr = map[string]*tfproto.AttrValue{"U": dtype(addend), "Tout": dtype(result), "Tbias": dtype(bias),
			"fused_ops": {Value: &tfproto.AttrValue_List{List: list}}}
		return n
	}
	for _, c := range []struct {
		node *tfproto.NodeDef
		want OpClass
	}{
		{product(tf.Float, tf.Float, tf.Float, "BiasAdd", "Add", "Dequantize"), ClassCompute},
		{product(tf.Float, tf.Quint8, tf.Float, "BiasAdd", "Requantize"), ClassCompute},
		{product(tf.Float, tf.Bfloat16, tf.Float, "BiasAdd", "Add", "Dequantize"), ClassOther},
		{product(tf.Float, tf.Float, tf.Bfloat16, "BiasAdd", "Dequantize"), ClassOther},
		{opNode("product", "_QuantizedMatMul"), ClassOther},
	} {
		r, err := opReport(metaOf([]*tfproto.NodeDef{c.node}))
		require.NoError(t, err)
		require.Len(t, r.Ops, 1)
		assert.Equal(t, c.want, r.Ops[0].Class, "%v", c.node)
		assert.Equal(t, c.want == ClassCompute, r.Standard)
	}
}

func function(name string, args []string, nodes ...*tfproto.NodeDef) *tfproto.FunctionDef {
	def := &tfproto.OpDef{Name: name}
	for _, a := range args {
		def.InputArg = append(def.InputArg, &tfproto.OpDef_ArgDef{Name: a})
	}
	return &tfproto.FunctionDef{Signature: def, NodeDef: nodes}
}

// withAttr adds an attribute, which our messages do not have, to a function.
func withAttr(f *tfproto.FunctionDef, key string) *tfproto.FunctionDef {
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	f.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), entry))
	return f
}

func namedTensor(name string) *tfproto.TensorInfo {
	return &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_Name{Name: name}}
}

// metaOf makes a meta graph whose signature returns y:0, and whose saver restores by the node restore
// from the file file:0.
func metaOf(nodes []*tfproto.NodeDef, functions ...*tfproto.FunctionDef) *tfproto.MetaGraphDef {
	return &tfproto.MetaGraphDef{
		MetaInfoDef: &tfproto.MetaGraphDef_MetaInfoDef{Tags: []string{ServeTag}},
		GraphDef:    &tfproto.GraphDef{Node: nodes, Library: &tfproto.FunctionDefLibrary{Function: functions}},
		SaverDef:    &tfproto.SaverDef{FilenameTensorName: "file:0", RestoreOpName: "restore", SaveTensorName: "saved:0"},
		SignatureDef: map[string]*tfproto.SignatureDef{DefaultSignature: {
			Inputs:  map[string]*tfproto.TensorInfo{"x": namedTensor("x:0")},
			Outputs: map[string]*tfproto.TensorInfo{"y": namedTensor("y:0")},
		}},
	}
}

func writeMetas(t testing.TB, metas ...*tfproto.MetaGraphDef) string {
	t.Helper()
	b, err := proto.Marshal(&tfproto.SavedModel{SavedModelSchemaVersion: 1, MetaGraphs: metas})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, GraphFile), b, 0o666))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "variables"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, VariablesPrefix+".index"), nil, 0o666))
	return dir
}

// saverNodes are those of a model with variables, as TensorFlow 1 writes them.
func saverNodes() []*tfproto.NodeDef {
	return []*tfproto.NodeDef{
		opNode("x", "Placeholder"), opNode("v", "VariableV2"), opNode("y", "Mul", "x", "v"),
		opNode("default", "Const"), opNode("file", "PlaceholderWithDefault", "default"), opNode("names",
			"Const"), opNode("slices", "Const"),
		opNode("shard", "ShardedFilename", "file"), opNode("save", "SaveV2", "shard", "names", "slices", "v"),
		opNode("merge", "MergeV2Checkpoints", "shard", "file", "^save"), opNode("saved", "Identity", "file", "^merge"),
		opNode("r", "RestoreV2", "file:0", "names", "slices"), opNode("assign", "Assign", "v", "r"), opNode("restore", "NoOp",
			"^assign"),
	}
}

// withNodes replaces a node of the same name, or adds it.
func withNodes(nodes []*tfproto.NodeDef, changed ...*tfproto.NodeDef) []*tfproto.NodeDef {
	for _, n := range changed {
		at := slices.IndexFunc(nodes, func(o *tfproto.NodeDef) bool { return o.Name == n.Name })
		if at < 0 {
			nodes = append(nodes, n)
		} else {
			nodes[at] = n
		}
	}
	return nodes
}

// saverFunctions are the nodes of such a model as TensorFlow 2 writes them, without its functions.
func saverFunctions() []*tfproto.NodeDef {
	return []*tfproto.NodeDef{
		opNode("x", "Placeholder"), opNode("v", "VarHandleOp"), callNode("y", "StatefulPartitionedCall", "f", "infer", "x",
			"v"),
		opNode("file", "Placeholder"), callNode("saved", "StatefulPartitionedCall", "f", "save", "file", "v"),
		callNode("restore", "StatefulPartitionedCall", "f", "restore", "file", "v"),
	}
}

func infer() *tfproto.FunctionDef {
	return function("infer", []string{"x", "v"}, opNode("read", "ReadVariableOp", "v"),
		opNode("mul", "Mul", "x", "read:value:0"))
}

func save() *tfproto.FunctionDef {
	return function("save", []string{"prefix", "v"}, opNode("read", "ReadVariableOp", "v"),
		opNode("s", "SaveV2", "prefix", "n", "l", "read:value:0"))
}

func restore(nodes ...*tfproto.NodeDef) *tfproto.FunctionDef {
	return function("restore", []string{"prefix", "v"},
		append(nodes, opNode("n", "Const"), opNode("a", "AssignVariableOp", "v", "r:tensors:0"))...)
}

func TestOpsRefused(t *testing.T) {
	plain := []*tfproto.NodeDef{opNode("x", "Placeholder"), opNode("y", "Identity", "x")}
	collection := func(m *tfproto.MetaGraphDef, key, name string) *tfproto.MetaGraphDef {
		m.CollectionDef = map[string]*tfproto.CollectionDef{key: {Kind: &tfproto.CollectionDef_NodeList_{
			NodeList: &tfproto.CollectionDef_NodeList{Value: []string{name}}}}}
		return m
	}
	output := func(m *tfproto.MetaGraphDef, info *tfproto.TensorInfo) *tfproto.MetaGraphDef {
		m.SignatureDef["another"] = &tfproto.SignatureDef{Outputs: map[string]*tfproto.TensorInfo{"z": info}}
		return m
	}
	asset := func(m *tfproto.MetaGraphDef, tensor string) *tfproto.MetaGraphDef {
		m.AssetFileDef = []*tfproto.AssetFileDef{{TensorInfo: namedTensor(tensor), Filename: "vocab.txt"}}
		return m
	}
	const runs = "(file) at merge, as r runs for a signature or the initialization, and 2 more types"
	const other = "does more than restore the model's variables"
	for _, c := range []struct {
		name string
		meta *tfproto.MetaGraphDef
		want string // in the error, "" for none
	}{
		{"no graph", &tfproto.MetaGraphDef{MetaInfoDef: metaOf(nil).MetaInfoDef}, ""},
		{"compute", metaOf(plain), ""},
		{"a variable", metaOf(saverNodes()), ""},
		{"a variable of TensorFlow 2",
			metaOf(saverFunctions(), infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))), ""},
		{"the file by an Identity",
			metaOf(withNodes(saverNodes(), opNode("i", "Identity", "file"),
				opNode("r", "RestoreV2", "i:0", "names", "slices"))), ""},
		{"the file by an Identity of a function", metaOf(saverFunctions(), infer(), save(),
			restore(opNode("i", "Identity", "prefix"), opNode("r", "RestoreV2", "i:output:0", "n", "n"))), ""},
		{"an asset", asset(metaOf(saverNodes()), "names:0"), ""},
		{"a function by its name", metaOf([]*tfproto.NodeDef{opNode("y", "infer", "x", "v")}, infer()), ""},
		{"a saver of functions by their names", metaOf(withNodes(saverFunctions(), opNode("restore", "restore", "file", "v")),
			infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))), ""},

		{"file", metaOf(append(plain, opNode("a", "ReadFile", "x"))), "ReadFile (file) at a"},
		{"file by a standard stream", metaOf(append(plain, opNode("p", "PrintV2", "x"))), "PrintV2 (file) at p"},
		{"python", metaOf(append(plain, opNode("p", "PyFunc", "x"))), "PyFunc (python) at p"},
		{"network", metaOf(append(plain, opNode("p", "RpcClient", "x"))), "RpcClient (network) at p"},
		{"code", metaOf(append(plain, opNode("p", "XlaCallModule", "x"))), "XlaCallModule (code) at p"},
		{"process", metaOf(append(plain, opNode("p", "Abort", "x"))), "Abort (process) at p"},
		{"custom", metaOf(append(plain, opNode("c", "MyOp", "x"))), "MyOp (custom) at c"},
		{"no operation", metaOf(append(plain, opNode("c", "", "x"))), " (custom) at c"},
		{"a name for a terminal", metaOf(append(plain, opNode("\x1b[2J", "My\nOp"))), `My\nOp (custom) at \x1b[2J`},
		{"several", metaOf(append(plain, opNode("a", "ReadFile", "x"), opNode("b", "ReadFile", "x"), opNode("c", "MyOp"))),
			"ReadFile (file) at a, and 1 more types"},
		{"in a function", metaOf(plain, function("f", nil, opNode("a", "WriteFile"))), "WriteFile (file) at a in f"},
		{"a function of an operation's name",
			metaOf(plain, function("ReadFile", nil), function("f", nil, opNode("a", "ReadFile"))), "ReadFile (file) at a in f"},

		{"restored for a signature", metaOf(withNodes(saverNodes(), opNode("y", "Identity", "r"))), runs},
		{"restored for a signature from its input",
			metaOf(withNodes(saverNodes(), opNode("r", "RestoreV2", "x", "names", "slices"),
				opNode("y", "Identity", "r"))), runs},
		{"restored for a signature's control", metaOf(withNodes(saverNodes(), opNode("y", "Mul", "x", "v", "^assign"))),
			runs},
		{"restored for another output", output(metaOf(saverNodes()), namedTensor("r:0")), runs},
		{"restored for sparse indices",
			output(metaOf(saverNodes()), &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_CooSparse_{
				CooSparse: &tfproto.TensorInfo_CooSparse{ValuesTensorName: "x:0", IndicesTensorName: "r:0"}}}), runs},
		{"restored for a composite",
			output(metaOf(saverNodes()), &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_CompositeTensor_{
				CompositeTensor: &tfproto.TensorInfo_CompositeTensor{Components: []*tfproto.TensorInfo{namedTensor("x:0"),
					namedTensor("r:0")}}}}), runs},
		{"restored for the initialization", collection(metaOf(saverNodes()), "saved_model_main_op", "assign"), runs},
		{"restored for an old initialization", collection(metaOf(saverNodes()), "legacy_init_op", "assign"), runs},
		{"saved for a signature", metaOf(withNodes(saverNodes(), opNode("y", "Identity", "saved"))),
			"as save runs for a signature or the initialization"},
		{"restored from a constant", metaOf(withNodes(saverNodes(), opNode("r", "RestoreV2", "default", "names", "slices"))),
			"as r " + other},
		{"restored from the file's other output",
			metaOf(withNodes(saverNodes(), opNode("r", "RestoreV2", "file:1", "names", "slices"))), "as r " + other},
		{"restored from computed text",
			metaOf(withNodes(saverNodes(), opNode("j", "StringJoin", "file"), opNode("r", "RestoreV2", "j", "names", "slices"))),
			"as r " + other},
		{"restored from an asset", asset(metaOf(saverNodes()), "file:0"), "as r " + other},
		{"restored from an asset by an Identity", asset(metaOf(withNodes(saverNodes(), opNode("i", "Identity", "file"),
			opNode("r", "RestoreV2", "i", "names", "slices"))), "i:0"), "as r " + other},
		{"restored by a function that is there twice", metaOf(saverFunctions(), infer(), save(),
			restore(opNode("r", "RestoreV2", "v", "n", "n")), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))),
			"as the function restore can take the place of another"},
		{"restored from nothing", metaOf(withNodes(saverNodes(), opNode("r", "RestoreV2"))), "as r " + other},
		{"restored from a loop", metaOf(withNodes(saverNodes(), opNode("i", "Identity", "i"), opNode("r", "RestoreV2", "i"))),
			"as r " + other},
		{"saved when restored", metaOf(withNodes(saverNodes(), opNode("restore", "NoOp", "^assign", "^save"))),
			"as save " + other},
		{"restored by a function for a signature",
			metaOf(withNodes(saverFunctions(), callNode("y", "StatefulPartitionedCall", "f", "restore", "file", "v")),
				infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))),
			"as y runs for a signature or the initialization"},
		{"restored by a function that a signature's calls", metaOf(saverFunctions(),
			function("infer", []string{"x", "v"},
				callNode("c", "PartitionedCall", "f", "restore", "x", "v")),
			save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))),
			"as y runs for a signature or the initialization"},
		{"restored by one of a signature's branches",
			metaOf(withNodes(saverFunctions(), branchNode("y", []string{"infer", "restore"}, "x", "v")),
				infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))),
			"as y runs for a signature or the initialization"},
		{"restored by a function of a function's attribute",
			metaOf(withNodes(saverFunctions(), &tfproto.NodeDef{Name: "y", Op: "PartitionedCall",
				Attr: map[string]*tfproto.AttrValue{"f": funcAttr("infer",
					map[string]*tfproto.AttrValue{"g": funcAttr("restore", nil)})}}),
				infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))),
			"as y runs for a signature or the initialization"},
		{"restored by a function from another argument",
			metaOf(saverFunctions(), infer(), save(), restore(opNode("r", "RestoreV2", "v", "n", "n"))), "as restore " + other},
		{"restored by a function from a constant",
			metaOf(saverFunctions(), infer(), save(), restore(opNode("r", "RestoreV2", "n:output:0", "n", "n"))),
			"as restore " + other},
		{"restored by a function with another file",
			metaOf(withNodes(saverFunctions(), callNode("restore", "StatefulPartitionedCall", "f", "restore", "x", "v")),
				infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))), "as restore " + other},
		{"restored by a branch", metaOf(withNodes(saverFunctions(), branchNode("restore", []string{"restore"}, "file", "v")),
			infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"))), "as restore " + other},
		{"saved by the function that restores",
			metaOf(saverFunctions(), infer(), save(), restore(opNode("r", "RestoreV2", "prefix", "n", "n"),
				callNode("s", "PartitionedCall", "f", "save", "prefix", "v"))), "as restore " + other},
		{"restored in place of another", metaOf(saverFunctions(), withAttr(infer(), "api_implements"), save(),
			withAttr(restore(opNode("r", "RestoreV2", "prefix", "n", "n")), "api_implements")),
			"as the function restore can take the place of another"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writeMetas(t, c.meta)
			err := checkOps(dir, OpPolicy{Standard: true})
			reports, reportErr := Ops(dir)
			require.NoError(t, reportErr)
			require.Len(t, reports, 1)
			assert.Equal(t, c.want == "", reports[0].Standard)
			assert.NoError(t, checkOps(dir, OpPolicy{}))
			if c.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, dir+" holds operations that the policy \"standard\" refuses: ")
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "\n")

			// Refused before the library is asked for anything.
			_, loadErr := Load(dir, &Options{AllowOps: OpPolicy{Standard: true}})
			assert.EqualError(t, loadErr, err.Error())
			allowed := OpPolicy{Standard: true}
			for _, u := range reports[0].Refused(allowed) {
				allowed.Also = append(allowed.Also, u.Op)
			}
			assert.NoError(t, checkOps(dir, allowed))
		})
	}
}

// TestOpsDeepCalls holds that functions that call one another without an end, or many times, take little time.
func TestOpsDeepCalls(t *testing.T) {
	calls := func(f string) (nodes []*tfproto.NodeDef) {
		for range 20 {
			nodes = append(nodes, callNode("c", "PartitionedCall", "f", f, "prefix", "v"))
		}
		return nodes
	}
	next := func(name, callee string) *tfproto.FunctionDef {
		return function(name, []string{"prefix", "v"}, calls(callee)...)
	}
	r := opNode("r", "RestoreV2", "prefix", "n", "n")
	wide := []*tfproto.FunctionDef{infer(), save(), next("restore", "1"), next("1", "2"), next("2", "3"), next("3", "4"),
		next("4", "5"),
		next("5", "6"), function("6", []string{"prefix", "v"}, r)}
	endless := []*tfproto.FunctionDef{infer(), save(), restore(append(calls("restore"), r)...)}
	long := []*tfproto.FunctionDef{infer(), save(), next("restore", "0")}
	for i := range 10000 {
		long = append(long, next(strconv.Itoa(i), strconv.Itoa(i+1)))
	}
	long = append(long, function("10000", []string{"prefix", "v"}, r))
	for what, c := range map[string]struct {
		functions []*tfproto.FunctionDef
		standard  bool
	}{"wide": {wide, true}, "endless": {endless, true}, "long": {long, false}} {
		t.Run(what, func(t *testing.T) {
			reports, err := Ops(writeMetas(t, metaOf(saverFunctions(), c.functions...)))
			require.NoError(t, err)
			assert.Equal(t, c.standard, reports[0].Standard)
		})
	}
}

// TestOpsTags holds that the graph that TensorFlow takes for the tags is the one that is checked.
func TestOpsTags(t *testing.T) {
	evil := func(tags ...string) *tfproto.MetaGraphDef {
		m := metaOf([]*tfproto.NodeDef{opNode("a", "ReadFile")})
		m.MetaInfoDef.Tags = tags
		return m
	}
	policy := OpPolicy{Standard: true}
	dir := writeMetas(t, evil("train"), evil("gpu", ServeTag), metaOf(nil))
	assert.NoError(t, checkOps(dir, policy))
	assert.Error(t, checkOps(dir, policy, "gpu"))

	// A tag twice is that tag.
	first := metaOf([]*tfproto.NodeDef{opNode("first", "NoOp")})
	second := metaOf([]*tfproto.NodeDef{opNode("second", "NoOp")})
	first.MetaInfoDef.Tags = []string{ServeTag, ServeTag}
	first.SaverDef, second.SaverDef = nil, nil
	dir = writeMetas(t, evil(ServeTag, ServeTag), first, second)
	assert.Error(t, checkOps(dir, policy))
	info, err := Inspect(dir)
	require.NoError(t, err)
	m, err := info.MetaGraph([]string{ServeTag})
	require.NoError(t, err)
	assert.Same(t, &info.MetaGraphs[0], m)
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	s, err := tf.LoadSession(writeMetas(t, first, second), []string{ServeTag}, nil)
	require.NoError(t, err)
	defer s.Close()
	graph, err := s.Graph().GraphDef()
	require.NoError(t, err)
	assert.Contains(t, string(graph), "first")
}

// TestOpsReport holds the order and the names of the list.
func TestOpsReport(t *testing.T) {
	reports, err := Ops(writeMetas(t,
		metaOf(append(saverNodes(), opNode("a", "ReadFile"), opNode("b", "MyOp"), opNode("c", "MyOp")),
			function("f", nil, opNode("a", "ReadFile")), function("g", nil))))
	require.NoError(t, err)
	require.Len(t, reports, 1)
	r := reports[0]
	assert.Equal(t, []string{ServeTag}, r.Tags)
	assert.False(t, r.Standard)
	assert.Equal(t, []OpUse{
		{Op: "MyOp", Class: ClassCustom, Count: 2, Nodes: []string{"b", "c"}},
		{Op: "ReadFile", Class: ClassFile, Count: 2, Nodes: []string{"a", "a in f"}},
		{Op: "MergeV2Checkpoints", Class: ClassSaver, Count: 1, Nodes: []string{"merge"}},
		{Op: "RestoreV2", Class: ClassSaver, Count: 1, Nodes: []string{"r"}},
		{Op: "SaveV2", Class: ClassSaver, Count: 1, Nodes: []string{"save"}},
		{Op: "Const", Class: ClassCompute, Count: 3},
	}, r.Ops[:6])
	assert.Equal(t, r.Ops[:2], r.Refused(OpPolicy{Standard: true}))
	assert.Equal(t, r.Ops[1:2], r.Refused(OpPolicy{Standard: true, Also: []string{"MyOp"}}))
	assert.Empty(t, r.Refused(OpPolicy{}))
}

// checkOps checks the graph of the tag "serve", and others, of a model against a policy, as Load does.
func checkOps(dir string, p OpPolicy, tags ...string) error {
	dir, _, err := Find(dir)
	if err != nil {
		return err
	}
	model, err := readSavedModel(dir, withoutTensors)
	if err != nil {
		return err
	}
	return p.check(dir, model, append(tags, ServeTag))
}

func TestOpsErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := Ops(dir)
	assert.EqualError(t, err, dir+" is not a SavedModel: it has no saved_model.pb")
	assert.EqualError(t, checkOps(dir, OpPolicy{Standard: true}), err.Error())

	// A list of functions that is none, which Inspect does not read.
	list := &tfproto.AttrValue_ListValue{}
	list.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 9, protowire.BytesType), "\xff"))
	n := opNode("case", "Case")
	n.Attr = map[string]*tfproto.AttrValue{"branches": {Value: &tfproto.AttrValue_List{List: list}}}
	_, err = Ops(writeMetas(t, metaOf([]*tfproto.NodeDef{n})))
	assert.ErrorContains(t, err, "node case: ")
}

// FuzzOps holds that the operations of any saved_model.pb are listed or refused, and that the tensors, which
// are not read, do not matter.
func FuzzOps(f *testing.F) {
	constant := opNode("default", "Const")
	value := &tfproto.TensorProto{TensorContent: []byte("model")}
	constant.Attr = map[string]*tfproto.AttrValue{"value": {Value: &tfproto.AttrValue_Tensor{Tensor: value}}}
	for _, m := range []*tfproto.MetaGraphDef{
		metaOf(withNodes(saverNodes(), constant)),
		metaOf(withNodes(saverNodes(), opNode("y", "Identity", "r"))),
		metaOf(withNodes(saverFunctions(), branchNode("b", []string{"infer", "restore"}, "x")), infer(), save(),
			restore(opNode("r", "RestoreV2", "prefix", "n", "n"))),
		metaOf([]*tfproto.NodeDef{opNode("y", "MyOp")}, withAttr(infer(), "api_implements")),
	} {
		b, err := proto.Marshal(&tfproto.SavedModel{MetaGraphs: []*tfproto.MetaGraphDef{m}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, GraphFile), data, 0o666))
		reports, err := Ops(dir)
		whole := &tfproto.SavedModel{}
		if err != nil || proto.Unmarshal(data, whole) != nil {
			return
		}
		require.Len(t, whole.MetaGraphs, len(reports))
		for i, r := range reports {
			want, err := opReport(whole.MetaGraphs[i])
			require.NoError(t, err)
			assert.Equal(t, want, r)
			assert.Equal(t, r.Standard, len(r.Refused(OpPolicy{Standard: true})) == 0)
			total := 0
			for _, u := range r.Ops {
				total += u.Count
			}
			for _, n := range metaGraph(whole.MetaGraphs[i]).Ops {
				total -= n
			}
			assert.Zero(t, total)
		}
	})
}

// TestLoadStandard holds that models of other projects pass and run, with variables as each version of
// TensorFlow restores them.
func TestLoadStandard(t *testing.T) {
	for _, c := range []struct {
		dir, signature, input, output string
		shape                         tf.Shape
		want                          float32
	}{
		{"half_plus_two/00000123", DefaultSignature, "x", "y", tf.Shape{1, 1}, 5},
		{"graft_half_plus_two/00000123", DefaultSignature, "x", "y", tf.Shape{1, 1}, 5},
		{"java_saved_model", DefaultSignature, "x", "y", tf.Shape{1, 1}, 5},
		{"java_keras_model", "get_variable", "dummy", "output_0", nil, 2},
	} {
		t.Run(c.dir, func(t *testing.T) {
			testenv.TensorFlow(t)
			m, err := Load(testenv.Shared(t, "data", "savedmodels", c.dir), &Options{AllowOps: OpPolicy{Standard: true}})
			require.NoError(t, err)
			defer m.Close()
			f, err := m.Func(c.signature, []string{c.input}, []string{c.output})
			require.NoError(t, err)
			x, err := tf.NewTensor(c.shape, []float32{6})
			require.NoError(t, err)
			defer x.Close()
			out, err := f.Run(t.Context(), x)
			require.NoError(t, err)
			defer tf.CloseAll(out)
			got, err := tf.Values[float32](out[0])
			require.NoError(t, err)
			assert.Equal(t, []float32{c.want}, got)
		})
	}
}

// TestLoadsWhatIsChecked holds that TensorFlow reads saved_model.pb if there is another form of the graph, too.
func TestLoadsWhatIsChecked(t *testing.T) {
	testenv.TensorFlow(t)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(testenv.Shared(t, "data", "savedmodels", "half_plus_two", "00000123"))))
	for _, name := range []string{"saved_model.cpb", "saved_model.pbtxt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("garbage"), 0o666))
	}
	m, err := Load(dir, &Options{AllowOps: OpPolicy{Standard: true}})
	require.NoError(t, err)
	require.NoError(t, m.Close())
}
