package savedmodel

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// TestFeatures reads what foreign graphs parse: ParseExample of TensorFlow 1.1 and 1.14.
func TestFeatures(t *testing.T) {
	for _, dir := range []string{"half_plus_two", "graft_half_plus_two"} {
		info, err := Inspect(testenv.Shared(t, "data", "savedmodels", dir, "00000123"))
		require.NoError(t, err)
		s, err := info.MetaGraphs[0].Signature("regress_x_to_y")
		require.NoError(t, err)
		in, err := s.Input("inputs")
		require.NoError(t, err)
		require.Len(t, in.Features, 2)
		assert.Equal(t, "x float32 [1]", in.Features[0].String())
		assert.True(t, in.Features[0].Required)
		assert.Equal(t, "x2 float32 [1]", in.Features[1].String())
		assert.False(t, in.Features[1].Required, "it has a default")
		text, err := json.Marshal(in)
		require.NoError(t, err)
		assert.JSONEq(t, `{"key": "inputs", "name": "tf_example:0", "dtype": "string", "shape": null, "features": [
			{"name": "x", "dtype": "float32", "shape": [1], "required": true},
			{"name": "x2", "dtype": "float32", "shape": [1], "required": false}]}`, string(text))
	}
}

// TestFeaturesOfFunctions: the search follows calls, also those that never end, and takes all kinds of features.
func TestFeaturesOfFunctions(t *testing.T) {
	names := func(name string, list ...string) *tfproto.NodeDef {
		tensor := &tfproto.TensorProto{Dtype: int32(tf.String), TensorShape: tfproto.NewShape([]int64{int64(len(list))})}
		for _, v := range list { // as TensorFlow's C++ writes them
			tensor.TensorContent = append(tensor.TensorContent, byte(len(v)))
		}
		for _, v := range list {
			tensor.TensorContent = append(tensor.TensorContent, v...)
		}
		return &tfproto.NodeDef{Op: "Const", Name: name, Attr: map[string]*tfproto.AttrValue{
			"value": {Value: &tfproto.AttrValue_Tensor{Tensor: tensor}}}}
	}
	types := func(d ...int32) *tfproto.AttrValue {
		return &tfproto.AttrValue{Value: &tfproto.AttrValue_List{List: &tfproto.AttrValue_ListValue{Type: d}}}
	}
	call := func(name, function string, inputs ...string) *tfproto.NodeDef {
		return &tfproto.NodeDef{Op: "PartitionedCall", Name: name, Input: inputs, Attr: map[string]*tfproto.AttrValue{
			"f": {Value: &tfproto.AttrValue_Func{Func: &tfproto.NameAttrList{Name: function}}}}}
	}
	function := func(name, argument string, nodes ...*tfproto.NodeDef) *tfproto.FunctionDef {
		return &tfproto.FunctionDef{NodeDef: nodes, Signature: &tfproto.OpDef{
			Name: name, InputArg: []*tfproto.OpDef_ArgDef{{Name: "other"}, {Name: argument}}}}
	}
	parse := &tfproto.NodeDef{
		Op: "ParseExampleV2", Name: "parse",
		Input: []string{"identity:output:0", "names:output:0", "sparse:output:0", "dense:output:0", "ragged:output:0"},
		Attr: map[string]*tfproto.AttrValue{
			"Tdense": types(int32(tf.Int64)), "sparse_types": types(int32(tf.Float)),
			"ragged_value_types": types(int32(tf.String)),
			"dense_shapes": {Value: &tfproto.AttrValue_List{List: &tfproto.AttrValue_ListValue{
				Shape: []*tfproto.TensorShapeProto{tfproto.NewShape([]int64{384})}}}},
		},
	}
	loop := call("loop", "loop", "x", "x")
	model := &tfproto.SavedModel{MetaGraphs: []*tfproto.MetaGraphDef{{
		GraphDef: &tfproto.GraphDef{
			Node: []*tfproto.NodeDef{
				{Op: "Placeholder", Name: "examples"}, call("missing", "nowhere", "examples"),
				call("endless", "loop", "examples", "examples"), call("call", "outer", "^examples", "examples:0"),
			},
			Library: &tfproto.FunctionDefLibrary{Function: []*tfproto.FunctionDef{
				function("loop", "x", loop), function("outer", "a", call("b", "inner", "other", "a")),
				function("inner", "c", &tfproto.NodeDef{Op: "Identity", Name: "identity", Input: []string{"c"}}, parse,
					names("names"), names("sparse", "s"), names("dense", "input_ids", "more"), names("ragged", "r")),
			}},
		},
		SignatureDef: map[string]*tfproto.SignatureDef{"serve": {Inputs: map[string]*tfproto.TensorInfo{
			"examples": {Encoding: &tfproto.TensorInfo_Name{Name: "examples:0"}, Dtype: int32(tf.String)}}}},
	}}}
	b, err := proto.Marshal(model)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, GraphFile), b, 0o666))
	info, err := Inspect(dir)
	require.NoError(t, err)
	assert.Equal(t, []Feature{
		{Name: "input_ids", DType: tf.Int64, Shape: tf.Shape{384}, Required: true},
		{Name: "more", Required: true}, {Name: "s", DType: tf.Float}, {Name: "r", DType: tf.String},
	}, info.MetaGraphs[0].Signatures[0].Inputs[0].Features)
}

// TestNeeds: an output names what it has to be fed with, except inputs with a default and what is behind
// a tensor that is fed.
func TestNeeds(t *testing.T) {
	tensors := func(names ...string) map[string]*tfproto.TensorInfo {
		infos := map[string]*tfproto.TensorInfo{}
		for _, name := range names {
			infos[name] = &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_Name{Name: name + ":0"}}
		}
		return infos
	}
	m := metaGraph(&tfproto.MetaGraphDef{
		GraphDef: &tfproto.GraphDef{Node: []*tfproto.NodeDef{
			{Op: "Placeholder", Name: "raw"}, {Op: "Cast", Name: "x", Input: []string{"raw"}},
			{Op: "Placeholder", Name: "keep_prob"}, {Op: "Placeholder", Name: "rate"}, {Op: "Placeholder", Name: "label"},
			{Op: "Const", Name: "false"}, {Op: "PlaceholderWithDefault", Name: "training", Input: []string{"false"}},
			{Op: "Mul", Name: "y", Input: []string{"x", "keep_prob:0", "training", "^rate"}},
			{Op: "Sub", Name: "loss", Input: []string{"y", "label"}},
		}},
		SignatureDef: map[string]*tfproto.SignatureDef{
			"serve": {Inputs: tensors("x", "training", "label"), Outputs: tensors("y", "loss")},
		},
	})
	s := m.Signatures[0]
	assert.Equal(t, []string{"keep_prob", "label", "rate", "x"}, s.Outputs[0].Needs, "loss")
	assert.Equal(t, []string{"keep_prob", "rate", "x"}, s.Outputs[1].Needs, "y")
	assert.Equal(t, []bool{false, true, false}, []bool{s.Inputs[0].Optional, s.Inputs[1].Optional, s.Inputs[2].Optional})
}
