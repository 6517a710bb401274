package tfbert

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/savedmodel"
)

func makeModel(t *testing.T, dir, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, savedmodel.GraphFile), []byte(text), 0o666))
}

func checkIs(t *testing.T, dir, text string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, savedmodel.GraphFile))
	require.NoError(t, err)
	assert.Equal(t, text, string(got))
}

// checkAlone checks that nothing is left beside a folder.
func checkAlone(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}

func TestPublishOverwrites(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	makeModel(t, dir, "old")
	s, err := newStaging(dir, true)
	require.NoError(t, err)
	makeModel(t, s.path("model"), "new")
	require.NoError(t, s.publish("model"))
	s.remove()
	checkIs(t, dir, "new")
	checkAlone(t, dir)
}

// What cannot be replaced is put back.
func TestPublishFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	makeModel(t, dir, "old")
	s, err := newStaging(dir, true)
	require.NoError(t, err)
	require.ErrorIs(t, s.publish("none"), os.ErrNotExist)
	s.remove()
	checkIs(t, dir, "old")
	checkAlone(t, dir)
}

// A model that appeared in the meantime is not the one that might be overwritten.
func TestPublishKeepsWhatAppeared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	s, err := newStaging(dir, false)
	require.NoError(t, err)
	makeModel(t, s.path("model"), "new")
	makeModel(t, dir, "another's")
	require.ErrorIs(t, s.publish("model"), os.ErrExist)
	s.remove()
	checkIs(t, dir, "another's")
	checkAlone(t, dir)
}
