package tfbert_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

func exportRandom(t testing.TB, c *tfbert.Config, opts *tfbert.ExportOptions) (dir string) {
	t.Helper()
	testenv.TensorFlow(t)
	dir = filepath.Join(t.TempDir(), "model")
	_, err := tfbert.ExportRandom(t.Context(), c, dir, opts)
	require.NoError(t, err)
	return dir
}

func TestExportRandomGraphsAgree(t *testing.T) {
	config := newToy("gelu").Config
	features := randomWindows(3, 40)
	want := predictOnce(t, openModel(t, exportRandom(t, &config, nil), nil), features...)
	assert.NotEqual(t, want[0].StartLogits, want[1].StartLogits)
	for precision, delta := range map[savedmodel.Precision]float64{savedmodel.FP32: 1e-6, savedmodel.BF16: 1e-2} {
		m := openModel(t, exportRandom(t, &config, &tfbert.ExportOptions{Graph: tfbert.FusedGraph, Precision: precision}),
			nil)
		got := predictOnce(t, m, features...)
		for i := range want {
			assert.InDeltaSlice(t, want[i].StartLogits, got[i].StartLogits, delta, precision)
			assert.InDeltaSlice(t, want[i].EndLogits, got[i].EndLogits, delta, precision)
		}
	}
}

func TestExportRandomWeights(t *testing.T) {
	config := newToy("gelu").Config
	config.VocabSize = 5000
	r, err := checkpoint.Open(filepath.Join(exportRandom(t, &config, nil), savedmodel.VariablesPrefix))
	require.NoError(t, err)
	defer r.Close()
	values := func(name string) []float32 {
		v, err := r.Float32s(name)
		require.NoError(t, err)
		return v
	}
	assert.Equal(t, []float32{1, 1, 1, 1, 1, 1, 1, 1}, values("bert/embeddings/LayerNorm/gamma"))
	assert.Equal(t, make([]float32, 8), values("bert/embeddings/LayerNorm/beta"))
	query := values("bert/encoder/layer_0/attention/self/query/kernel")
	assert.NotEqual(t, query, values("bert/encoder/layer_1/attention/self/query/kernel"))

	words := values("bert/embeddings/word_embeddings")
	sum, squares, most := 0.0, 0.0, 0.0
	for _, x := range words {
		v := float64(x)
		sum, squares, most = sum+v, squares+v*v, max(most, math.Abs(v))
	}
	n := float64(len(words))
	assert.InDelta(t, 0, sum/n, 0.0005)
	// A normal distribution cut at two deviations has 0.8796 of its deviation.
	assert.InDelta(t, 0.8796*0.02, math.Sqrt(squares/n), 0.0003)
	assert.InDelta(t, 0.04, most, 0.001)
	assert.LessOrEqual(t, most, 0.04)
}

func TestExportRandomRefusesABadShape(t *testing.T) {
	config := tfbert.BaseConfig()
	config.NumAttentionHeads = 7
	_, err := tfbert.ExportRandom(t.Context(), config, filepath.Join(t.TempDir(), "model"), nil)
	assert.EqualError(t, err, "export: hidden_size 768 is not a multiple of num_attention_heads 7")
}

// BenchmarkExportRandom writes BERT-Base.
func BenchmarkExportRandom(b *testing.B) {
	testenv.TensorFlow(b)
	dir := filepath.Join(b.TempDir(), "model")
	for b.Loop() {
		report, err := tfbert.ExportRandom(b.Context(), tfbert.BaseConfig(), dir,
			&tfbert.ExportOptions{Graph: tfbert.FusedGraph, Overwrite: true})
		require.NoError(b, err)
		b.SetBytes(report.Bytes)
	}
}
