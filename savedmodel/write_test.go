package savedmodel_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

func TestWrittenModelRuns(t *testing.T) {
	dir := t.TempDir()
	writeLinear(t, dir, 3, 0.5)
	m := loadModel(t, dir, nil)
	f := function(t, m, savedmodel.DefaultSignature, []string{"x"}, []string{"y"})
	out, err := f.Run(t.Context(), newTensor[float32](t, tf.Shape{2, 2}, 1, 2, 3, 4))
	assert.Equal(t, []float32{3.5, 6.5, 9.5, 12.5}, valuesOf[float32](t, out, err))
}

func TestWriteIsReproducible(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	writeLinear(t, first, 3, 0.5)
	writeLinear(t, second, 3, 0.5)
	for _, name := range []string{savedmodel.GraphFile, savedmodel.VariablesPrefix + ".index",
		savedmodel.VariablesPrefix + ".data-00000-of-00001"} {
		a, err := os.ReadFile(filepath.Join(first, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(second, name))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(a, b), name)
	}
}

// The operations that Write adds save what the loader restored.
func TestWrittenSaver(t *testing.T) {
	dir, prefix := t.TempDir(), filepath.Join(t.TempDir(), "model.ckpt")
	writeLinear(t, dir, 3, 0.5)
	s := loadModel(t, dir, nil).Session()
	file, err := s.Graph().Output("save/Const:0")
	require.NoError(t, err)
	saved, err := s.Graph().Output("save/control_dependency:0")
	require.NoError(t, err)
	out, _, err := s.Run(t.Context(), []tf.Feed{{Output: file, Tensor: newTensor(t, nil, prefix)}}, []tf.Output{saved},
		nil)
	assert.Equal(t, []string{prefix}, valuesOf[string](t, out, err))
	checkLinear(t, prefix)
}

// checkLinear checks the checkpoint of writeLinear with 3 and 0.5.
func checkLinear(t testing.TB, prefix string) {
	t.Helper()
	r, err := checkpoint.Open(prefix)
	require.NoError(t, err)
	defer r.Close()
	assert.Len(t, r.Variables(), 2)
	for name, want := range map[string][]float32{"line/slope": {3, 3}, "line/offset": {0.5}} {
		got, err := r.Float32s(name)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
}

func TestPythonLoadsWrittenModel(t *testing.T) {
	python := testenv.Python(t)
	dir, prefix := t.TempDir(), filepath.Join(t.TempDir(), "model.ckpt")
	writeLinear(t, dir, 3, 0.5)
	cmd := exec.Command(python, filepath.Join("testdata", "load.py"), dir, prefix)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	var got map[string]any
	require.NoError(t, json.Unmarshal(stdout, &got), "%s", stdout)

	y := []any{[]any{3.5, 6.5}, []any{9.5, 12.5}}
	names := []any{"line/offset:0", "line/slope:0"}
	assert.Equal(t, map[string]any{
		"method": "tensorflow/serving/predict", "v1": y, "v2": y, "variables": names, "trainable": names,
		"initialized": []any{0.0, 0.0}, "input_spec": "TensorSpec(shape=(None, 2), dtype=tf.float32, name='x')",
	}, got)
	checkLinear(t, prefix)
}

func TestWriteErrors(t *testing.T) {
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	content := savedmodel.Content{Graph: g, Signatures: []savedmodel.Signature{{
		Key: "predict", Inputs: []savedmodel.TensorInfo{{Key: "x", Name: "x:0"}},
	}}}
	dir := t.TempDir()
	err = savedmodel.Write(dir, content)
	require.ErrorContains(t, err, "write "+dir+`: signature "predict": `)
	assert.NoFileExists(t, filepath.Join(dir, savedmodel.GraphFile))

	err = savedmodel.Write(filepath.Join(dir, "none"), savedmodel.Content{Graph: g})
	assert.ErrorIs(t, err, os.ErrNotExist)

	_, err = savedmodel.AddVariable(g, "v", tf.Float, tf.Shape{2})
	require.NoError(t, err)
	_, err = savedmodel.AddVariable(g, "v", tf.Float, tf.Shape{2})
	assert.ErrorContains(t, err, "add variable v: ")
	for _, d := range []int64{-1, 1 << 32} {
		_, err = savedmodel.AddVariable(g, "w", tf.Float, tf.Shape{d})
		assert.ErrorContains(t, err, "add variable w: a variable cannot have the shape [")
	}
	require.NoError(t, g.Close())
	assert.ErrorIs(t, savedmodel.Write(dir, savedmodel.Content{Graph: g}), tf.ErrClosed)
}
