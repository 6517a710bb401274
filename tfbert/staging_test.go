package tfbert

import (
	"os"
	"path/filepath"
	"testing"
	"time"

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

// What a killed export has left is removed by the next one, and what another one still uses is not.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "model")
	killed, err := newStaging(dir, true)
	require.NoError(t, err)
	require.NoError(t, killed.lock.Unlock()) // as the end of its process does
	makeModel(t, killed.dir+replaced, "old") // which it had moved aside
	running, err := newStaging(dir, true)
	require.NoError(t, err)
	checkIs(t, dir, "old")
	assert.NoDirExists(t, killed.dir)
	young := filepath.Join(parent, ".model.tmp-young")
	old, other := filepath.Join(parent, ".model.tmp-old"), filepath.Join(parent, ".model2.tmp-old")
	for _, path := range []string{young, old, other} {
		require.NoError(t, os.Mkdir(path, 0o777))
	}
	makeModel(t, old+replaced, "older")
	past := time.Now().Add(-2 * youngest)
	for _, path := range []string{old, other} {
		require.NoError(t, os.Chtimes(path, past, past))
	}
	s, err := newStaging(dir, true)
	require.NoError(t, err)
	assert.NoDirExists(t, old)
	assert.NoDirExists(t, old+replaced)
	for _, path := range []string{young, other, running.dir, s.dir} {
		assert.DirExists(t, path)
	}
	checkIs(t, dir, "old")
	running.remove()
	s.remove()
	assert.NoDirExists(t, running.dir)
	assert.NoDirExists(t, s.dir)
}
