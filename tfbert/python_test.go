package tfbert_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

// exportReference runs scripts/export_reference.py.
func exportReference(t testing.TB, args ...string) {
	t.Helper()
	script := filepath.Join(testenv.Root(t), "scripts", "export_reference.py")
	out, err := exec.Command(testenv.Python(t), append([]string{script}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TensorFlow's Python exports the same checkpoint by a graph written independently. The two models
// have one signature and, in one process, the same logits, bit for bit; and Python runs our model to
// the same bits as Go does.
func TestAgainstPython(t *testing.T) {
	t.Parallel() // Python takes a core for seconds before it runs a model
	testenv.Python(t)
	ours := exportModel(t, testenv.Model(t), nil)
	theirs := filepath.Join(t.TempDir(), "reference")
	exportReference(t, testenv.Model(t), theirs)
	assert.Equal(t, pythonSignature(t, theirs), pythonSignature(t, ours))

	m := openModel(t, ours, nil)
	short := m.Answerer().Featurizer
	short.MaxSeqLength = 128 // a third of the time of 384, which TestMiniGolden covers
	batch := readFeatures(t, &short, testenv.Golden(t, "mini", "mini-v1.1.json"), 20)
	got := predictAll(t, m, batch)
	vocab := filepath.Join(testenv.Model(t), "vocab.txt")
	reference := predictAll(t, openModel(t, theirs, &tfbert.Options{VocabFile: vocab}), batch)
	assert.Zero(t, largestDifference(t, reference, got), "Python's export run by Go")

	logits := filepath.Join(t.TempDir(), "logits.npy")
	exportReference(t, "--run", ours, writeFeatures(t, batch), logits)
	assert.Zero(t, largestDifference(t, readLogits(t, logits), got), "our export run by Python")
}

// The same at a static length, with an activation and a type of weights that the bundled model does
// not have.
func TestToyAgainstPython(t *testing.T) {
	t.Parallel() // Python takes a core for seconds before it runs a model
	testenv.Python(t)
	ckpt := newToy("relu").as(checkpoint.BFloat16).trained().write(t, "model.ckpt")
	writeFile(t, `model_checkpoint_path: "model.ckpt"`, ckpt, "checkpoint")
	ours := exportModel(t, ckpt, &tfbert.ExportOptions{MaxSeqLength: 32})
	theirs := filepath.Join(t.TempDir(), "reference")
	exportReference(t, ckpt, theirs, "--max_seq_length", "32")
	assert.Equal(t, pythonSignature(t, theirs), pythonSignature(t, ours))
	vocab := writeFile(t, toyVocab, t.TempDir(), "vocab.txt")
	want := predictOnce(t, openModel(t, theirs, &tfbert.Options{VocabFile: vocab}), randomWindows(5, 32)...)
	assert.Equal(t, want, predictOnce(t, openModel(t, ours, nil), randomWindows(5, 32)...))
}

// pythonSignature describes the signature of a model, without the names of its tensors.
func pythonSignature(t testing.TB, dir string) map[string][]string {
	t.Helper()
	info, err := savedmodel.Inspect(dir)
	require.NoError(t, err)
	m, err := info.MetaGraph([]string{savedmodel.ServeTag})
	require.NoError(t, err)
	require.Len(t, m.Signatures, 1)
	s, err := m.Signature(savedmodel.DefaultSignature)
	require.NoError(t, err)
	return map[string][]string{"method": {s.Method}, "inputs": infoTexts(s.Inputs), "outputs": infoTexts(s.Outputs)}
}

// writeFeatures writes features as `tfbert features --out` does.
func writeFeatures(t testing.TB, batch []squad.Feature) string {
	t.Helper()
	dir := t.TempDir()
	length := len(batch[0].InputIDs)
	var names, files []string
	for _, a := range []struct {
		name   string
		row    []int
		values func(f squad.Feature) []int32
	}{
		{"input_ids", []int{length}, func(f squad.Feature) []int32 { return f.InputIDs }},
		{"input_mask", []int{length}, func(f squad.Feature) []int32 { return f.InputMask }},
		{"segment_ids", []int{length}, func(f squad.Feature) []int32 { return f.SegmentIDs }},
		{"unique_ids", nil, func(f squad.Feature) []int32 { return []int32{f.UniqueID} }},
	} {
		path := filepath.Join(dir, a.name)
		w, err := npy.Create(path, npy.Int32, a.row...)
		require.NoError(t, err)
		for _, f := range batch {
			require.NoError(t, w.WriteInt32s(a.values(f)))
		}
		require.NoError(t, w.Close())
		names, files = append(names, a.name), append(files, path)
	}
	path := filepath.Join(dir, "features.npz")
	require.NoError(t, npy.Zip(path, names, files))
	return path
}
