package tfbert_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/x448/float16"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// An exporter makes the SavedModel of another exporter from an export of the toy checkpoint: the same
// computation behind another signature.
type exporter struct {
	graph     *tfproto.GraphDef
	meta      *tfproto.MetaGraphDef
	signature *tfproto.SignatureDef
}

// exported writes the toy model with the signature that edit makes, and returns its folder.
func exported(t testing.TB, from string, edit func(e *exporter)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, savedmodel.ExtraAssetsDir)))
	writeFile(t, toyVocab, dir, "vocab.txt")
	path := filepath.Join(dir, savedmodel.GraphFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	model := &tfproto.SavedModel{}
	require.NoError(t, proto.Unmarshal(b, model))
	meta := model.MetaGraphs[0]
	e := &exporter{graph: meta.GraphDef, meta: meta, signature: meta.SignatureDef[savedmodel.DefaultSignature]}
	edit(e)
	b, err = proto.Marshal(model)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b, 0o666))
	return dir
}

func attrType(d tf.DataType) *tfproto.AttrValue {
	return &tfproto.AttrValue{Value: &tfproto.AttrValue_Type{Type: int32(d)}}
}

func attrInt(i int64) *tfproto.AttrValue {
	return &tfproto.AttrValue{Value: &tfproto.AttrValue_I{I: i}}
}

func attrTypes(d ...tf.DataType) *tfproto.AttrValue {
	list := &tfproto.AttrValue_ListValue{}
	for _, d := range d {
		list.Type = append(list.Type, int32(d))
	}
	return &tfproto.AttrValue{Value: &tfproto.AttrValue_List{List: list}}
}

func protoShape(s tf.Shape) *tfproto.TensorShapeProto {
	p := tfproto.NewShape(s)
	p.UnknownRank = s == nil
	return p
}

type protoAttrs = map[string]*tfproto.AttrValue

// remove removes a node, whose users then take the tensor of another one of that name.
func (e *exporter) remove(name string) {
	e.graph.Node = slices.DeleteFunc(e.graph.Node, func(n *tfproto.NodeDef) bool { return n.Name == name })
}

func (e *exporter) node(op, name string, a protoAttrs, inputs ...string) string {
	e.graph.Node = append(e.graph.Node, &tfproto.NodeDef{Op: op, Name: name, Attr: a, Input: inputs})
	return name + ":0"
}

func info(tensor string, d tf.DataType, shape tf.Shape) *tfproto.TensorInfo {
	return &tfproto.TensorInfo{
		Encoding: &tfproto.TensorInfo_Name{Name: tensor}, Dtype: int32(d), TensorShape: protoShape(shape),
	}
}

// placeholder adds an input that nothing takes yet.
func (e *exporter) placeholder(key string, d tf.DataType, shape tf.Shape) string {
	name := "serving_default_" + strings.ReplaceAll(key, ":", "_")
	tensor := e.node("Placeholder", name, protoAttrs{
		"dtype": attrType(d), "shape": {Value: &tfproto.AttrValue_Shape{Shape: protoShape(shape)}}})
	e.signature.Inputs[key] = info(tensor, d, shape)
	return tensor
}

// input makes an input of a key and a type stand where the toy has one of run_squad.py's name.
func (e *exporter) input(as, key string, d tf.DataType, shape tf.Shape) {
	e.remove(as)
	delete(e.signature.Inputs, as)
	e.cast(e.placeholder(key, d, shape), d, tf.Int32, as)
}

func (e *exporter) cast(tensor string, from, to tf.DataType, name string) string {
	return e.node("Cast", name, protoAttrs{"SrcT": attrType(from), "DstT": attrType(to)}, tensor)
}

// inputs replaces all inputs by those of three keys and a type.
func (e *exporter) inputs(ids, mask, segments string, d tf.DataType, shape tf.Shape) {
	delete(e.signature.Inputs, "unique_ids")
	delete(e.signature.Outputs, "unique_ids")
	e.input("input_ids", ids, d, shape)
	e.input("input_mask", mask, d, shape)
	e.input("segment_ids", segments, d, shape)
}

// outputs renames the outputs.
func (e *exporter) outputs(start, end string) {
	s, n := e.signature.Outputs["start_logits"], e.signature.Outputs["end_logits"]
	e.signature.Outputs = map[string]*tfproto.TensorInfo{start: s, end: n}
}

// pack makes the two logits one output.
func (e *exporter) pack(key string, axis int64, shape tf.Shape) {
	packed := e.node("Pack", "packed", protoAttrs{"N": attrInt(2), "axis": attrInt(axis), "T": attrType(tf.Float)},
		"unstack:0", "unstack:1")
	e.signature.Outputs = map[string]*tfproto.TensorInfo{key: info(packed, tf.Float, shape)}
}

