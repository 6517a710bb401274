package tfbert_test

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

// openBundled opens the bundled model.
func openBundled(t testing.TB) *tfbert.Model {
	t.Helper()
	return openModel(t, exportModel(t, testenv.Model(t), nil), nil)
}

// readExamples reads the questions of a data set's file.
func readExamples(t testing.TB, path string) iter.Seq2[*squad.Example, error] {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return squad.Examples(f)
}

// readFeatures returns the first n features of a data set, or all if n is 0.
func readFeatures(t testing.TB, f *squad.Featurizer, path string, n int) []squad.Feature {
	t.Helper()
	var list []squad.Feature
	for feature, err := range f.Features(readExamples(t, path)) {
		require.NoError(t, err)
		if list = append(list, *feature); len(list) == n {
			break
		}
	}
	return list
}

// predictAll runs features in batches of 8, as the reference does.
func predictAll(t testing.TB, m *tfbert.Model, features []squad.Feature) []squad.RawResult {
	t.Helper()
	var results []squad.RawResult
	for len(features) > 0 {
		n := min(8, len(features))
		results = append(results, predictOnce(t, m, features[:n]...)...)
		features = features[n:]
	}
	return results
}

// readLogits reads an array [features, 2 (start, end), length].
func readLogits(t testing.TB, path string) []squad.RawResult {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r, err := npy.NewReader(f)
	require.NoError(t, err)
	require.Len(t, r.Shape, 3)
	results := make([]squad.RawResult, r.Shape[0])
	for i := range results {
		results[i].StartLogits, results[i].EndLogits = make([]float32, r.Shape[2]), make([]float32, r.Shape[2])
		require.NoError(t, r.ReadFloat32s(results[i].StartLogits))
		require.NoError(t, r.ReadFloat32s(results[i].EndLogits))
	}
	return results
}

func readAnswers(t testing.TB, data []byte) map[string]string {
	t.Helper()
	answers, err := squad.ReadAnswers(bytes.NewReader(data))
	require.NoError(t, err)
	return answers
}

// The logits are those that were recorded on another machine of the same kind: the same bits there,
// within the tolerance elsewhere.
func TestMiniGolden(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "predicts windows of 384")
	m := openBundled(t)
	var got []squad.RawResult
	a := m.Answerer()
	a.OnExample = func(_ *squad.Windows, results []squad.RawResult) error {
		got = append(got, results...)
		return nil
	}
	dir := t.TempDir()
	files, err := squad.CreateFiles(dir, false)
	require.NoError(t, err)
	defer files.Abort()
	for p, err := range a.AnswerAll(t.Context(), readExamples(t, testenv.Golden(t, "mini", "mini-v1.1.json"))) {
		require.NoError(t, err)
		require.NoError(t, files.Write(&p))
	}
	require.NoError(t, files.Commit())
	d := largestDifference(t, readLogits(t, testenv.Golden(t, "mini", "model.s384.logits.npy")), got)
	t.Logf("largest difference of logits: %.1e", d)
	assert.Less(t, d, tolerance)

	want, err := os.ReadFile(testenv.Golden(t, "mini", "model.s384.predictions.json"))
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, squad.PredictionsFile))
	require.NoError(t, err)
	if d == 0 {
		assert.Equal(t, string(want), string(text))
	} else {
		assert.Equal(t, readAnswers(t, want), readAnswers(t, text))
	}
}

// The logits of the dev set's first windows: with TFBERT_E2E set, of all 64 that are recorded.
func TestDevGolden(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "predicts windows of 384")
	data := testenv.Shared(t, "data", "dev-v1.1.json")
	want := readLogits(t, testenv.Shared(t, "golden", "dev", "e2e.logits-first-64.npy"))
	if os.Getenv("TFBERT_E2E") == "" {
		want = want[:16]
	}
	m := openBundled(t)
	got := predictAll(t, m, readFeatures(t, &m.Answerer().Featurizer, data, len(want)))
	d := largestDifference(t, want, got)
	t.Logf("largest difference of logits: %.1e", d)
	assert.Less(t, d, tolerance)
}

// At a static length the bundled model returns the same bits.
func TestBundledStaticLength(t *testing.T) {
	dynamic := openBundled(t)
	static := openModel(t, exportModel(t, testenv.Model(t), &tfbert.ExportOptions{MaxSeqLength: 64}), nil)
	f := squad.Featurizer{Tokenizer: static.Tokenizer(), MaxSeqLength: 64, MaxQueryLength: 32, DocStride: 16}
	batch := readFeatures(t, &f, testenv.Golden(t, "mini", "mini-v1.1.json"), 8)
	assert.Equal(t, predictOnce(t, dynamic, batch...), predictOnce(t, static, batch...))
}

func TestBundledReport(t *testing.T) {
	testenv.TensorFlow(t)
	dir := filepath.Join(t.TempDir(), "model")
	report, err := tfbert.Export(t.Context(), testenv.Model(t), dir, nil)
	require.NoError(t, err)
	text, err := json.Marshal(report)
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(text, &got))
	assert.Equal(t, 5.0+16*6+2, got["variables"])
	assert.Equal(t, 22566146.0, got["parameters"])
	assert.Equal(t, 103.0, got["cast"], "the checkpoint is float16")
	assert.Equal(t, 2.0, got["left_out"], "the pooler")
	assert.Equal(t, 30522.0, got["config"].(map[string]any)["vocab_size"])
	assert.Equal(t, true, got["settings"].(map[string]any)["do_lower_case"])
}

func TestCancelBetweenBatches(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), &tfbert.ExportOptions{MaxSeqLength: 32}), nil)
	a := m.Answerer()
	a.Featurizer.MaxQueryLength = 8
	a.BatchSize = 1
	ctx, cancel := context.WithCancel(t.Context())
	batches := 0
	a.Predictor = predictorFunc(func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
		if batches++; batches == 3 {
			defer cancel()
		}
		return m.Predict(ctx, f)
	})
	var err error
	for _, err = range a.AnswerAll(ctx, readExamples(t, testenv.Golden(t, "mini", "mini-v1.1.json"))) {
		if err != nil {
			break
		}
	}
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 3, batches)
}

type predictorFunc func(context.Context, []squad.Feature) ([]squad.RawResult, error)

func (p predictorFunc) Predict(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
	return p(ctx, f)
}
