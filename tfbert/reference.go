package tfbert

import (
	"fmt"
	"math"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// referenceGraph builds the graph that modeling.py and run_squad.py build for prediction, operation
// for operation, so that TensorFlow rewrites it to the same kernels and the logits are the same
// bits. The weights are resource variables. A length of 0 leaves the sequence length dynamic.
func referenceGraph(g *tf.Graph, c *Config, length int) (savedmodel.Content, error) {
	b := &reference{graphBuilder: graphBuilder{tf.Builder{Graph: g}, c}, variables: map[string]*savedmodel.Variable{}}
	content := savedmodel.Content{Graph: g}
	for _, w := range c.weights() {
		v, err := savedmodel.AddVariable(g, w.name, tf.Float, w.shape)
		if err != nil {
			return savedmodel.Content{}, err
		}
		b.variables[w.name] = v
		content.Variables = append(content.Variables, v)
	}
	signature := b.build(length)
	if b.Err != nil {
		return savedmodel.Content{}, fmt.Errorf("reference graph: %w", b.Err)
	}
	content.Signatures = []savedmodel.Signature{signature}
	return content, nil
}

// reference builds the reference graph. Its methods follow the functions of modeling.py.
type reference struct {
	graphBuilder
	variables map[string]*savedmodel.Variable

	batch, length dim
}

// read returns the value of a variable, as its conversion to a tensor does in Python.
func (b *reference) read(user, variable string) tf.Output {
	v := b.variables[variable]
	return b.op("ReadVariableOp", user+"/ReadVariableOp", attrs{"dtype": v.DType}, v.Handle)
}

func (b *reference) build(length int) savedmodel.Signature {
	ids, mask, segments, batch, seq := b.inputs(length)
	b.batch, b.length = batch, seq
	return b.signature(b.head(b.encoder(b.embeddings(ids, segments), b.attentionMask(mask))))
}

// embeddings is embedding_lookup and embedding_postprocessor.
func (b *reference) embeddings(ids, segments tf.Output) tf.Output {
	const scope = "bert/embeddings"
	hidden := static(b.config.HiddenSize)

	flat := b.reshape(scope+"/Reshape", ids, static(-1))
	words := b.op("ResourceGather", scope+"/GatherV2", attrs{"dtype": tf.Float},
		b.variables[scope+"/word_embeddings"].Handle, flat)
	words = b.op("Identity", scope+"/GatherV2/Identity", nil, words)
	x := b.reshape(scope+"/Reshape_1", words, b.batch, b.length, hidden)

	// The 19.03 scripts look the two segment embeddings up by a one-hot product; later ones gather.
	flat = b.reshape(scope+"/Reshape_2", segments, static(-1))
	oneHot := b.op("OneHot", scope+"/one_hot", nil, flat,
		tf.AddConst(&b.Builder, scope+"/one_hot/depth", nil, int32(b.config.TypeVocabSize)),
		b.scalar(scope+"/one_hot/on_value", 1), b.scalar(scope+"/one_hot/off_value", 0))
	types := b.op("MatMul", scope+"/MatMul", nil, oneHot, b.read(scope+"/MatMul", scope+"/token_type_embeddings"))
	x = b.op("AddV2", scope+"/add", nil, x, b.reshape(scope+"/Reshape_3", types, b.batch, b.length, hidden))

	positions := b.op("Slice", scope+"/Slice", nil, b.read(scope+"/Slice", scope+"/position_embeddings"),
		b.ints(scope+"/Slice/begin", 0, 0), b.shape(scope+"/Slice/size", b.length, static(-1)))
	x = b.op("AddV2", scope+"/add_1", nil, x, b.reshape(scope+"/Reshape_4", positions, static(1), b.length, hidden))
	return b.layerNorm(scope+"/LayerNorm", x, 2, b.read)
}

// attentionMask is create_attention_mask_from_input_mask: 1 for a position that may be attended to, else 0.
func (b *reference) attentionMask(mask tf.Output) tf.Output {
	const scope = "bert/encoder"
	to := b.op("Cast", scope+"/Cast", attrs{"DstT": tf.Float},
		b.reshape(scope+"/Reshape", mask, b.batch, static(1), b.length))
	ones := b.op("Fill", scope+"/ones", nil, b.shape(scope+"/ones/shape", b.batch, b.length, static(1)),
		b.scalar(scope+"/ones/Const", 1))
	return b.op("Mul", scope+"/mul", nil, ones, to)
}

// encoder is transformer_model.
func (b *reference) encoder(x, mask tf.Output) tf.Output {
	hidden := static(b.config.HiddenSize)
	x = b.reshape("bert/encoder/Reshape_1", x, static(-1), hidden)
	for n := range b.config.NumHiddenLayers {
		layer := layerScope(n)
		attention := b.attention(layer+"/attention/self", x, mask)
		attention = b.dense(layer+"/attention/output/dense", attention)
		attention = b.layerNorm(layer+"/attention/output/LayerNorm",
			b.op("AddV2", layer+"/attention/output/add", nil, attention, x), 1, b.read)
		intermediate := b.dense(layer+"/intermediate/dense", attention)
		intermediate = b.activation(layer+"/intermediate/dense", b.config.activation(), intermediate)
		x = b.layerNorm(layer+"/output/LayerNorm",
			b.op("AddV2", layer+"/output/add", nil, b.dense(layer+"/output/dense", intermediate), attention), 1, b.read)
	}
	return b.reshape("bert/encoder/Reshape_2", x, b.batch, b.length, hidden)
}

// attention is attention_layer.
func (b *reference) attention(scope string, x, mask tf.Output) tf.Output {
	heads, size := b.config.NumAttentionHeads, b.config.HiddenSize/b.config.NumAttentionHeads
	split := func(n string, x tf.Output) tf.Output {
		x = b.reshape(scope+"/Reshape"+n, x, b.batch, b.length, static(heads), static(size))
		return b.transpose(scope+"/transpose"+n, x, 0, 2, 1, 3)
	}
	query, key := b.dense(scope+"/query", x), b.dense(scope+"/key", x)
	value := b.dense(scope+"/value", x)
	scores := b.op("BatchMatMulV2", scope+"/MatMul", attrs{"adj_y": true}, split("", query), split("_1", key))
	scores = b.op("Mul", scope+"/Mul", nil, scores, b.scalar(scope+"/Mul/y", 1/math.Sqrt(float64(size))))

	mask = b.op("ExpandDims", scope+"/ExpandDims", nil, mask, b.ints(scope+"/ExpandDims/dim", 1))
	adder := b.op("Mul", scope+"/mul_1", nil,
		b.op("Sub", scope+"/sub", nil, b.scalar(scope+"/sub/x", 1), mask), b.scalar(scope+"/mul_1/y", -10000))
	probs := b.op("Softmax", scope+"/Softmax", nil, b.op("AddV2", scope+"/add", nil, scores, adder))

	context := b.op("BatchMatMulV2", scope+"/MatMul_1", nil, probs, split("_2", value))
	context = b.transpose(scope+"/transpose_3", context, 0, 2, 1, 3)
	return b.reshape(scope+"/Reshape_3", context, static(-1), static(heads*size))
}

// head is the layer of run_squad.py's create_model.
func (b *reference) head(x tf.Output) (start, end tf.Output) {
	x = b.reshape("Reshape", x, static(-1), static(b.config.HiddenSize))
	logits := b.op("MatMul", "MatMul", attrs{"transpose_b": true}, x, b.read("MatMul", "cls/squad/output_weights"))
	logits = b.op("BiasAdd", "BiasAdd", nil, logits, b.read("BiasAdd", "cls/squad/output_bias"))
	logits = b.transpose("transpose", b.reshape("Reshape_1", logits, b.batch, b.length, static(2)), 2, 0, 1)
	logits = b.op("Unpack", "unstack", attrs{"num": 2, "axis": 0}, logits)
	return tf.Output{Op: logits.Op, Index: 0}, tf.Output{Op: logits.Op, Index: 1}
}

// dense is tf.layers.dense without its activation.
func (b *reference) dense(scope string, x tf.Output) tf.Output {
	x = b.op("MatMul", scope+"/MatMul", nil, x, b.read(scope+"/MatMul", scope+"/kernel"))
	return b.op("BiasAdd", scope+"/BiasAdd", nil, x, b.read(scope+"/BiasAdd", scope+"/bias"))
}
