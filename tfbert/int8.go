package tfbert

import (
	"fmt"
	"slices"

	"github.com/tfbert/go/internal/quantize"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// int8Layer holds the four products of a layer in integers of 8 bits. The shift and the scale of what the first and
// the third take are in a second layer norm, those of the context are in the product of the values.
type int8Layer struct {
	qkv, context, intermediate, output *quantize.Product
	qkvFold, intermediateFold          *quantize.Fold
}

// products are the products of a layer, in the order of the inputs that fused.layer keeps.
func (l *int8Layer) products() []*quantize.Product {
	return []*quantize.Product{l.qkv, l.context, l.intermediate, l.output}
}

// int8Graph builds the fused graph with the products of its layers in integers of 8 bits, which are oneDNN's
// operations. Their ranges are constants: oneDNN keeps what it prepares for a product under its ranges. Attention
// computes in a type of its own. All the rest is in float32: quantizing reads no other type.
func int8Graph(
	g *tf.Graph, c *Config, s Settings, weights weightReader, layers []int8Layer,
) (savedmodel.Content, error) {
	b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}, c}, weights: weights, dtype: tf.Float}
	ids, mask, segments, batch, seq := b.inputs(s.MaxSeqLength)
	b.batch, b.length = batch, seq
	adder := b.cast("bert/encoder/adder_attention", b.maskAdder(mask), dtypes[s.Int8.Attention])
	x, norm := b.embeddingSum(ids, segments), embeddingsScope+"/LayerNorm"
	for n := range layers {
		x, norm = b.int8Layer(layerScope(n), x, norm, adder, &layers[n])
	}
	return b.content(b.layerNorm(norm, x))
}

// int8Layer adds a layer, whose input is the layer norm of x. It returns the same of the next one.
func (b *fused) int8Layer(
	scope string, x tf.Output, norm string, adder tf.Output, l *int8Layer,
) (next tf.Output, nextNorm string) {
	residual := b.layerNorm(norm, x)
	self := scope + "/attention/self"
	y := b.quantize(self+"/quantize", b.foldedNorm(self+"/LayerNorm", x, norm, l.qkvFold), l.qkv.Input)
	y = b.int8MatMul(self+"/qkv/MatMul", y, l.qkv, adder.DataType(), "")
	y = b.cast(self+"/context", b.attend(self, y, adder), tf.Float)

	output := scope + "/attention/output/dense"
	y = b.quantize(output+"/quantize", y, l.context.Input)
	x, norm = b.int8MatMul(output+"/MatMul", y, l.context, tf.Float, "Add", residual), scope+"/attention/output/LayerNorm"
	residual = b.layerNorm(norm, x)

	inner := scope + "/intermediate"
	y = b.quantize(inner+"/quantize", b.foldedNorm(inner+"/LayerNorm", x, norm, l.intermediateFold), l.intermediate.Input)
	y = b.int8Intermediate(inner, y, l)
	return b.int8MatMul(scope+"/output/dense/MatMul", y, l.output, tf.Float, "Add", residual), scope + "/output/LayerNorm"
}

// int8Intermediate is the product with the activation, in integers. The activation is computed in float32 where the
// product does not have it.
func (b *fused) int8Intermediate(scope string, x tf.Output, l *int8Layer) tf.Output {
	activation := b.config.activation()
	if within := fusedActivation[activation]; within != "" {
		return b.int8Product(scope+"/dense/MatMul", x, l.intermediate, tf.Quint8, &l.output.Input, []string{within})
	}
	x = b.int8MatMul(scope+"/dense/MatMul", x, l.intermediate, tf.Float, "")
	return b.quantize(scope+"/output", b.activation(scope, activation, x), l.output.Input)
}

// foldedNorm is a layer norm whose gain and shift have those of the product behind it.
func (b *fused) foldedNorm(name string, x tf.Output, norm string, f *quantize.Fold) tf.Output {
	h := int64(b.config.HiddenSize)
	gamma := b.constant(name+"/gamma", tf.Float, tf.Shape{h}, func() ([]float32, error) {
		gamma, err := b.weights.Float32s(norm + "/gamma")
		folded := slices.Clone(gamma)
		for i := range folded {
			folded[i] /= f.Factor[i]
		}
		return folded, err
	})
	beta := b.constant(name+"/beta", tf.Float, tf.Shape{h}, func() ([]float32, error) {
		beta, err := b.weights.Float32s(norm + "/beta")
		folded := slices.Clone(beta)
		for i := range folded {
			folded[i] = (folded[i] - f.Shift[i]) / f.Factor[i]
		}
		return folded, err
	})
	return b.normalize(name, x, gamma, beta)
}

