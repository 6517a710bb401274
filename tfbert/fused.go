package tfbert

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// weightReader returns the values of a weight by its name, as a checkpoint does.
type weightReader interface {
	Float32s(name string) ([]float32, error)
}

// fusedGraph builds the inference graph in the fewest and largest operations, with the weights as constants
// of one type: oneDNN reorders a constant once and keeps the copy, but casts and reorders a variable at every
// run. The graph computes what the reference graph computes, to the precision of the type.
func fusedGraph(g *tf.Graph, c *Config, s Settings, weights weightReader) (savedmodel.Content, error) {
	b := &fused{
		graphBuilder: graphBuilder{tf.Builder{Graph: g}, c}, weights: weights,
		dtype: dtypes[s.Precision], ops: s.Ops,
	}
	ids, mask, segments, batch, seq := b.inputs(s.MaxSeqLength)
	b.batch, b.length = batch, seq
	x, adder := b.embeddings(ids, segments), b.maskAdder(mask)
	for n := range c.NumHiddenLayers {
		x = b.layer(layerScope(n), x, adder)
	}
	return b.content(x)
}

// content ends the graph with the head, whose input is x.
func (b *fused) content(x tf.Output) (savedmodel.Content, error) {
	signature := b.signature(b.head(x))
	if b.Err != nil {
		return savedmodel.Content{}, fmt.Errorf("fused graph: %w", b.Err)
	}
	return savedmodel.Content{Graph: b.Graph, Signatures: []savedmodel.Signature{signature}, Constants: b.constants}, nil
}

// dtypes are the types of the fused graph.
var dtypes = map[savedmodel.Precision]tf.DataType{
	savedmodel.FP32: tf.Float, savedmodel.FP16: tf.Half, savedmodel.BF16: tf.Bfloat16,
}

// fused builds the fused graph.
type fused struct {
	graphBuilder
	dtype     tf.DataType
	ops       string
	weights   weightReader
	constants []savedmodel.Constant

	batch, length dim

	multiplied []tf.Output // the inputs of the four products of the last layer
}

// constant adds a constant whose values are made of weights when the model is written.
func (b *fused) constant(name string, dtype tf.DataType, shape tf.Shape, values func() ([]float32, error)) tf.Output {
	return b.data(name, dtype, shape, func() ([]byte, error) {
		v, err := values()
		if err != nil {
			return nil, err
		}
		return encode(v, dtype), nil
	})
}

// data adds a constant of the bytes that are made when the model is written.
func (b *fused) data(name string, dtype tf.DataType, shape tf.Shape, bytes func() ([]byte, error)) tf.Output {
	c := savedmodel.Constant{Name: name, DType: dtype, Shape: shape, Data: bytes}
	b.constants = append(b.constants, c)
	return savedmodel.AddConstant(&b.Builder, c)
}

// weight adds a weight of the checkpoint as it is.
func (b *fused) weight(name string, dtype tf.DataType, shape ...int64) tf.Output {
	return b.constant(name, dtype, shape, func() ([]float32, error) { return b.weights.Float32s(name) })
}

