package tfbert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/tfbert/go/internal/cpu"
	"github.com/tfbert/go/internal/probe"
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

// Int8Error reports that a model in int8 cannot be written or run here.
type Int8Error struct {
	Dir    string // of the model; "" if none is there yet
	Reason string
}

func (e *Int8Error) Error() string {
	if e.Dir == "" {
		return "int8 cannot run here: " + e.Reason
	}
	return fmt.Sprintf("%s is in int8 and cannot run here: %s", e.Dir, e.Reason)
}

// Int8Support returns an [*Int8Error] if this machine cannot run models in int8. They need oneDNN's products of
// integers, which libraries for x86 CPUs have. It loads TensorFlow and runs a few small products.
func Int8Support() error {
	if err := tf.Load(""); err != nil {
		return err
	}
	_, err := chooseInt8()
	return err
}

// chooseInt8 returns the settings of an export for this machine.
func chooseInt8() (*Int8Settings, error) {
	bits, err := int8Bits()
	if err != nil {
		return nil, &Int8Error{Reason: err.Error()}
	}
	s := &Int8Settings{WeightBits: bits, Attention: savedmodel.FP32}
	if missing := bfloat16Missing(); missing == "" {
		cost, err := probe.BFloat16Cost()
		if err != nil {
			return nil, err
		}
		if cost <= worthwhile {
			s.Attention = savedmodel.BF16
		}
	}
	return s, nil
}

// check returns an [*Int8Error] if a model with these settings cannot run here, or would compute something else.
func (s *Int8Settings) check(dir string) error {
	bits, err := int8Bits()
	switch {
	case err != nil:
		return &Int8Error{dir, err.Error()}
	case s.WeightBits > bits:
		return &Int8Error{dir, fmt.Sprintf("its weights have %d bits, and without VNNI or AMX this CPU adds products of "+
			"more than %d in 16 bits, which overflow", s.WeightBits, bits)}
	}
	if missing := bfloat16Missing(); s.Attention == savedmodel.BF16 && missing != "" {
		return &Int8Error{dir, "its attention is in bfloat16, and " + missing}
	}
	return nil
}

// bfloat16Missing returns why products with results in bfloat16 must not run here, or "". They cannot be tried:
// where oneDNN has none, it ends the process.
func bfloat16Missing() string {
	if name := maxISA(); name != "" {
		return name + " takes units of this CPU away"
	}
	if info := cpu.This(); !info.Has("avx512_bf16") && !info.Has("amx_bf16") {
		return "this CPU has no units for bfloat16 (avx512_bf16, amx_bf16)"
	}
	return ""
}

// maxISA returns the name of the variable that hides units of this CPU from oneDNN, or "" if none is set.
func maxISA() string {
	for _, name := range []string{"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"} {
		if v := strings.ToUpper(os.Getenv(name)); v != "" && v != "DEFAULT" && v != "ALL" {
			return name
		}
	}
	return ""
}

// int8Bits returns the bits of the weights whose products are right here: 8, or 7 where they are added in 16 bits. What
// the library has is found by running it.
var int8Bits = sync.OnceValues(func() (int, error) {
	ops, err := tf.OpList()
	if err != nil {
		return 0, err
	}
	if !bytes.Contains(ops, []byte("_QuantizedMatMul")) {
		return 0, fmt.Errorf("TensorFlow %s does not have the operation _QuantizedMatMul", tf.Version())
	}
	info := cpu.This()
	vnni := slices.ContainsFunc([]string{"avx512_vnni", "avx_vnni", "amx_int8"}, info.Has)
	if vnni && probeInt8(127, 127) == nil {
		return 8, nil
	}
	if err := probeInt8(127, 1); err != nil {
		return 0, fmt.Errorf("TensorFlow %s has no products of 8-bit integers for this CPU: %w", tf.Version(), err)
	}
	return 7, nil
})

// probeInt8 runs each of the products of an int8 graph, and returns an error if one cannot run or is wrong. The
// weights of even rows are even, those of odd rows odd.
func probeInt8(even, odd int8) (err error) {
	const size = 64
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}, &Config{HiddenSize: size}}, dtype: tf.Float}
	kernel := quantize.Weights{Rows: size, Columns: size}
	for r := range size {
		kernel.Integers = append(kernel.Integers, slices.Repeat([]int8{[]int8{even, odd}[r%2]}, size)...)
		kernel.Ranges = append(kernel.Ranges, 127)
	}
	product := func(s quantize.Scale) *quantize.Product {
		return &quantize.Product{Input: s, Kernel: kernel, Bias: make([]float32, size)}
	}
	weights := size / 2 * (float64(even) + float64(odd)) // of a column
	input, output := quantize.Scale{Step: 1. / 127, Sign: true}, quantize.Scale{Step: float32(weights / 255)}

	ones := tf.AddConst(&b.Builder, "ones", tf.Shape{2, size}, slices.Repeat([]float32{1}, 2*size)...)
	x := b.quantize("quantize", ones, input)
	results := []tf.Output{
		b.int8MatMul("plain", x, product(input), tf.Float, ""), b.int8MatMul("add", x, product(input), tf.Float, "Add", ones),
		b.int8MatMul("unsigned", b.quantize("quantize_unsigned",
			b.op("Mul", "mul", nil, ones, b.scalar("weights", weights)), output), product(output), tf.Float, ""),
	}
	want := []float64{weights, weights + 1, weights * weights}
	for _, name := range slices.Sorted(maps.Values(fusedActivation)) {
		y := b.int8Product(name, x, product(input), tf.Quint8, &output, []string{name})
		results = append(results, b.int8MatMul(name+"_output", y, product(output), tf.Float, ""))
		if name == fusedActivation[tanh] {
			want = append(want, float64(output.Round(1))*weights)
		} else {
			want = append(want, weights*weights)
		}
	}
	// What else of oneDNN the graph is made of, by numbers that make 0.
	row := tf.AddConst(&b.Builder, "row", tf.Shape{size}, make([]float32, size)...)
	y := b.reshape("heads", b.normalize("norm", ones, row, row), static(1), static(1), static(2), static(size))
	adder := tf.AddConst(&b.Builder, "adder", tf.Shape{1, 1, 1, 2}, 0, float32(0))
	y = b.reshape("scores", b.scores("scores", y, y, adder), static(2), static(2))
	y = b.matMul("head", y, y, true, []string{"BiasAdd"}, tf.AddConst(&b.Builder, "bias", tf.Shape{2}, 0, float32(0)))
	results, want = append(results, y), append(want, 0)
	if b.Err != nil {
		return b.Err
	}
	session, err := probe.NewSession(g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	feeds, err := constantFeeds(g, b.constants)
	defer func() { closeFeeds(&err, feeds) }()
	if err != nil {
		return err
	}
	out, _, err := session.Run(context.Background(), feeds, results, nil)
	if err != nil {
		return err
	}
	defer tf.CloseAll(out)
	for i, t := range out {
		values, err := tf.Values[float32](t)
		if err != nil {
			return err
		}
		for _, v := range values {
			if math.Abs(float64(v)-want[i]) > 1e-4*weights {
				return fmt.Errorf("%s is %v, not %v", results[i].Op.Name(), v, want[i])
			}
		}
	}
	return nil
}
