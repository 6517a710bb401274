package squad

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	p := Prediction{ID: "a/é", Answer: "<x>", NullOdds: -0.5,
		NBest: []Candidate{{Text: "<x>", Probability: 1e-5, StartLogit: 3, EndLogit: -4.25}}}

	f, err := CreateFiles(dir, true)
	require.NoError(t, err)
	require.NoError(t, f.Write(&p))
	for _, name := range []string{PredictionsFile, NBestFile, NullOddsFile} {
		assert.NoFileExists(t, filepath.Join(dir, name))
	}
	require.NoError(t, f.Commit())
	require.NoError(t, f.Abort())
	for name, want := range map[string]string{
		PredictionsFile: "{\n    \"a/\\u00e9\": \"<x>\"\n}\n",
		NBestFile: "{\n    \"a/\\u00e9\": [\n        {\n            \"text\": \"<x>\",\n            \"probability\": " +
			"1e-05,\n" +
			"            \"start_logit\": 3.0,\n            \"end_logit\": -4.25\n        }\n    ]\n}\n",
		NullOddsFile: "{\n    \"a/\\u00e9\": -0.5\n}\n",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, string(text))
	}
	assert.Len(t, fileNames(t, dir), 3)
	assert.ErrorContains(t, f.Write(&p), "committed or aborted")
	assert.ErrorContains(t, f.Commit(), "committed or aborted")
}

func TestFilesEmpty(t *testing.T) {
	dir := t.TempDir()
	f, err := CreateFiles(dir, false)
	require.NoError(t, err)
	require.NoError(t, f.Commit())
	text, err := os.ReadFile(filepath.Join(dir, PredictionsFile))
	require.NoError(t, err)
	assert.Equal(t, "{}\n", string(text))
	assert.Equal(t, []string{NBestFile, PredictionsFile}, fileNames(t, dir))
}

func TestFilesAbort(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, PredictionsFile), []byte("old"), 0o644))
	f, err := CreateFiles(dir, true)
	require.NoError(t, err)
	assert.Len(t, fileNames(t, dir), 4)
	require.NoError(t, f.Abort())
	assertOld(t, dir)
}

// TestFilesBrokenDisk stands in for a full disk by closing the files under the writer.
func TestFilesBrokenDisk(t *testing.T) {
	for i, name := range []string{PredictionsFile, NBestFile, NullOddsFile} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, PredictionsFile), []byte("old"), 0o644))
		f, err := CreateFiles(dir, true)
		require.NoError(t, err)
		require.NoError(t, f.files[i].File.Close())
		require.NoError(t, f.Write(&Prediction{ID: "a"})) // not yet written through
		err = f.Commit()
		assert.ErrorIs(t, err, os.ErrClosed)
		assert.ErrorContains(t, err, "write "+filepath.Join(dir, name))
		assertOld(t, dir)

		f, err = CreateFiles(dir, true)
		require.NoError(t, err)
		require.NoError(t, f.files[i].File.Close())
		for range 1000 { // a long run is told while it runs
			if err = f.Write(&Prediction{ID: strings.Repeat("a", 100)}); err != nil {
				break
			}
		}
		assert.ErrorIs(t, err, os.ErrClosed)
		require.NoError(t, f.Abort())
		assertOld(t, dir)
	}
}

func TestCreateFilesErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := CreateFiles(file, false)
	assert.ErrorContains(t, err, "create prediction files: ")
	assert.ErrorContains(t, err, file)

	if runtime.GOOS != "windows" && os.Getuid() != 0 {
		require.NoError(t, os.Chmod(dir, 0o555))
		_, err = CreateFiles(dir, false)
		assert.ErrorIs(t, err, os.ErrPermission)
	}
}

// assertOld holds that dir has only the file that was there before.
func assertOld(t *testing.T, dir string) {
	t.Helper()
	assert.Equal(t, []string{PredictionsFile}, fileNames(t, dir))
	text, err := os.ReadFile(filepath.Join(dir, PredictionsFile))
	require.NoError(t, err)
	assert.Equal(t, "old", string(text))
}

func fileNames(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