// as makes the two logits of another type.
func (e *exporter) as(d tf.DataType) {
	for i, key := range []string{"start_logits", "end_logits"} {
		e.signature.Outputs[key] = info(e.cast(fmt.Sprintf("unstack:%d", i), tf.Float, d, "cast/"+key), d, tf.Shape{-1, -1})
	}
}

// strings adds a constant of strings, as TensorFlow's C++ writes one or as Python does.
func (e *exporter) strings(name string, content bool, shape tf.Shape, values ...string) string {
	return addStrings(&e.graph.Node, name, content, shape, values...)
}

func addStrings(nodes *[]*tfproto.NodeDef, name string, content bool, shape tf.Shape, values ...string) string {
	t := &tfproto.TensorProto{Dtype: int32(tf.String), TensorShape: protoShape(shape)}
	for _, v := range values {
		if content {
			t.TensorContent = append(t.TensorContent, byte(len(v)))
		} else {
			t.StringVal = append(t.StringVal, []byte(v))
		}
	}
	if content {
		t.TensorContent = append(t.TensorContent, strings.Join(values, "")...)
	}
	*nodes = append(*nodes, &tfproto.NodeDef{Op: "Const", Name: name, Attr: protoAttrs{
		"dtype": attrType(tf.String), "value": {Value: &tfproto.AttrValue_Tensor{Tensor: t}}}})
	return name
}

// A parsed feature. A default is the one number that an example without it has.
type parsedFeature struct {
	name   string
	shape  tf.Shape
	preset *int64
}

func featureShapes(features []parsedFeature) *tfproto.AttrValue {
	list := &tfproto.AttrValue_ListValue{}
	for _, f := range features {
		list.Shape = append(list.Shape, protoShape(f.shape))
	}
	return &tfproto.AttrValue{Value: &tfproto.AttrValue_List{List: list}}
}

func addDefault(nodes *[]*tfproto.NodeDef, f parsedFeature) string {
	t := &tfproto.TensorProto{Dtype: int32(tf.Int64), TensorShape: protoShape(tf.Shape{0})}
	if f.preset != nil {
		t = &tfproto.TensorProto{Dtype: int32(tf.Int64), TensorShape: protoShape(f.shape),
			TensorContent: []byte{byte(*f.preset), 0, 0, 0, 0, 0, 0, 0}}
	}
	name := "default/" + f.name
	*nodes = append(*nodes, &tfproto.NodeDef{Op: "Const", Name: name, Attr: protoAttrs{
		"dtype": attrType(tf.Int64), "value": {Value: &tfproto.AttrValue_Tensor{Tensor: t}}}})
	return name
}

// examples makes one input of examples, parsed as TensorFlow 1 does.
func (e *exporter) examples(key string, to map[string]string, features ...parsedFeature) {
	e.signature.Inputs = map[string]*tfproto.TensorInfo{}
	inputs := []string{e.placeholder(key, tf.String, tf.Shape{-1}), e.strings("names", false, tf.Shape{0})}
	var defaults []string
	var types []tf.DataType
	for _, f := range features {
		inputs = append(inputs, e.strings("key/"+f.name, false, tf.Shape{}, f.name))
		defaults = append(defaults, addDefault(&e.graph.Node, f))
		types = append(types, tf.Int64)
	}
	e.node("ParseExample", "ParseExample/ParseExample", protoAttrs{
		"Nsparse": attrInt(0), "sparse_types": attrTypes(), "Ndense": attrInt(int64(len(features))),
		"Tdense": attrTypes(types...), "dense_shapes": featureShapes(features),
	}, append(inputs, defaults...)...)
	for i, f := range features {
		if as := to[f.name]; as != "" {
			e.remove(as)
			e.cast(fmt.Sprintf("ParseExample/ParseExample:%d", i), tf.Int64, tf.Int32, as)
		}
	}
	delete(e.signature.Outputs, "unique_ids")
}

