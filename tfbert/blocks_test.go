package tfbert

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/probe"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// blockShape is a model small enough to look at, and blockRows the tokens of its two windows.
var blockShape = &Config{VocabSize: 40, HiddenSize: 16, NumHiddenLayers: 1, NumAttentionHeads: 2, IntermediateSize: 24,
	HiddenAct: "gelu", MaxPositionEmbeddings: 12, TypeVocabSize: 2}

const (
	blockBatch  = 2
	blockLength = 8
	blockRows   = blockBatch * blockLength
)

// blockWeights are as large as a trained model's, so that every part of a block shows in its output.
type blockWeights struct{ shapes map[string][]int64 }

func (w blockWeights) Float32s(name string) ([]float32, error) {
	n, _ := tf.Shape(w.shapes[name]).NumElements()
	hash := fnv.New64a()
	hash.Write([]byte(name))
	return normalValues(hash.Sum64(), int(n)), nil
}

func normalValues(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() / 2)
	}
	return v
}

// block is one block of both graphs: rows of the model's width to a tensor.
type block struct {
	name      string
	fused     func(b *fused, x tf.Output) tf.Output
	reference func(b *reference, x tf.Output) tf.Output
}

var blocks = func() []block {
	const layer = "bert/encoder/layer_0"
	ids := func(b *graphBuilder) (ids, segments tf.Output) {
		v, s := make([]int32, blockRows), make([]int32, blockRows)
		for i := range v {
			v[i], s[i] = int32(i*7%blockShape.VocabSize), int32(i%3%2)
		}
		shape := tf.Shape{blockBatch, blockLength}
		return tf.AddConst(&b.Builder, "ids", shape, v...), tf.AddConst(&b.Builder, "segments", shape, s...)
	}
	mask := func(b *graphBuilder) tf.Output {
		v := make([]int32, blockRows)
		for i := range v {
			if i%blockLength < blockLength-2*(i/blockLength) {
				v[i] = 1
			}
		}
		return tf.AddConst(&b.Builder, "mask", tf.Shape{blockBatch, blockLength}, v...)
	}
	const h, i = 16, 24
	return []block{
		{"embeddings",
			func(b *fused, _ tf.Output) tf.Output { return b.embeddings(ids(&b.graphBuilder)) },
			func(b *reference, _ tf.Output) tf.Output { return b.embeddings(ids(&b.graphBuilder)) }},
		{"attention with its mask",
			func(b *fused, x tf.Output) tf.Output {
				return b.attention(layer+"/attention/self", x, b.maskAdder(mask(&b.graphBuilder)))
			},
			func(b *reference, x tf.Output) tf.Output {
				return b.attention(layer+"/attention/self", x, b.attentionMask(mask(&b.graphBuilder)))
			}},
		{"product, bias and sum",
			func(b *fused, x tf.Output) tf.Output {
				return b.dense(layer+"/attention/output/dense", x, h, h, "Add", x)
			},
			func(b *reference, x tf.Output) tf.Output {
				return b.op("AddV2", "sum", nil, b.dense(layer+"/attention/output/dense", x), x)
			}},
		{"product, bias and activation",
			func(b *fused, x tf.Output) tf.Output {
				return b.intermediate(layer+"/intermediate", x)
			},
			func(b *reference, x tf.Output) tf.Output {
				return b.activation(layer+"/intermediate/dense", b.config.activation(), b.dense(layer+"/intermediate/dense", x))
			}},
		{"layer norm",
			func(b *fused, x tf.Output) tf.Output { return b.layerNorm(layer+"/output/LayerNorm", x) },
			func(b *reference, x tf.Output) tf.Output {
				return b.layerNorm(layer+"/output/LayerNorm", x, 1, b.read)
			}},
		{"head",
			func(b *fused, x tf.Output) tf.Output { _, end := b.head(x); return end },
			func(b *reference, x tf.Output) tf.Output { _, end := b.head(x); return end }},
	}
}()

