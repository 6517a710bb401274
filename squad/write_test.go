package squad_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

// writeFile writes predictions and returns what is in the prediction file called name.
func writeFile(t testing.TB, name string, predictions []squad.Prediction) []byte {
	t.Helper()
	dir := t.TempDir()
	files, err := squad.CreateFiles(dir, true)
	require.NoError(t, err)
	defer files.Abort()
	for i := range predictions {
		require.NoError(t, files.Write(&predictions[i]))
	}
	require.NoError(t, files.Commit())
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return text
}