// exampleFunction makes one input of examples, parsed in a function as TensorFlow 2 does.
func (e *exporter) exampleFunction(key string, features ...parsedFeature) {
	e.signature.Inputs = map[string]*tfproto.TensorInfo{}
	f := &tfproto.FunctionDef{Signature: &tfproto.OpDef{
		Name:     "__inference_serve_examples",
		InputArg: []*tfproto.OpDef_ArgDef{{Name: "examples", Type: int32(tf.String)}},
	}, Ret: map[string]string{}}
	keys := make([]string, len(features))
	var types []tf.DataType
	for i, feature := range features {
		keys[i] = feature.name
		types = append(types, tf.Int64)
	}
	inputs := []string{"examples",
		addStrings(&f.NodeDef, "names", false, tf.Shape{0}) + ":output:0",
		addStrings(&f.NodeDef, "sparse", false, tf.Shape{0}) + ":output:0",
		addStrings(&f.NodeDef, "dense", true, tf.Shape{int64(len(keys))}, keys...) + ":output:0",
		addStrings(&f.NodeDef, "ragged", false, tf.Shape{0}) + ":output:0",
	}
	for i, feature := range features {
		inputs = append(inputs, addDefault(&f.NodeDef, feature)+":output:0")
		f.Signature.OutputArg = append(f.Signature.OutputArg,
			&tfproto.OpDef_ArgDef{Name: feature.name, Type: int32(tf.Int64)})
		f.Ret[feature.name] = fmt.Sprintf("parse:dense_values:%d", i)
	}
	f.NodeDef = append(f.NodeDef, &tfproto.NodeDef{Op: "ParseExampleV2", Name: "parse", Input: inputs, Attr: protoAttrs{
		"num_sparse": attrInt(0), "sparse_types": attrTypes(),
		"ragged_value_types": attrTypes(), "ragged_split_types": attrTypes(),
		"Tdense": attrTypes(types...), "dense_shapes": featureShapes(features),
	}})
	e.graph.Library = &tfproto.FunctionDefLibrary{Function: []*tfproto.FunctionDef{f}}
	e.node("StatefulPartitionedCall", "call", protoAttrs{
		"Tin": attrTypes(tf.String), "Tout": attrTypes(types...),
		"f": {Value: &tfproto.AttrValue_Func{Func: &tfproto.NameAttrList{Name: f.Signature.Name}}},
	}, e.placeholder(key, tf.String, tf.Shape{-1}))
	for i, as := range []string{"input_mask", "segment_ids", "input_ids"} { // in the order of official keys
		e.remove(as)
		e.cast(fmt.Sprintf("call:%d", i), tf.Int64, tf.Int32, as)
	}
	delete(e.signature.Outputs, "unique_ids")
}

// rename moves the signature to another key.
func (e *exporter) rename(keys ...string) {
	e.meta.SignatureDef = map[string]*tfproto.SignatureDef{}
	for _, key := range keys {
		e.meta.SignatureDef[key] = e.signature
	}
}

var (
	dynamic = tf.Shape{-1, -1}
	ofTen   = tf.Shape{-1, 10}
)