// Every block of the fused graph computes what its block of the reference graph does, within the
// rounding of its type.
func TestFusedBlocks(t *testing.T) {
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	weights := blockWeights{map[string][]int64{}}
	for _, w := range blockShape.weights() {
		weights.shapes[w.name] = w.shape
	}
	for _, activation := range []string{"gelu", "relu", "tanh", "", "gelu_python", "swish"} {
		config := *blockShape
		config.HiddenAct = activation
		for _, block := range blocks {
			if activation != "gelu" && block.name != "product, bias and activation" {
				continue // only that one has it
			}
			want := runReferenceBlock(t, &config, weights, block)
			for _, c := range []struct {
				dtype     tf.DataType
				ops       string
				tolerance float64 // as a share of the largest value
			}{
				{tf.Float, oneDNNOps, 1e-5}, {tf.Float, directOps, 1e-5}, {tf.Float, plainOps, 1e-5},
				{tf.Bfloat16, oneDNNOps, 0.03}, {tf.Bfloat16, plainOps, 0.03}, {tf.Half, plainOps, 0.004},
			} {
				name := fmt.Sprintf("%s %s %v %s", block.name, activation, c.dtype, c.ops)
				if c.ops != plainOps && probeOneDNN(c.ops, c.dtype) != nil {
					t.Logf("%s: not run, because the library does not have these operations here", name)
					continue
				}
				got := runFusedBlock(t, &config, weights, block, c.dtype, c.ops)
				require.Len(t, got, len(want), name)
				largest, difference := 0.0, 0.0
				for i, v := range want {
					largest = max(largest, math.Abs(float64(v)))
					difference = max(difference, math.Abs(float64(v-got[i])))
				}
				assert.Greater(t, largest, 0.1, name)
				assert.LessOrEqual(t, difference, c.tolerance*largest, name)
			}
		}
	}
}

func blockInput(b *graphBuilder) tf.Output {
	return tf.AddConst(&b.Builder, "x", tf.Shape{blockRows, int64(blockShape.HiddenSize)},
		normalValues(1, blockRows*blockShape.HiddenSize)...)
}

func runFusedBlock(
	t *testing.T, c *Config, weights weightReader, block block, dtype tf.DataType, ops string,
) []float32 {
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}, c}, dtype: dtype, ops: ops, weights: weights,
		batch: static(blockBatch), length: static(blockLength)}
	y := b.cast("y", block.fused(b, b.cast("x_cast", blockInput(&b.graphBuilder), dtype)), tf.Float)
	require.NoError(t, b.Err)
	feeds, err := constantFeeds(g, b.constants)
	require.NoError(t, err)
	defer func() {
		for _, f := range feeds {
			f.Tensor.Close()
		}
	}()
	session := blockSession(t, g)
	defer session.Close()
	return runBlock(t, session, feeds, y)
}

func runReferenceBlock(t *testing.T, c *Config, weights weightReader, block block) []float32 {
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := &reference{graphBuilder: graphBuilder{tf.Builder{Graph: g}, c}, variables: map[string]*savedmodel.Variable{},
		batch: static(blockBatch), length: static(blockLength)}
	var assigned []*tf.Operation
	for _, w := range c.weights() {
		v, err := savedmodel.AddVariable(g, w.name, tf.Float, w.shape)
		require.NoError(t, err)
		b.variables[w.name] = v
		values, err := weights.Float32s(w.name)
		require.NoError(t, err)
		assign, err := g.AddOperation(tf.OpSpec{Type: "AssignVariableOp", Name: w.name + "/initialize",
			Inputs: []tf.Input{v.Handle, tf.AddConst(&b.Builder, w.name+"/initial", w.shape, values...)}})
		require.NoError(t, err)
		assigned = append(assigned, assign)
	}
	y := block.reference(b, blockInput(&b.graphBuilder))
	require.NoError(t, b.Err)
	session := blockSession(t, g)
	defer session.Close()
	_, _, err = session.Run(t.Context(), nil, nil, &tf.RunOptions{Targets: assigned})
	require.NoError(t, err)
	return runBlock(t, session, nil, y)
}

// blockSession runs the operations of a block as they are.
func blockSession(t *testing.T, g *tf.Graph) *tf.Session {
	session, err := probe.NewSession(g)
	require.NoError(t, err)
	return session
}

func runBlock(t *testing.T, session *tf.Session, feeds []tf.Feed, y tf.Output) []float32 {
	out, _, err := session.Run(t.Context(), feeds, []tf.Output{y}, nil)
	require.NoError(t, err)
	defer tf.CloseAll(out)
	values, err := tf.Values[float32](out[0])
	require.NoError(t, err)
	return values
}

func TestProbeOneDNN(t *testing.T) {
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	assert.Equal(t, plainOps, chooseOps(GPU, savedmodel.FP32))
	assert.Equal(t, plainOps, chooseOps("", savedmodel.FP16))
	t.Setenv("TF_ENABLE_ONEDNN_OPTS", "")
	want := plainOps
	for _, ops := range []string{directOps, oneDNNOps} { // the later the better
		if err := probeOneDNN(ops, tf.Float); err == nil {
			want = ops
		} else {
			t.Logf("no %s operations here: %v", ops, err)
		}
	}
	assert.Equal(t, want, chooseOps("", savedmodel.FP32))
	t.Setenv("TF_ENABLE_ONEDNN_OPTS", "0") // TensorFlow has read it already
	if want == directOps {
		want = plainOps
	}
	assert.Equal(t, want, chooseOps("", savedmodel.FP32))
}
