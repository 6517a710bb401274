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
	"github.com/tfbert/go/internal/quantize"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// Int8Support returns an [*Int8Error] if this machine cannot run models in int8. They need oneDNN's products of
// integers, which libraries for x86 CPUs have. It loads TensorFlow and runs a few small products.
func Int8Support() error {
	if err := tf.Load(""); err != nil {
		return err
	}
	_, err := chooseInt8()
	return err
}

// chooseInt8 returns the settings of an export for this machine. They do not depend on a measurement, so that an
// export is the same each time: with AMX bfloat16 is always faster than float32.
func chooseInt8() (*Int8Settings, error) {
	bits, err := int8Bits()
	if err != nil {
		return nil, &Int8Error{Reason: err.Error()}
	}
	s := &Int8Settings{WeightBits: bits, Attention: savedmodel.FP32}
	if bfloat16Missing() == "" && cpu.This().Has("amx_bf16") {
		s.Attention = savedmodel.BF16
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
		b.int8MatMul("plain", x, product(input), tf.Float, ""),
		b.int8MatMul("add", x, product(input), tf.Float, "Add", ones),
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
	var out []*tf.Tensor
	defer func() { tf.CloseAll(out) }()
	if err := b.withSession(func(session *tf.Session, constants []tf.Feed) (err error) {
		out, _, err = session.Run(context.Background(), constants, results, nil)
		return err
	}); err != nil {
		return err
	}
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