// What other exporters write answers with the same bits as NVIDIA's signature does.
func TestMapping(t *testing.T) {
	toy := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	fixed := exportModel(t, newToy("gelu").write(t, "model.ckpt"), &tfbert.ExportOptions{MaxSeqLength: 10})
	features := randomWindows(5, 10)
	plain := openModel(t, toy, nil)
	want := predictOnce(t, plain, features...)
	noSegments := slices.Clone(features)
	for i := range noSegments {
		noSegments[i].SegmentIDs = make([]int32, 10)
	}
	withoutSegments := predictOnce(t, plain, noSegments...)

	one := int64(1)
	official := func(e *exporter) {
		e.inputs("input_word_ids", "input_mask", "input_type_ids", tf.Int32, dynamic)
	}
	parse := map[string]string{
		"input_ids": "input_ids", "input_mask": "input_mask", "segment_ids": "segment_ids", "unique_ids": "unique_ids",
	}
	for _, c := range []struct {
		name string
		from string // "": toy
		edit func(e *exporter)
		opts tfbert.Options
		text string // of the mapping, without the lines that most have
		want []squad.RawResult
		as   func(float32) float32
	}{
		{
			name: "NVIDIA", edit: func(*exporter) {},
			text: "inputs input_ids int32, input_mask int32, segment_ids int32, unique_ids int32",
		},
		{
			name: "NVIDIA in int64", edit: func(e *exporter) {
				e.inputs("input_ids", "input_mask", "segment_ids", tf.Int64, dynamic)
				e.input("unique_ids", "unique_ids", tf.Int64, tf.Shape{-1, 1})
			},
			text: "inputs input_ids int64, input_mask int64, segment_ids int64, unique_ids int64",
		},
		{
			name: "Hugging Face in int32", edit: func(e *exporter) {
				e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int32, dynamic)
			},
			text: "inputs input_ids int32, input_mask from attention_mask int32, segment_ids from token_type_ids int32",
		},
		{
			name: "Hugging Face in int64", from: fixed, edit: func(e *exporter) {
				e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int64, ofTen)
			},
			text: "inputs input_ids int64, input_mask from attention_mask int64, segment_ids from token_type_ids int64",
		},
		{
			name: "Keras's numbered outputs", edit: func(e *exporter) {
				e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int64, dynamic)
				e.outputs("output_0", "output_1")
			},
			text: "outputs start_logits from output_0 float32, end_logits from output_1 float32",
		},
		{
			name: "Keras's layers", edit: func(e *exporter) {
				official(e)
				e.outputs("bert_span_labeler", "bert_span_labeler_1")
				e.signature.Outputs["pooled"] = info("unstack:0", tf.Float, tf.Shape{-1, 768})
			},
			text: "outputs start_logits from bert_span_labeler float32, end_logits from bert_span_labeler_1 float32",
		},
		{
			name: "official", edit: official,
			text: "inputs input_ids from input_word_ids int32, input_mask int32, segment_ids from input_type_ids int32",
		},
		{
			name: "official positions", edit: func(e *exporter) {
				official(e)
				e.outputs("start_positions", "end_positions")
			},
			text: "outputs start_logits from start_positions float32, end_logits from end_positions float32",
		},
		{
			name: "official with unique_ids", edit: func(e *exporter) {
				official(e)
				e.input("unique_ids", "unique_ids", tf.Int64, tf.Shape{-1})
			},
			text: "inputs input_ids from input_word_ids int32, input_mask int32, segment_ids from input_type_ids int32, " +
				"unique_ids int64",
		},
		{
			name: "KerasNLP", edit: func(e *exporter) {
				e.input("input_ids", "token_ids", tf.Int32, dynamic)
				e.input("input_mask", "padding_mask", tf.Bool, dynamic)
			},
			text: "inputs input_ids from token_ids int32, input_mask from padding_mask bool, segment_ids int32, " +
				"unique_ids int32",
		},
		{
			name: "a mask of float", edit: func(e *exporter) { e.input("input_mask", "attention_mask", tf.Float, dynamic) },
			text: "inputs input_ids int32, input_mask from attention_mask float32, segment_ids int32, unique_ids int32",
		},
		{
			name: "names of tensors", edit: func(e *exporter) {
				e.inputs("bert/input_ids_1:0", "bert/input_mask_1:0", "bert/segment_ids_1:0", tf.Int32, dynamic)
				e.outputs("unstack:0", "unstack:1")
			},
			text: "outputs start_logits from unstack:0 float32, end_logits from unstack:1 float32",
		},
		{
			name: "parts of unstack", edit: func(e *exporter) { e.outputs("s", "e") },
			text: "outputs start_logits from s float32, end_logits from e float32",
		},
		{
			name: "unknown ranks", edit: func(e *exporter) {
				e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int64, nil)
				e.signature.Outputs = map[string]*tfproto.TensorInfo{
					"start_logits": info("unstack:0", tf.Float, nil), "end_logits": info("unstack:1", tf.Float, nil)}
			},
			text: "length any",
		},
		{
			name: "other outputs", edit: func(e *exporter) {
				e.signature.Outputs["hidden_states"] = info("bert/encoder/Reshape_2:0", tf.Float, tf.Shape{-1, -1, 8})
				e.signature.Outputs["start_index"] = info("input_ids:0", tf.Int32, dynamic)
				e.signature.Outputs["end_prob"] = info("unstack:1", tf.Float, dynamic)
			},
			text: "outputs start_logits float32, end_logits float32",
		},
		{
			name: "a column for each logit", edit: func(e *exporter) {
				for i, key := range []string{"start_logits", "end_logits"} {
					axis := e.node("Const", "axis"+key, protoAttrs{"dtype": attrType(tf.Int32), "value": {
						Value: &tfproto.AttrValue_Tensor{Tensor: &tfproto.TensorProto{Dtype: int32(tf.Int32),
							TensorShape: protoShape(tf.Shape{}), IntVal: []int32{2}}}}})
					e.signature.Outputs[key] = info(e.node("ExpandDims", "expand"+key, protoAttrs{"T": attrType(tf.Float),
						"Tdim": attrType(tf.Int32)}, fmt.Sprintf("unstack:%d", i), axis), tf.Float, tf.Shape{-1, -1, 1})
				}
			},
		},
		{
			name: "logits in the first dimension", edit: func(e *exporter) { e.pack("logits", 0, tf.Shape{2, -1, -1}) },
			text: "outputs start_logits from logits[0,...] float32, end_logits from logits[1,...] float32",
		},
		{
			name: "logits in the second dimension", edit: func(e *exporter) { e.pack("y", 1, tf.Shape{-1, 2, -1}) },
			text: "outputs start_logits from y[:,0,:] float32, end_logits from y[:,1,:] float32",
		},
		{
			name: "logits in the last dimension", edit: func(e *exporter) { e.pack("cls_squad_logits", 2, tf.Shape{-1, -1, 2}) },
			text: "outputs start_logits from cls_squad_logits[...,0] float32, end_logits from cls_squad_logits[...,1] float32",
		},
		{
			name: "logits of two windows", from: fixed, edit: func(e *exporter) { e.pack("logits", 2, tf.Shape{2, 10, 2}) },
			text: "batch 2, filled up with the last window",
		},
		{
			name: "a batch of one", edit: func(e *exporter) {
				e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int32, tf.Shape{1, -1})
			},
			text: "batch 1, filled up with the last window",
		},
		{
			name: "a batch of three", edit: func(e *exporter) {
				e.inputs("input_ids", "input_mask", "segment_ids", tf.Int32, tf.Shape{3, 10})
				e.input("unique_ids", "unique_ids", tf.Int32, tf.Shape{3})
				e.pack("logits", 0, tf.Shape{2, 3, 10})
			},
			text: "batch 3, filled up with the last window",
		},
		{
			name: "a batch of eight", edit: func(e *exporter) {
				e.inputs("input_ids", "input_mask", "segment_ids", tf.Int32, tf.Shape{8, 10})
			},
			text: "length 10 word pieces",
		},
		{
			name: "without segments", edit: func(e *exporter) {
				e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int32, dynamic)
				delete(e.signature.Inputs, "token_type_ids")
				e.remove("serving_default_token_type_ids")
				e.remove("segment_ids")
				e.node("ZerosLike", "segment_ids", protoAttrs{"T": attrType(tf.Int32)}, "input_ids")
			},
			text: "note it takes no segment_ids: unless it was trained without them, as DistilBERT is, " +
				"it cannot tell the question from the passage",
			want: withoutSegments,
		},
		{
			name: "a default", edit: func(e *exporter) {
				one := &tfproto.TensorProto{
					Dtype: int32(tf.Float), TensorShape: protoShape(tf.Shape{}), FloatVal: []float32{1},
				}
				e.node("Const", "one", protoAttrs{
					"dtype": attrType(tf.Float), "value": {Value: &tfproto.AttrValue_Tensor{Tensor: one}}})
				keep := e.node("PlaceholderWithDefault", "keep", protoAttrs{"dtype": attrType(tf.Float),
					"shape": {Value: &tfproto.AttrValue_Shape{Shape: protoShape(tf.Shape{})}}}, "one")
				e.signature.Inputs["keep_prob"] = info(keep, tf.Float, tf.Shape{})
			},
			text: "note its input keep_prob is left at its default",
		},
		{
			name: "an input that is not needed", edit: func(e *exporter) {
				e.signature.Outputs["loss"] = info(e.node("Identity", "loss", protoAttrs{"T": attrType(tf.Int32)},
					e.placeholder("label_ids", tf.Int32, tf.Shape{-1})), tf.Int32, tf.Shape{-1})
			},
			text: "note its input label_ids is left out: the logits do not depend on it",
		},
		{
			name: "float16", edit: func(e *exporter) { e.as(tf.Half) }, text: "outputs start_logits float16, end_logits float16",
			as: func(v float32) float32 { return float16.Fromfloat32(v).Float32() },
		},
		{
			name: "bfloat16", edit: func(e *exporter) { e.as(tf.Bfloat16) },
			text: "outputs start_logits bfloat16, end_logits bfloat16",
			as: func(v float32) float32 { // rounded to even
				bits := math.Float32bits(v)
				return math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
			},
		},
		{
			name: "float64", edit: func(e *exporter) { e.as(tf.Double) },
			text: "outputs start_logits float64, end_logits float64",
		},
		{
			name: "examples", edit: func(e *exporter) {
				e.examples("examples", parse, parsedFeature{name: "input_ids", shape: tf.Shape{10}},
					parsedFeature{name: "input_mask", shape: tf.Shape{10}}, parsedFeature{name: "segment_ids", shape: tf.Shape{10}},
					parsedFeature{name: "unique_ids", shape: tf.Shape{}}, parsedFeature{"is_impossible", tf.Shape{1}, &one})
			},
			text: "examples examples takes serialized tf.train.Example messages with these features",
		},
		{
			name: "examples parsed in a function", edit: func(e *exporter) {
				e.exampleFunction("inputs", parsedFeature{name: "input_mask", shape: tf.Shape{10}},
					parsedFeature{name: "input_type_ids", shape: tf.Shape{10}},
					parsedFeature{name: "input_word_ids", shape: tf.Shape{10}})
			},
			text: "inputs input_ids from input_word_ids int64, input_mask int64, segment_ids from input_type_ids int64",
		},
		{
			name: "another signature", edit: func(e *exporter) { e.rename("predict") },
			text: `note it has no signature "serving_default": "predict" is the only one that answers questions`,
		},
		{
			name: "a signature by name", edit: func(e *exporter) { e.rename("predict", "serving_default", "other") },
			opts: tfbert.Options{Signature: "predict"}, text: "signature predict, tags {serve}",
		},
		{
			name: "the default signature", edit: func(e *exporter) { e.rename("predict", "serving_default") },
			text: "signature serving_default, tags {serve}",
		},
		{
			name: "tags by name", edit: func(e *exporter) { e.meta.MetaInfoDef.Tags = []string{"eval"} },
			opts: tfbert.Options{Tags: []string{"eval"}}, text: "signature serving_default, tags {eval}",
		},
		{
			name: "tags", edit: func(e *exporter) { e.meta.MetaInfoDef.Tags = []string{"gpu", "serve"} },
			text: "note its graph has the tags {gpu,serve}",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := toy
			if c.from != "" {
				from = c.from
			}
			dir := exported(t, from, c.edit)
			read, err := tfbert.ReadMapping(dir, &c.opts)
			require.NoError(t, err)
			if c.text != "" {
				assert.Contains(t, squeezed(read.String()), "\n"+c.text+"\n")
			}
			m := openModel(t, dir, &c.opts)
			assert.Equal(t, read, m.Mapping())

			wanted := want
			switch n := int(read.Batch); {
			case c.want != nil:
				wanted = c.want
			case n > 0: // the bits depend on the size of the batch
				wanted = nil
				for i := 0; i < len(features); i += n {
					batch := slices.Clone(features[i:min(i+n, len(features))])
					rows := len(batch)
					for len(batch) < n {
						batch = append(batch, batch[rows-1])
					}
					wanted = append(wanted, predictOnce(t, plain, batch...)[:rows]...)
				}
			}
			if c.as != nil {
				wanted = nil
				for _, r := range want {
					wanted = append(wanted, squad.RawResult{
						UniqueID: r.UniqueID, StartLogits: mapped(r.StartLogits, c.as), EndLogits: mapped(r.EndLogits, c.as)})
				}
			}
			got := predictOnce(t, m, features...)
			for i := range got {
				assert.Equal(t, wanted[i], got[i])
			}
			_, err = m.Precision(t.Context())
			assert.NoError(t, err)
		})
	}
}

