package tfbert

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/quantize"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// needInt8 skips a test where int8 cannot run, and returns the bits of weights that are right here.
func needInt8(t *testing.T) int {
	t.Helper()
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	bits, err := int8Bits()
	if err != nil {
		t.Skipf("int8 cannot run here: %v", err)
	}
	t.Logf("weights in %d bits", bits)
	return bits
}

// runGraph runs what build makes.
func runGraph(t *testing.T, c *Config, weights weightReader, build func(b *fused) tf.OutputList) [][]float32 {
	t.Helper()
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}, c}, dtype: tf.Float, weights: weights,
		batch: static(blockBatch), length: static(blockLength)}
	outputs := build(b)
	require.NoError(t, b.Err)
	feeds, err := constantFeeds(g, b.constants)
	require.NoError(t, err)
	defer closeFeeds(&err, feeds)
	session := blockSession(t, g)
	defer session.Close()
	out, _, err := session.Run(t.Context(), feeds, outputs, nil)
	require.NoError(t, err)
	defer tf.CloseAll(out)
	var values [][]float32
	for _, o := range out {
		v, err := tf.Values[float32](o)
		require.NoError(t, err)
		values = append(values, v)
	}
	return values
}

// integers reads a tensor of integers as numbers.
func (b *fused) integers(name string, x tf.Output) tf.Output {
	if b.Err != nil {
		return tf.Output{}
	}
	dtype := tf.Int8
	if x.DataType() == tf.Quint8 {
		dtype = tf.Uint8
	}
	return b.cast(name, b.op("Bitcast", name+"/bits", attrs{"type": dtype}, x), tf.Float)
}

func matrixOf(seed uint64, rows, columns int) quantize.Matrix {
	return quantize.Matrix{Rows: rows, Columns: columns, Data: normalValues(seed, rows*columns)}
}

// weightsOf makes integers that no product here gets wrong: of any size for a CPU with units for them, and else of
// pairs that fill 16 bits.
func weightsOf(bits, rows, columns int) quantize.Weights {
	r := rand.New(rand.NewPCG(uint64(rows), uint64(columns)))
	w := quantize.Weights{Rows: rows, Columns: columns, Integers: make([]int8, rows*columns)}
	for i := range w.Integers {
		v := r.IntN(128)
		if row := i / columns; bits == 7 && row%2 == 1 {
			v = min(128-int(max(w.Integers[i-columns], -w.Integers[i-columns])), 127)
		}
		if r.IntN(2) == 0 {
			v = -v
		}
		w.Integers[i] = int8(v)
	}
	for range columns {
		w.Ranges = append(w.Ranges, 0.1+r.Float32())
	}
	return w
}

