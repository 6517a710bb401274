package tfbert_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// TestMain fails the run if a test left a tensor, graph or session open.
func TestMain(m *testing.M) { testenv.Main(m, tf.Alive) }

// exportModel exports a checkpoint and returns the folder of the model.
func exportModel(t testing.TB, ckpt string, opts *tfbert.ExportOptions) string {
	t.Helper()
	testenv.TensorFlow(t)
	dir := filepath.Join(t.TempDir(), "model")
	_, err := tfbert.Export(t.Context(), ckpt, dir, opts)
	require.NoError(t, err)
	return dir
}

func openModel(t testing.TB, dir string, opts *tfbert.Options) *tfbert.Model {
	t.Helper()
	testenv.TensorFlow(t)
	m, err := tfbert.Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close()) })
	return m
}

func predictOnce(t testing.TB, m *tfbert.Model, features ...squad.Feature) []squad.RawResult {
	t.Helper()
	results, err := m.Predict(t.Context(), features)
	require.NoError(t, err)
	require.Len(t, results, len(features))
	for i, r := range results {
		require.Equal(t, features[i].UniqueID, r.UniqueID)
		require.Len(t, r.StartLogits, len(features[i].InputIDs))
		require.Len(t, r.EndLogits, len(features[i].InputIDs))
	}
	return results
}