// squeezed makes each run of spaces one, and begins with a line break.
func squeezed(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	return "\n" + strings.Join(lines, "\n")
}

func mapped(values []float32, f func(float32) float32) []float32 {
	out := slices.Clone(values)
	for i := range out {
		out[i] = f(out[i])
	}
	return out
}

func TestMappingText(t *testing.T) {
	toy := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	dir := exported(t, toy, func(e *exporter) {
		e.inputs("input_ids", "attention_mask", "token_type_ids", tf.Int64, tf.Shape{-1, 384})
	})
	m, err := tfbert.ReadMapping(dir, nil)
	require.NoError(t, err)
	assert.Equal(t, `signature  serving_default, tags {serve}
inputs     input_ids int64, input_mask from attention_mask int64, segment_ids from token_type_ids int64
outputs    start_logits float32, end_logits float32
batch      any
length     384 word pieces
`, m.String())
	text, err := json.Marshal(m)
	require.NoError(t, err)
	assert.JSONEq(t, `{"tags": ["serve"], "signature": "serving_default",
		"inputs": [{"as": "input_ids", "key": "input_ids", "dtype": "int64"},
			{"as": "input_mask", "key": "attention_mask", "dtype": "int64"},
			{"as": "segment_ids", "key": "token_type_ids", "dtype": "int64"}],
		"outputs": [{"as": "start_logits", "key": "start_logits", "dtype": "float32"},
			{"as": "end_logits", "key": "end_logits", "dtype": "float32"}],
		"batch": -1, "length": 384}`, string(text))
}