// quantize rounds to integers. oneDNN's operation does it in one pass over the numbers, while TensorFlow's own takes
// several. For a symmetric range it multiplies by 127.5 over the range, where the product multiplies by 127.
func (b *fused) quantize(name string, x tf.Output, s quantize.Scale) tf.Output {
	low, high, mode, dtype := s.Low(), s.High(), "MIN_FIRST", tf.Quint8
	if s.Sign {
		low, high, mode, dtype = 127.5/127*low, 127.5/127*high, "SCALED", tf.Qint8
	}
	return b.op("_MklQuantizeV2", name, attrs{
		"T": dtype, "mode": mode, "round_mode": "HALF_AWAY_FROM_ZERO", "ensure_minimum_range": float32(0),
		"narrow_range": false, "axis": -1, "_kernel": "QuantizedMklOp",
	}, x, b.scalar(name+"/min_range", float64(low)), b.scalar(name+"/max_range", float64(high)))
}

// int8MatMul is a product of integers with a result in a floating-point type, to which "Add" adds another tensor.
func (b *fused) int8MatMul(
	name string, x tf.Output, p *quantize.Product, dtype tf.DataType, then string, with ...tf.Output,
) tf.Output {
	var ops []string
	if then != "" {
		ops = []string{then}
	}
	return b.int8Product(name, x, p, dtype, nil, ops, with...)
}

// int8Product multiplies integers and weights of qint8, adds the bias, applies ops with their arguments, and turns
// the result into dtype: numbers, or integers of a scale.
func (b *fused) int8Product(
	name string, x tf.Output, p *quantize.Product, dtype tf.DataType, out *quantize.Scale, ops []string,
	with ...tf.Output,
) tf.Output {
	k := &p.Kernel
	columns := tf.Shape{int64(k.Columns)}
	kernel := b.data(name+"/kernel", tf.Qint8, tf.Shape{int64(k.Rows), int64(k.Columns)}, func() ([]byte, error) {
		bytes := make([]byte, len(k.Integers))
		for i, v := range k.Integers {
			bytes[i] = byte(v)
		}
		return bytes, nil
	})
	least := make([]float32, len(k.Ranges))
	for i, v := range k.Ranges {
		least[i] = -v
	}
	device := append(tf.OutputList{x, kernel, tf.AddConst(&b.Builder, name+"/bias", columns, p.Bias...)}, with...)
	host := tf.OutputList{
		b.scalar(name+"/min_a", float64(p.Input.Low())), b.scalar(name+"/max_a", float64(p.Input.High())),
		tf.AddConst(&b.Builder, name+"/min_b", columns, least...),
		tf.AddConst(&b.Builder, name+"/max_b", columns, k.Ranges...),
	}
	// The operation takes an addend of another type than its result for one of the same, and writes past its end.
	added, results, last := dtype, []tf.DataType{}, "Dequantize"
	for _, a := range with {
		if b.Err == nil && a.DataType() != dtype {
			b.Err = fmt.Errorf("%s: an addend of %v to a product in %v", name, a.DataType(), dtype)
		}
	}
	if out != nil {
		host = append(host, b.scalar(name+"/min_out", float64(out.Low())), b.scalar(name+"/max_out", float64(out.High())))
		added, results, last = tf.Float, []tf.DataType{tf.Float, tf.Float}, "Requantize"
	}
	if b.Err != nil {
		return tf.Output{}
	}
	types := func(l tf.OutputList) (types []tf.DataType) {
		for _, o := range l {
			types = append(types, o.DataType())
		}
		return types
	}
	mode := map[bool]string{true: "SCALED", false: "MIN_FIRST"}
	input := tf.Quint8
	if p.Input.Sign {
		input = tf.Qint8
	}
	return b.op("_QuantizedMatMul", name, attrs{
		"Tdevice_inputs": types(device), "Thost_inputs": types(host),
		"Tdevice_outputs": []tf.DataType{dtype}, "Thost_outputs": results,
		"T1": input, "T2": tf.Qint8, "Tbias": tf.Float, "U": added, "Tout": dtype,
		"transpose_a": false, "transpose_b": false, "is_weight_const": true, "is_bias_const": true,
		"fused_ops": append(append([]string{"BiasAdd"}, ops...), last), "leakyrelu_alpha": float32(0.2),
		"input_quant_mode": mode[p.Input.Sign], "output_quant_mode": mode[out == nil || out.Sign],
	}, device, host)
}
