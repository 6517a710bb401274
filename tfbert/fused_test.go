package tfbert_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

// fusedPrecisions bound the difference of logits as a share of the largest: bfloat16 has eight bits
// of precision, a relative rounding error of 0.4 %, which layers of width eight add up. What is
// written for a GPU runs on a CPU too.
var fusedPrecisions = []struct {
	precision savedmodel.Precision
	device    string
	share     float64
}{
	{savedmodel.FP32, tfbert.CPU, 1e-5}, {savedmodel.BF16, tfbert.CPU, 0.1},
	{savedmodel.FP32, tfbert.GPU, 1e-5}, {savedmodel.FP16, tfbert.GPU, 0.02},
}

func fusedOptions(p savedmodel.Precision) *tfbert.ExportOptions {
	return &tfbert.ExportOptions{Graph: tfbert.FusedGraph, Precision: p}
}

func TestFusedAgainstFloat64(t *testing.T) {
	for _, act := range []string{"gelu", "relu", "tanh", "linear"} {
		k := newToy(act)
		ckpt := k.write(t, "model.ckpt")
		for _, c := range fusedPrecisions {
			t.Run(act+" "+c.precision.String()+" "+c.device, func(t *testing.T) {
				opts := fusedOptions(c.precision)
				opts.Device = c.device
				m := openModel(t, exportModel(t, ckpt, opts), nil)
				if c.device == tfbert.GPU {
					assert.Equal(t, "plain", m.Settings().Ops)
				} else {
					t.Logf("%s operations", m.Settings().Ops) // TestProbeOneDNN holds the choice
				}
				for _, length := range []int{8, 48} {
					features := randomWindows(3, length)
					largest, scale := 0.0, 0.0
					for i, r := range predictOnce(t, m, features...) {
						start, end := k.forward(features[i])
						for pos := range start {
							largest = max(largest, math.Abs(start[pos]-float64(r.StartLogits[pos])),
								math.Abs(end[pos]-float64(r.EndLogits[pos])))
							scale = max(scale, math.Abs(start[pos]), math.Abs(end[pos]))
						}
					}
					assert.Less(t, largest, c.share*scale, "length %d", length)
					t.Logf("length %d: largest difference %.1e of %.1f", length, largest, scale)
				}
			})
		}
	}
}

// The fused graph has the reference's signature and one operation where that has many.
func TestFusedGraph(t *testing.T) {
	k := newToy("gelu")
	ops := ""
	meta := func(opts *tfbert.ExportOptions) *savedmodel.MetaGraph {
		dir := exportModel(t, k.write(t, "model.ckpt"), opts)
		settings, err := tfbert.ReadSettings(dir)
		require.NoError(t, err)
		ops = settings.Ops
		info, err := savedmodel.Inspect(dir)
		require.NoError(t, err)
		m, err := info.MetaGraph([]string{"serve"})
		require.NoError(t, err)
		return m
	}
	reference, graph := meta(nil), meta(fusedOptions(savedmodel.FP32))
	assert.Equal(t, infoTexts(reference.Signatures[0].Inputs), infoTexts(graph.Signatures[0].Inputs))
	assert.Equal(t, infoTexts(reference.Signatures[0].Outputs), infoTexts(graph.Signatures[0].Outputs))

	const layers = 2
	want := map[string]int{
		"_MklLayerNorm":          2*layers + 1,
		"_MklFusedBatchMatMulV2": layers, // with the mask
		"Transpose":              2 * layers,
		"AddV2":                  2, // the embeddings
		"MatMul":                 0,
		"OneHot":                 0,
		"VarHandleOp":            0,
		"Placeholder":            4,
		"ReadVariableOp":         0,
	}
	matMul, batchMatMul, softmax := "_FusedMatMul", "BatchMatMulV2", "Softmax"
	switch ops {
	case "plain":
		t.Skip("TensorFlow does not have oneDNN's operations here: the graph is of plain ones")
	case "direct":
		matMul, batchMatMul, softmax = "_MklNativeFusedMatMul", "_MklBatchMatMulV2", "_MklSoftmax"
	}
	want[matMul] = 4*layers + 1 // queries, keys and values are one
	want[batchMatMul], want[softmax] = layers, layers
	for op, n := range want {
		assert.Equal(t, n, graph.Ops[op], op)
	}
}

func TestFusedExport(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	first, second := exportModel(t, ckpt, fusedOptions(savedmodel.BF16)), exportModel(t, ckpt,
		fusedOptions(savedmodel.BF16))
	assert.Equal(t, readFiles(t, first), readFiles(t, second))
	assert.NotContains(t, readFiles(t, first), "variables/variables.index")
	m := openModel(t, first, nil)
	assert.Equal(t, "fused bf16", m.Settings().Graph+" "+m.Settings().Precision.String())

	features := randomWindows(3, 32)
	static := fusedOptions(savedmodel.BF16)
	static.MaxSeqLength = 32
	assert.Equal(t, predictOnce(t, m, features...),
		predictOnce(t, openModel(t, exportModel(t, ckpt, static), nil), features...))
}

func TestFusedExportErrors(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	for name, c := range map[string]struct {
		opts tfbert.ExportOptions
		want string
	}{
		"no such graph": {tfbert.ExportOptions{Graph: "fast"}, `unknown graph "fast": it is reference or fused`},
		"reference in bf16": {tfbert.ExportOptions{Precision: savedmodel.BF16},
			"the reference graph is written in fp32, not bf16: choose the fused graph"},
		"fp16 for a CPU": {tfbert.ExportOptions{Graph: tfbert.FusedGraph, Precision: savedmodel.FP16, Device: tfbert.CPU},
			"fp16 is for GPUs: choose bf16 or fp32 for a CPU"},
		"no such precision": {tfbert.ExportOptions{Graph: tfbert.FusedGraph, Precision: 7},
			"unknown precision: Precision(7)"},
		"no such device": {tfbert.ExportOptions{Graph: tfbert.FusedGraph, Device: "tpu"},
			`unknown device "tpu": it is cpu or gpu`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tfbert.Export(t.Context(), ckpt, t.TempDir()+"/model", &c.opts)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// On the bundled model fusing moves logits no more than another CPU does, and bfloat16 moves them
// little enough to keep the order of answers.
func TestFusedBundledModel(t *testing.T) {
	t.Parallel()
	want := readLogits(t, testenv.Golden(t, "mini", "model.s384.logits.npy"))[:16]
	for _, c := range []struct {
		precision savedmodel.Precision
		tolerance float64
	}{{savedmodel.FP32, tolerance}, {savedmodel.BF16, 0.5}} {
		t.Run(c.precision.String(), func(t *testing.T) {
			m := openModel(t, exportModel(t, testenv.Model(t), fusedOptions(c.precision)), nil)
			windows := readFeatures(t, &m.Answerer().Featurizer, testenv.Golden(t, "mini", "mini-v1.1.json"), len(want))
			largest := largestDifference(t, withoutPadding(windows, want), withoutPadding(windows, predictAll(t, m, windows)))
			t.Logf("largest difference %.1e", largest)
			assert.Less(t, largest, c.tolerance)
		})
	}
}

// withoutPadding cuts the logits of padding off.
func withoutPadding(features []squad.Feature, results []squad.RawResult) []squad.RawResult {
	cut := make([]squad.RawResult, len(results))
	for i, r := range results {
		n := features[i].Len
		cut[i] = squad.RawResult{UniqueID: r.UniqueID, StartLogits: r.StartLogits[:n], EndLogits: r.EndLogits[:n]}
	}
	return cut
}