// Every form of a product and of quantizing computes what the same computes in exact integers, to the rounding of
// float32. The shapes are those that oneDNN has different kernels for.
func TestInt8Products(t *testing.T) {
	bits := needInt8(t)
	signed, unsigned := quantize.Scale{Step: 0.02, Sign: true}, quantize.Scale{Step: 0.02, Zero: 9}
	gelu := splittable[geluTanh]
	activations := map[string]func(float32) float32{
		"": func(v float32) float32 { return v }, "GeluApproximate": gelu, "Relu": splittable[relu],
		"Tanh": func(v float32) float32 { return float32(math.Tanh(float64(v))) },
	}
	for _, shape := range [][3]int{{1, 16, 24}, {3, 10, 7}, {blockRows, 96, 128}, {70, 256, 64}} {
		rows, inner, columns := shape[0], shape[1], shape[2]
		for _, input := range []quantize.Scale{signed, unsigned} {
			x, addend := matrixOf(1, rows, inner), matrixOf(2, rows, columns)
			for i := range x.Data {
				x.Data[i] *= 5 // beyond the range here and there
			}
			p := &quantize.Product{Input: input, Kernel: weightsOf(bits, inner, columns), Bias: normalValues(3, columns)}
			output := quantize.Scale{Step: 0.05, Zero: 40}

			// What the integers make.
			exact := make([]float64, rows*columns)
			integers := make([]float32, len(x.Data))
			for i, v := range x.Data {
				integers[i] = float32(input.Integer(v))
			}
			for r := range rows {
				for c := range columns {
					sum := 0
					for k := range inner {
						sum += (int(integers[r*inner+k]) - input.Zero) * int(p.Kernel.Integers[k*columns+c])
					}
					exact[r*columns+c] = float64(sum)*float64(input.Step)*float64(p.Kernel.Ranges[c])/127 + float64(p.Bias[c])
				}
			}
			names := []string{"", "GeluApproximate", "Relu", "Tanh"}
			got := runGraph(t, blockShape, nil, func(b *fused) tf.OutputList {
				y := b.quantize("quantize", tf.AddConst(&b.Builder, "x", tf.Shape{int64(rows), int64(inner)}, x.Data...), input)
				a := tf.AddConst(&b.Builder, "addend", tf.Shape{int64(rows), int64(columns)}, addend.Data...)
				outputs := tf.OutputList{
					b.integers("rounded", y), b.int8MatMul("plain", y, p, tf.Float, ""), b.int8MatMul("add", y, p, tf.Float, "Add", a),
				}
				for _, name := range names {
					var ops []string
					if name != "" {
						ops = []string{name}
					}
					z := b.int8Product("requantize"+name, y, p, tf.Quint8, &output, ops)
					outputs = append(outputs, b.integers("requantized"+name, z))
				}
				return outputs
			})
			assertAlmost(t, integers, got[0], 0, 1) // to the one that is as near
			largest := 0.
			for _, v := range exact {
				largest = max(largest, math.Abs(v))
			}
			for i, v := range exact {
				assert.InDelta(t, v, got[1][i], 1e-5*largest, "%v", shape)
				assert.InDelta(t, v+float64(addend.Data[i]), got[2][i], 1e-5*largest, "%v", shape)
			}
			for n, name := range names {
				want := make([]float32, len(exact))
				for i, v := range exact {
					want[i] = float32(output.Integer(activations[name](float32(v))))
				}
				assertAlmost(t, want, got[3+n], 0.01, 1)
			}
		}
	}
}

// assertAlmost compares numbers of which a share may differ by as much as most.
func assertAlmost(t *testing.T, want, got []float32, share, most float64) {
	t.Helper()
	require.Len(t, got, len(want))
	different := 0
	for i, v := range want {
		if v != got[i] {
			different++
			assert.InDelta(t, v, got[i], most)
		}
	}
	assert.LessOrEqual(t, float64(different), share*float64(len(want))+1)
}

// What the operation would take for a tensor of its own type, and write past the end of, is never written.
func TestInt8Addend(t *testing.T) {
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}, blockShape}, dtype: tf.Float}
	scale := quantize.Scale{Step: 1, Sign: true}
	x := tf.AddConst(&b.Builder, "x", tf.Shape{2, 2}, 1, 2, 3, float32(4))
	p := &quantize.Product{Input: scale, Kernel: weightsOf(7, 2, 2), Bias: make([]float32, 2)}
	b.int8MatMul("product", b.quantize("quantize", x, scale), p, tf.Bfloat16, "Add", x)
	require.EqualError(t, b.Err, "product: an addend of float32 to a product in bfloat16")
}