// What does not answer questions is told so, with what it has and what is missing.
func TestMappingErrors(t *testing.T) {
	toy := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	ids := parsedFeature{name: "input_ids", shape: tf.Shape{10}}
	parse := map[string]string{"input_ids": "input_ids"}
	for _, c := range []struct {
		name string
		edit func(e *exporter)
		opts tfbert.Options
		want string // after what the signature takes and returns
	}{
		{
			"no mask", func(e *exporter) { e.input("input_mask", "mask_of", tf.Int32, dynamic) }, tfbert.Options{},
			"but it has no input input_mask (or attention_mask, padding_mask); " +
				"its input mask_of has no default, and is not one that tfbert knows",
		},
		{
			"positions", func(e *exporter) {
				e.needed(e.placeholder("position_ids", tf.Int32, dynamic), tf.Int32)
			}, tfbert.Options{},
			"but its input position_ids has no default, and is not one that tfbert knows",
		},
		{
			"training", func(e *exporter) {
				e.needed(e.placeholder("training", tf.Bool, tf.Shape{}), tf.Bool)
			}, tfbert.Options{},
			"but its input training has no default, and is not one that tfbert knows",
		},
		{
			"a placeholder that is not an input", func(e *exporter) {
				keep := e.placeholder("keep_prob", tf.Int32, dynamic)
				delete(e.signature.Inputs, "keep_prob")
				e.remove("segment_ids")
				delete(e.signature.Inputs, "segment_ids")
				e.node("Identity", "segment_ids", protoAttrs{"T": attrType(tf.Int32)}, keep)
			}, tfbert.Options{},
			"but its graph also needs a value for serving_default_keep_prob, which the signature does not take",
		},
		{
			"two masks", func(e *exporter) {
				e.input("input_mask", "attention_mask", tf.Int32, dynamic)
				e.needed(e.placeholder("padding_mask", tf.Int32, dynamic), tf.Int32)
			}, tfbert.Options{},
			"but its input padding_mask could be its input_mask as well",
		},
		{
			"its own mask and another", func(e *exporter) {
				e.needed(e.placeholder("attention_mask", tf.Int32, dynamic), tf.Int32)
			}, tfbert.Options{},
			"but its input attention_mask could be its input_mask as well",
		},
		{
			"ids of text", func(e *exporter) {
				e.signature.Inputs["input_ids"].Dtype = int32(tf.String)
			}, tfbert.Options{}, "but its input input_ids is string, not whole numbers",
		},
		{
			"text", func(e *exporter) { e.examples("text", nil); e.remove("ParseExample/ParseExample") }, tfbert.Options{},
			"but its input text takes text or other bytes, not tf.train.Example messages",
		},
		{
			"sparse ids", func(e *exporter) {
				sparse := &tfproto.TensorInfo_CooSparse{ValuesTensorName: "input_ids:0"}
				e.signature.Inputs["input_ids"].Encoding = &tfproto.TensorInfo_CooSparse_{CooSparse: sparse}
			}, tfbert.Options{}, "but its input input_ids is sparse",
		},
		{
			"no size", func(e *exporter) { e.signature.Inputs["input_ids"].TensorShape = protoShape(tf.Shape{-1, 0}) },
			tfbert.Options{}, "but its input_ids is of a size that no BERT has (0)",
		},
		{
			"any size", func(e *exporter) { e.signature.Inputs["input_ids"].TensorShape = protoShape(tf.Shape{1 << 50, -1}) },
			tfbert.Options{}, "but its input_ids is of a size that no BERT has (1125899906842624)",
		},
		{
			"vectors", func(e *exporter) { e.signature.Inputs["input_ids"].TensorShape = protoShape(tf.Shape{-1}) },
			tfbert.Options{}, "but its input_ids is not of a shape [batch,length]",
		},
		{
			"two lengths", func(e *exporter) {
				e.signature.Inputs["input_ids"].TensorShape = protoShape(tf.Shape{-1, 128})
				e.signature.Inputs["input_mask"].TensorShape = protoShape(tf.Shape{-1, 384})
			}, tfbert.Options{},
			"but its input_mask is of another size than its other tensors (384, not 128)",
		},
		{
			"positions, not logits", func(e *exporter) {
				e.signature.Outputs["start_logits"].Dtype = int32(tf.Int64)
			}, tfbert.Options{}, "but its output start_logits is int64, not dense floating-point numbers",
		},
		{
			"probabilities", func(e *exporter) { e.outputs("start_probs", "end_probs"); e.swap() }, tfbert.Options{},
			"but it has no outputs start_logits and end_logits, nor one that holds both",
		},
		{
			"no order", func(e *exporter) { e.outputs("a", "b"); e.swap() }, tfbert.Options{},
			"but nothing says which of its outputs a and b is start_logits",
		},
		{
			"two starts", func(e *exporter) {
				e.signature.Outputs["start_a"], e.signature.Outputs["start_b"] = info("unstack:0", tf.Float, dynamic),
					info("unstack:1", tf.Float, dynamic)
				delete(e.signature.Outputs, "start_logits")
			}, tfbert.Options{}, "but both start_a and start_b could be its start_logits",
		},
		{
			"no end", func(e *exporter) { delete(e.signature.Outputs, "end_logits") }, tfbert.Options{},
			"but it has no output end_logits",
		},
		{
			"an embedding", func(e *exporter) {
				e.signature.Outputs = map[string]*tfproto.TensorInfo{
					"pooled_output":   info("unstack:0", tf.Float, tf.Shape{-1, 768}),
					"sequence_output": info("unstack:1", tf.Float, tf.Shape{-1, -1, 768}),
				}
			}, tfbert.Options{}, "but it has no outputs start_logits and end_logits, nor one that holds both",
		},
		{
			"a class", func(e *exporter) {
				e.signature.Outputs = map[string]*tfproto.TensorInfo{"logits": info("unstack:0", tf.Float, tf.Shape{-1, 2})}
			}, tfbert.Options{}, "but it has no outputs start_logits and end_logits, nor one that holds both",
		},
		{
			"[2,?,2]", func(e *exporter) { e.pack("logits", 0, tf.Shape{2, -1, 2}) }, tfbert.Options{},
			"but the shape of its output logits does not say which dimension is that of start and end",
		},
		{
			"[?,?,?]", func(e *exporter) { e.pack("logits", 0, tf.Shape{-1, -1, -1}) }, tfbert.Options{},
			"but it has no outputs start_logits and end_logits, nor one that holds both",
		},
		{
			"a required feature", func(e *exporter) {
				e.examples("examples", parse, ids, parsedFeature{name: "input_mask", shape: tf.Shape{10}},
					parsedFeature{name: "label"})
			}, tfbert.Options{}, "but its feature label has no default, and is not one that tfbert knows",
		},
		{
			"no signature", func(e *exporter) { e.rename() }, tfbert.Options{},
			`no signature "serving_default", only (none)`,
		},
		{
			"several signatures", func(e *exporter) { e.rename("a", "b") }, tfbert.Options{},
			`no signature "serving_default", only a, b; the signatures a, b do`,
		},
		{
			"the default does not fit", func(e *exporter) {
				e.rename("predict")
				e.meta.SignatureDef["serving_default"] = &tfproto.SignatureDef{Outputs: e.signature.Outputs}
			}, tfbert.Options{}, `; the signature "predict" does`,
		},
		{
			"no such signature", func(*exporter) {}, tfbert.Options{Signature: "predict"},
			`no signature "predict", only serving_default; the signature "serving_default" does`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := exported(t, toy, c.edit)
			_, err := tfbert.ReadMapping(dir, &c.opts)
			var wrong *tfbert.SignatureError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, dir, wrong.Dir)
			assert.ErrorContains(t, err, dir+" does not answer questions: ")
			assert.True(t, strings.HasSuffix(err.Error(), c.want), "%v", err)
			_, opened := tfbert.Open(dir, &c.opts)
			assert.Equal(t, err, opened)
		})
	}

	_, err := tfbert.ReadMapping(toy, &tfbert.Options{Tags: []string{"serve", "tpu"}})
	var tags *savedmodel.TagsError
	require.ErrorAs(t, err, &tags)
	assert.Equal(t, [][]string{{"serve"}}, tags.Have)
}

