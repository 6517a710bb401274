package tfbert_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
	"github.com/tfbert/go/wordpiece"
)

// emptyCache makes an empty folder the user's cache, and returns the folder of its models.
func emptyCache(t *testing.T) string {
	t.Helper()
	t.Setenv("TFBERT_LIBTENSORFLOW", testenv.TensorFlow(t)) // which may be in the cache that is out of sight now
	require.NoError(t, tf.Load(""))
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	return filepath.Join(cache, "tfbert", "models")
}

// cachedModel returns the folder of a model that must be in the cache or not be there.
func cachedModel(t *testing.T, ckpt string, opts *tfbert.ExportOptions, wantHit bool) string {
	t.Helper()
	dir, report, err := tfbert.Cached(t.Context(), ckpt, opts)
	require.NoError(t, err)
	assert.Equal(t, wantHit, report == nil, "found in the cache")
	if report != nil {
		assert.Equal(t, dir, report.Dir)
	}
	return dir
}

func TestCached(t *testing.T) {
	models := emptyCache(t)
	k := newToy("gelu")
	ckpt := k.write(t, "model.ckpt")
	dir := cachedModel(t, ckpt, nil, false)
	assert.Equal(t, models, filepath.Dir(dir))
	checkModel(t, k, dir)

	before := readFiles(t, dir)
	assert.Equal(t, dir, cachedModel(t, ckpt, nil, true))
	assert.Equal(t, dir, cachedModel(t, filepath.Join(ckpt, "model.ckpt"), &tfbert.ExportOptions{Overwrite: true}, true))
	assert.Equal(t, before, readFiles(t, dir))
	assert.Equal(t, []string{filepath.Base(dir)}, fileNames(t, models))
	openModel(t, dir, nil)
}

// A folder of transformers is a checkpoint too, and its weights and files choose the entry.
func TestCachedTransformers(t *testing.T) {
	models := emptyCache(t)
	ckpt := filepath.Join(t.TempDir(), "qa")
	require.NoError(t, os.CopyFS(ckpt, os.DirFS(transformersModel)))
	dir := cachedModel(t, ckpt, nil, false)
	assert.Regexp(t, "^qa-[0-9a-f]{12}$", filepath.Base(dir))
	assert.Equal(t, dir, cachedModel(t, filepath.Join(ckpt, "model.safetensors"), nil, true))
	openModel(t, dir, nil)

	weights := filepath.Join(ckpt, "model.safetensors")
	text, err := os.ReadFile(weights)
	require.NoError(t, err)
	text[len(text)-1] ^= 1
	require.NoError(t, os.WriteFile(weights, text, 0o600))
	assert.NotEqual(t, dir, cachedModel(t, ckpt, nil, false))
	assert.Len(t, fileNames(t, models), 2)
}

// Every option and every file that changes the model gets an entry of its own.
func TestCachedOptions(t *testing.T) {
	models := emptyCache(t)
	ckpt := newToy("gelu").write(t, "model.ckpt")
	dirs := map[string]bool{cachedModel(t, ckpt, nil, false): true}
	for _, opts := range []tfbert.ExportOptions{
		{MaxSeqLength: 16}, {Cased: true}, {Profile: wordpiece.Google},
		{Graph: tfbert.FusedGraph}, {Graph: tfbert.FusedGraph, Device: tfbert.GPU},
		{Graph: tfbert.FusedGraph, Precision: savedmodel.BF16},
	} {
		dir := cachedModel(t, ckpt, &opts, false)
		assert.Equal(t, dir, cachedModel(t, ckpt, &opts, true))
		settings, err := tfbert.ReadSettings(dir)
		require.NoError(t, err)
		assert.Equal(t, opts.MaxSeqLength, settings.MaxSeqLength)
		assert.Equal(t, !opts.Cased, settings.DoLowerCase)
		assert.Equal(t, opts.Profile, settings.Profile)
		assert.Equal(t, opts.Precision, settings.Precision)
		dirs[dir] = true
	}
	editFile(t, filepath.Join(ckpt, "vocab.txt"), replaceText("lace", "lacy"))
	dirs[cachedModel(t, ckpt, nil, false)] = true
	assert.Len(t, dirs, 8)
	assert.Len(t, fileNames(t, models), len(dirs))
}

// An entry from which a part is missing is exported again.
func TestCachedDamagedEntry(t *testing.T) {
	models := emptyCache(t)
	k := newToy("gelu")
	ckpt := k.write(t, "model.ckpt")
	dir := cachedModel(t, ckpt, nil, false)
	whole := readFiles(t, dir)
	require.NoError(t, os.Remove(filepath.Join(dir, savedmodel.GraphFile)))
	assert.Equal(t, dir, cachedModel(t, ckpt, nil, false))
	assert.Equal(t, whole, readFiles(t, dir))
	assert.Equal(t, []string{filepath.Base(dir)}, fileNames(t, models))
}

func TestCachedAtOnce(t *testing.T) {
	models := emptyCache(t)
	k := newToy("gelu")
	ckpt := k.write(t, "model.ckpt")
	var dirs [4]string
	var exported [len(dirs)]bool
	var errs [len(dirs)]error
	var wg sync.WaitGroup
	for i := range dirs {
		wg.Go(func() {
			var report *tfbert.ExportReport
			dirs[i], report, errs[i] = tfbert.Cached(t.Context(), ckpt, nil)
			exported[i] = report != nil
		})
	}
	wg.Wait()
	wins := 0
	for i := range dirs {
		require.NoError(t, errs[i])
		assert.Equal(t, dirs[0], dirs[i])
		if exported[i] {
			wins++
		}
	}
	assert.Equal(t, 1, wins, "calls whose export is the model")
	assert.Equal(t, []string{filepath.Base(dirs[0])}, fileNames(t, models), "nothing is left of the others")
	checkModel(t, k, dirs[0])
}

func TestCachedErrors(t *testing.T) {
	models := emptyCache(t)
	_, _, err := tfbert.Cached(t.Context(), filepath.Join(t.TempDir(), "none"), nil)
	assert.ErrorContains(t, err, "none")
	ckpt := newToy("gelu").write(t, "model.ckpt")
	require.NoError(t, os.Remove(filepath.Join(ckpt, "vocab.txt")))
	_, _, err = tfbert.Cached(t.Context(), ckpt, nil)
	assert.ErrorContains(t, err, "has no vocab.txt beside it")
	assert.NoDirExists(t, models)
	t.Setenv("XDG_CACHE_HOME", "relative")
	_, _, err = tfbert.Cached(t.Context(), newToy("gelu").write(t, "model.ckpt"), nil)
	assert.ErrorContains(t, err, "XDG_CACHE_HOME")
}