// A layer in int8 computes what the layer in float32 does, to the noise of its integers, whatever its activation is.
func TestInt8Layer(t *testing.T) {
	bits := needInt8(t)
	weights := blockWeights{map[string][]int64{}}
	for _, w := range blockShape.weights() {
		weights.shapes[w.name] = w.shape
	}
	for _, activation := range []string{"gelu", "relu", "tanh", "", "gelu_python", "swish"} {
		config := *blockShape
		config.HiddenAct = activation
		k, rows := layerCalibrator(t, &config, weights, bits)
		layer, err := k.layer(0, weights)
		require.NoError(t, err, activation)
		want := slices.Concat(k.batches[0].x)
		for _, attention := range []tf.DataType{tf.Float, tf.Bfloat16} {
			build := func(b *fused) tf.OutputList {
				x := tf.AddConst(&b.Builder, "x", tf.Shape{blockRows, int64(config.HiddenSize)}, rows...)
				mask := tf.AddConst(&b.Builder, "mask", tf.Shape{blockBatch, blockLength}, k.batches[0].mask...)
				adder := b.cast("adder", b.maskAdder(mask), attention)
				y, norm := b.int8Layer(layerScope(0), x, embeddingsScope+"/LayerNorm", adder, layer)
				return tf.OutputList{b.layerNorm(norm, y)}
			}
			if missing := bfloat16Missing(); attention == tf.Bfloat16 && missing != "" {
				t.Logf("attention in bfloat16 is built and not run: %s", missing)
				g, err := tf.NewGraph()
				require.NoError(t, err)
				b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}, &config}, dtype: tf.Float, weights: weights,
					batch: static(blockBatch), length: static(blockLength)}
				build(b)
				require.NoError(t, b.Err)
				require.NoError(t, g.Close())
				continue
			}
			got := runGraph(t, &config, weights, build)[0]
			signal, noise := 0., 0.
			for i, v := range want {
				signal += float64(v) * float64(v)
				noise += float64(v-got[i]) * float64(v-got[i])
			}
			t.Logf("%q, attention in %v: %.1f dB", activation, attention, 10*math.Log10(signal/noise))
			assert.Greater(t, 10*math.Log10(signal/noise), 25., activation)
		}
		for p, product := range layer.products() {
			assert.Greater(t, product.Decibels(), 20., "%s %s", activation, productNames[p])
			assert.False(t, math.IsNaN(product.Decibels()))
		}
	}
}

// layerCalibrator returns a calibrator whose one batch has random rows behind the layer norm of the embeddings, and
// the rows before it.
func layerCalibrator(t *testing.T, c *Config, weights weightReader, bits int) (*calibrator, []float32) {
	products, err := newMultiplier(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, products.Close()) })
	mask := slices.Repeat([]int32{1}, blockRows)
	k := &calibrator{
		ctx: t.Context(), config: c, ops: plainOps, tokens: blockRows, step: func() {},
		quantizer: quantize.Quantizer{Bits: bits, MatMul: products.MatMul},
		batches: []*windowBatch{{shape: tf.Shape{blockBatch, blockLength}, ids: make([]int32, blockRows),
			mask: mask, segments: make([]int32, blockRows)}},
	}
	rows := normalValues(1, blockRows*c.HiddenSize)
	require.NoError(t, k.run(weights, func(b *fused, _ *calibratorInputs) []tf.Output {
		x := tf.AddConst(&b.Builder, "x", tf.Shape{blockRows, int64(c.HiddenSize)}, rows...)
		return []tf.Output{b.layerNorm(embeddingsScope+"/LayerNorm", x)}
	}, func(*windowBatch, [][]float32) {}))
	return k, rows
}

// Of a file with more text than is needed, windows are taken evenly.
func TestReadWindows(t *testing.T) {
	vocab, err := wordpiece.ReadVocab(strings.NewReader("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n"))
	require.NoError(t, err)
	passage := strings.Repeat("a ", 300)
	for questions, want := range map[int]int{3: 3, 400: 200} {
		var text strings.Builder
		text.WriteString(`{"version":"1.1","data":[{"title":"t","paragraphs":[`)
		for i := range questions {
			if i > 0 {
				text.WriteString(",")
			}
			fmt.Fprintf(&text, `{"context":%q,"qas":[{"id":"%d","question":"a","answers":[]}]}`, passage, i)
		}
		text.WriteString("]}]}")
		opened := 0
		windows, tokens, err := readWindows(func() (io.ReadCloser, error) {
			opened++
			return io.NopCloser(strings.NewReader(text.String())), nil
		}, &squad.Featurizer{Tokenizer: &wordpiece.Tokenizer{Vocab: vocab}})
		require.NoError(t, err)
		assert.Len(t, windows, want)
		assert.Equal(t, 304*want, tokens)
		assert.LessOrEqual(t, tokens, calibrationTokens)
		assert.Equal(t, 2, opened)

		rows := 0
		for _, b := range batchWindows(windows) {
			assert.LessOrEqual(t, len(b.ids), batchTokens)
			assert.Equal(t, b.shape, tf.Shape{int64(len(b.mask) / 304), 304})
			rows += int(b.shape[0])
		}
		assert.Equal(t, want, rows)
	}
}