// needed makes the first of the logits depend on a tensor.
func (e *exporter) needed(tensor string, d tf.DataType) {
	e.node("Identity", "read", protoAttrs{"T": attrType(d)}, tensor)
	logits := e.node("Identity", "dependent", protoAttrs{"T": attrType(tf.Float)}, "unstack:0", "^read")
	e.signature.Outputs["start_logits"].Encoding = &tfproto.TensorInfo_Name{Name: logits}
}

// swap makes the tensors of two outputs those of no unstack.
func (e *exporter) swap() {
	for i, key := range slices.Sorted(maps.Keys(e.signature.Outputs)) {
		e.signature.Outputs[key].Encoding = &tfproto.TensorInfo_Name{Name: e.node("Identity", fmt.Sprintf("plain_%d_", i),
			protoAttrs{"T": attrType(tf.Float)}, fmt.Sprintf("unstack:%d", i))}
	}
}

// Other projects' models do not answer questions, and are told so without a vocabulary.
func TestMappingForeign(t *testing.T) {
	for dir, want := range map[string]string{
		"half_plus_two/00000123": `signature "serving_default" takes x float32 [?,1] and returns y float32 [?,1], but ` +
			"it has no input input_ids (or input_word_ids, token_ids); " +
			"it has no input input_mask (or attention_mask, padding_mask); " +
			"it has no outputs start_logits and end_logits, nor one that holds both",
		"java_keras_model": `no signature "serving_default", only __saved_model_init_op, add, ` +
			"get_const_matrix, get_const_scalar, get_const_vector, get_variable; none of these does",
	} {
		_, err := tfbert.Open(testenv.Shared(t, "data", "savedmodels", filepath.FromSlash(dir)), nil)
		assert.ErrorContains(t, err, filepath.FromSlash(dir)+" does not answer questions: "+want)
	}
	_, err := tfbert.ReadMapping(testenv.Shared(t, "data", "savedmodels", "half_plus_two", "00000123"),
		&tfbert.Options{Signature: "regress_x_to_y"})
	assert.ErrorContains(t, err, "it has no feature input_ids (or input_word_ids, token_ids)")
}

// A signature that says another type than the graph has is found before anything runs.
func TestMappingLies(t *testing.T) {
	toy := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	dir := exported(t, toy, func(e *exporter) { e.signature.Inputs["input_ids"].Dtype = int32(tf.Int64) })
	_, err := tfbert.Open(dir, nil)
	assert.ErrorContains(t, err, "the signature has input_ids int64 [?,?], but the graph's input_ids:0 is int32")
}