// encode returns the little-endian bytes of values in a type, rounded to the nearest, ties to even.
func encode(values []float32, dtype tf.DataType) []byte {
	data := make([]byte, 0, dtype.Size()*len(values))
	switch dtype {
	case tf.Half:
		for _, v := range values {
			data = binary.LittleEndian.AppendUint16(data, uint16(roundFloat16(v)))
		}
	case tf.Bfloat16:
		for _, v := range values {
			data = binary.LittleEndian.AppendUint16(data, uint16(roundBFloat16(v)))
		}
	default:
		for _, v := range values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	return data
}

func roundFloat16(v float32) tf.Float16 { return tf.Float16(float16.Fromfloat32(v)) }

func roundBFloat16(v float32) tf.BFloat16 {
	bits := math.Float32bits(v)
	if v != v {
		return tf.BFloat16(bits>>16 | 0x40) // a NaN must not round to infinity
	}
	return tf.BFloat16((bits + 0x7fff + bits>>16&1) >> 16)
}

func (b *fused) cast(name string, x tf.Output, dtype tf.DataType) tf.Output {
	if dtype == x.DataType() {
		return x
	}
	return b.op("Cast", name, attrs{"DstT": dtype}, x)
}

const embeddingsScope = "bert/embeddings"

// embeddings adds the three embeddings and normalizes them in float32, once for a run.
func (b *fused) embeddings(ids, segments tf.Output) tf.Output {
	x := b.layerNorm(embeddingsScope+"/LayerNorm", b.embeddingSum(ids, segments))
	return b.cast(embeddingsScope+"/output", x, b.dtype)
}

// embeddingSum adds the three embeddings in float32, as rows.
func (b *fused) embeddingSum(ids, segments tf.Output) tf.Output {
	const scope = embeddingsScope
	c := b.config
	hidden := int64(c.HiddenSize)
	flat := func(name string, x tf.Output) tf.Output { return b.reshape(scope+"/"+name, x, static(-1)) }
	axis := tf.AddConst(&b.Builder, scope+"/axis", nil, int32(0))
	gather := func(name string, table, indices tf.Output) tf.Output {
		return b.op("GatherV2", scope+"/"+name, nil, table, indices, axis)
	}
	wordTable := b.weight(scope+"/word_embeddings", b.dtype, int64(c.VocabSize), hidden)
	words := gather("words", wordTable, flat("ids", ids))
	words = b.cast(scope+"/words_float", words, tf.Float)
	typeTable := b.weight(scope+"/token_type_embeddings", tf.Float, int64(c.TypeVocabSize), hidden)
	types := gather("types", typeTable, flat("segments", segments))
	x := b.op("AddV2", scope+"/add", nil, words, types)

	positions := b.op("Slice", scope+"/Slice", nil,
		b.weight(scope+"/position_embeddings", tf.Float, int64(c.MaxPositionEmbeddings), hidden),
		b.ints(scope+"/Slice/begin", 0, 0), b.shape(scope+"/Slice/size", b.length, static(-1)))
	x = b.reshape(scope+"/windows", x, b.batch, b.length, static(c.HiddenSize))
	x = b.op("AddV2", scope+"/add_1", nil, x, positions)
	return b.reshape(scope+"/rows", x, static(-1), static(c.HiddenSize))
}

// maskAdder returns what is added to the scores of every layer, as [batch,1,1,length]: 0 for a position that
// may be attended to, else -10000.
func (b *fused) maskAdder(mask tf.Output) tf.Output {
	const scope = "bert/encoder"
	mask = b.reshape(scope+"/mask", mask, b.batch, static(1), static(1), b.length)
	x := b.op("Cast", scope+"/Cast", attrs{"DstT": tf.Float}, mask)
	x = b.op("Sub", scope+"/sub", nil, b.scalar(scope+"/sub/x", 1), x)
	x = b.op("Mul", scope+"/mul", nil, x, b.scalar(scope+"/mul/y", -10000))
	return b.cast(scope+"/adder", x, b.dtype)
}

func (b *fused) layer(scope string, x, adder tf.Output) tf.Output {
	h, i := int64(b.config.HiddenSize), int64(b.config.IntermediateSize)
	context := b.attention(scope+"/attention/self", x, adder)
	y := b.dense(scope+"/attention/output/dense", context, h, h, "Add", x)
	y = b.layerNorm(scope+"/attention/output/LayerNorm", y)
	z := b.intermediate(scope+"/intermediate", y)
	b.multiplied = []tf.Output{x, context, y, z}
	z = b.dense(scope+"/output/dense", z, i, h, "Add", y)
	return b.layerNorm(scope+"/output/LayerNorm", z)
}

// intermediate is the layer with the activation, which is computed in float32 where no operation has it.
func (b *fused) intermediate(scope string, x tf.Output) tf.Output {
	activation := b.config.activation()
	within := fusedActivation[activation]
	y := b.dense(scope+"/dense", x, int64(b.config.HiddenSize), int64(b.config.IntermediateSize), within)
	if within != "" || activation == linear {
		return y
	}
	y = b.activation(scope, activation, b.cast(scope+"/input", y, tf.Float))
	return b.cast(scope+"/output", y, b.dtype)
}

// fusedActivation names the activations that _FusedMatMul computes with the product.
var fusedActivation = map[string]string{geluTanh: "GeluApproximate", relu: "Relu", tanh: "Tanh"}

// dense is a dense layer and what follows it: an activation, or the sum with another tensor ("Add").
func (b *fused) dense(scope string, x tf.Output, in, out int64, then string, with ...tf.Output) tf.Output {
	ops := []string{"BiasAdd"}
	if then != "" {
		ops = append(ops, then)
	}
	w, transposed := b.kernel(scope+"/kernel", in, out, func() ([]float32, error) {
		return b.weights.Float32s(scope + "/kernel")
	})
	args := append([]tf.Output{b.weight(scope+"/bias", b.dtype, out)}, with...)
	return b.matMul(scope+"/MatMul", x, w, transposed, ops, args...)
}

// kernel adds the kernel of a dense layer, and reports whether it is transposed. With directOps a product packs its
// kernel at every run. Where the rows of a kernel lie a multiple of 2 KB apart, they compete for the same few lines
// of the first-level cache, and packing takes as long as the product of 128 rows.
func (b *fused) kernel(
	name string, in, out int64, values func() ([]float32, error),
) (w tf.Output, transposed bool) {
	if b.ops != directOps || out%512 != 0 {
		return b.constant(name, b.dtype, tf.Shape{in, out}, values), false
	}
	return b.constant(name, b.dtype, tf.Shape{out, in}, func() ([]float32, error) {
		v, err := values()
		if err != nil {
			return nil, err
		}
		return transpose(v, int(in), int(out)), nil
	}), true
}

// matMul multiplies and applies ops to the product, with their arguments, in one operation.
func (b *fused) matMul(name string, x, w tf.Output, transposed bool, ops []string, args ...tf.Output) tf.Output {
	if b.ops == plainOps {
		return b.plainMatMul(name, x, w, transposed, ops, args)
	}
	a := attrs{"fused_ops": ops, "num_args": len(args), "transpose_b": transposed}
	return b.oneDNN("_FusedMatMul", "_MklNativeFusedMatMul", name, a, x, w, tf.OutputList(args))
}

// oneDNN adds an operation that TensorFlow rewrites to oneDNN's, or that one itself.
func (b *fused) oneDNN(rewritten, own, name string, a attrs, inputs ...tf.Input) tf.Output {
	if b.ops != directOps {
		return b.op(rewritten, name, a, inputs...)
	}
	if a == nil {
		a = attrs{}
	}
	a["_kernel"] = "MklNameChangeOp"
	return b.op(own, name, a, inputs...)
}

// attention computes queries, keys and values by one product, with the scale of the scores in its weights.
func (b *fused) attention(scope string, x, adder tf.Output) tf.Output {
	hidden := int64(b.config.HiddenSize)
	joined := func(suffix string) func() ([]float32, error) {
		return func() ([]float32, error) { return sideBySide(b.config, b.weights, scope, suffix) }
	}
	kernel, transposed := b.kernel(scope+"/qkv/kernel", hidden, 3*hidden, joined("/kernel"))
	bias := b.constant(scope+"/qkv/bias", b.dtype, tf.Shape{3 * hidden}, joined("/bias"))
	return b.attend(scope, b.matMul(scope+"/qkv/MatMul", x, kernel, transposed, []string{"BiasAdd"}, bias), adder)
}

// attend returns the context of queries, keys and values. It lays the three out for the products by head with one
// transposition.
func (b *fused) attend(scope string, x, adder tf.Output) tf.Output {
	hidden, heads := b.config.HiddenSize, b.config.NumAttentionHeads
	x = b.reshape(scope+"/Reshape", x, b.batch, b.length, static(3), static(heads), static(hidden/heads))
	x = b.transpose(scope+"/transpose", x, 2, 0, 3, 1, 4)
	query := b.op("Unpack", scope+"/unstack", attrs{"num": 3, "axis": 0}, x)
	if b.Err != nil {
		return tf.Output{}
	}
	key, value := query.Op.Output(1), query.Op.Output(2)
	context := b.context(scope, query, key, value, adder)
	context = b.transpose(scope+"/transpose_1", context, 0, 2, 1, 3)
	return b.reshape(scope+"/Reshape_1", context, static(-1), static(hidden))
}

// context weighs the values by the softmax of the scores.
func (b *fused) context(scope string, query, key, value, adder tf.Output) tf.Output {
	probs := b.oneDNN("Softmax", "_MklSoftmax", scope+"/Softmax", nil, b.scores(scope, query, key, adder))
	return b.oneDNN("BatchMatMulV2", "_MklBatchMatMulV2", scope+"/MatMul_1", nil, probs, value)
}

// scores multiplies queries and keys and adds the mask's adder. oneDNN's operation also takes a scale, which
// is 1 here. It has only this name, which TensorFlow's own optimizer uses.
func (b *fused) scores(scope string, query, key, adder tf.Output) tf.Output {
	if b.ops == plainOps {
		x := b.op("BatchMatMulV2", scope+"/MatMul", attrs{"adj_y": true}, query, key)
		return b.op("AddV2", scope+"/add", nil, x, adder)
	}
	a := attrs{"adj_y": true, "fused_ops": []string{"Mul", "Add"}, "num_args": 2}
	scale := b.scalarOf(query.DataType(), scope+"/MatMul/scale", 1)
	return b.op("_MklFusedBatchMatMulV2", scope+"/MatMul", a, query, key, tf.OutputList{scale, adder})
}

// sideBySide joins the weights of queries, keys and values of a layer's attention along their last axis: matrices of
// HiddenSize columns, or vectors. The queries are scaled.
func sideBySide(c *Config, weights weightReader, scope, suffix string) ([]float32, error) {
	width := c.HiddenSize
	parts := []string{scope + "/query", scope + "/key", scope + "/value"}
	scales := []float32{float32(1 / math.Sqrt(float64(width/c.NumAttentionHeads))), 1, 1}
	var joined []float32
	for i, part := range parts {
		v, err := weights.Float32s(part + suffix)
		if err != nil {
			return nil, err
		}
		if joined == nil {
			joined = make([]float32, len(v)*len(parts))
		}
		for row := 0; row*width < len(v); row++ {
			to := joined[(row*len(parts)+i)*width:]
			for j, x := range v[row*width : (row+1)*width] {
				to[j] = x * scales[i]
			}
		}
	}
	return joined, nil
}

// layerNorm normalizes rows in the type of x.
func (b *fused) layerNorm(scope string, x tf.Output) tf.Output {
	if b.ops == plainOps {
		return b.plainLayerNorm(scope, x)
	}
	h, dtype := int64(b.config.HiddenSize), x.DataType()
	return b.normalize(scope, x, b.weight(scope+"/gamma", dtype, h), b.weight(scope+"/beta", dtype, h))
}

// normalize is oneDNN's layer norm.
func (b *fused) normalize(name string, x, gamma, beta tf.Output) tf.Output {
	return b.op("_MklLayerNorm", name, attrs{"epsilon": float32(b.config.layerNormEpsilon())}, x, gamma, beta)
}

// head computes the logits in float32, because those of a smaller type would have many ties.
func (b *fused) head(x tf.Output) (start, end tf.Output) {
	h := int64(b.config.HiddenSize)
	x = b.cast("cls/squad/input", x, tf.Float)
	logits := b.matMul("cls/squad/MatMul", x, b.weight("cls/squad/output_weights", tf.Float, 2, h), true,
		[]string{"BiasAdd"}, b.weight("cls/squad/output_bias", tf.Float, 2))
	logits = b.reshape("cls/squad/Reshape", logits, b.batch, b.length, static(2))
	logits = b.op("Unpack", "unstack", attrs{"num": 2, "axis": 2}, logits)
	if b.Err != nil {
		return tf.Output{}, tf.Output{}
	}
	return logits, logits.Op.Output(1)
}
