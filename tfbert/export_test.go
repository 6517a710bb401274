package tfbert_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
	"github.com/tfbert/go/wordpiece"
)

// readFiles reads every file below a folder.
func readFiles(t testing.TB, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		list[filepath.ToSlash(name)] = string(b)
		return err
	}))
	return list
}

func fileNames(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// checkModel checks that a model holds the toy's weights as float32, and nothing else.
func checkModel(t testing.TB, k *toy, dir string) {
	t.Helper()
	r, err := checkpoint.Open(filepath.Join(dir, "variables", "variables"))
	require.NoError(t, err)
	defer r.Close()
	assert.Len(t, r.Variables(), len(k.variables))
	for _, v := range k.variables {
		got, err := r.Float32s(v.name)
		require.NoError(t, err)
		assert.Equal(t, v.values, got, v.name)
		info, _ := r.Variable(v.name)
		assert.Equal(t, checkpoint.Float32, info.DType, v.name)
		assert.Equal(t, v.shape, info.Shape, v.name)
	}
}

func TestExportTypes(t *testing.T) {
	testenv.TensorFlow(t)
	k := newToy("gelu")
	var parameters int64
	for _, v := range k.variables {
		parameters += int64(len(v.values))
	}
	var first map[string]string
	for _, c := range []struct {
		dtype   checkpoint.DType
		trained bool
		cast    int
		leftOut int
	}{
		{checkpoint.Float32, false, 0, 0},
		{checkpoint.Float32, true, 0, 2*39 + 3},
		{checkpoint.Float16, false, 39, 0},
		{checkpoint.BFloat16, true, 39, 2*39 + 3},
	} {
		name := c.dtype.String()
		source := k.as(c.dtype)
		if c.trained {
			name, source = name+" trained", source.trained()
		}
		t.Run(name, func(t *testing.T) {
			ckpt := source.write(t, "model.ckpt")
			dir := filepath.Join(t.TempDir(), "model")
			report, err := tfbert.Export(t.Context(), ckpt, dir, nil)
			require.NoError(t, err)
			checkModel(t, k, dir)
			got := readFiles(t, dir)
			assert.Equal(t, []string{
				"assets.extra/bert_config.json", "assets.extra/tfbert.json", "assets.extra/vocab.txt",
				"saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index",
			}, slices.Sorted(maps.Keys(got)))
			var bytes int64
			for _, text := range got {
				bytes += int64(len(text))
			}
			assert.Equal(t, &tfbert.ExportReport{
				Dir: dir, Checkpoint: ckpt, Config: &k.Config,
				Settings: tfbert.Settings{
					Graph: "reference", DoLowerCase: true, TensorFlow: tf.Version(), Source: filepath.Base(ckpt),
				},
				Variables: 39, Parameters: parameters, Cast: c.cast, LeftOut: c.leftOut, Bytes: bytes, Activation: "gelu by tanh",
			}, report)

			// The model does not depend on the type of the weights, except for the name of its source.
			delete(got, "assets.extra/tfbert.json")
			if first == nil {
				first = got
			}
			assert.Equal(t, first, got)
		})
	}
}

// without copies an archive to a file whose name has no ending.
func without(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return writeFile(t, string(b), t.TempDir(), "zip")
}

// tarball puts the files of a folder into a packed tar, with what macOS adds.
func tarball(t testing.TB, dir, below string) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, content []byte) {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: below + name, Size: int64(len(content)), Mode: 0o644}))
		_, err := w.Write(content)
		require.NoError(t, err)
	}
	for _, name := range fileNames(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		add("._"+name, []byte("\x00\x05\x16\x07\x00"))
		add(name, content)
	}
	require.NoError(t, w.Close())
	return writeFile(t, string(gzipped(t, buf.Bytes())), t.TempDir(), "model.tar.gz")
}

func TestExportForms(t *testing.T) {
	testenv.TensorFlow(t)
	k := newToy("gelu")
	ckpt := k.trained().write(t, "model.ckpt-5474")
	require.NoError(t, os.WriteFile(filepath.Join(ckpt, "model.ckpt-5474.meta"), []byte("not read"), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(ckpt, "checkpoint"),
		[]byte(`model_checkpoint_path: "/results/squad/model.ckpt-5474"`), 0o666))
	for _, c := range []struct{ name, path string }{
		{"folder", ckpt},
		{"prefix", filepath.Join(ckpt, "model.ckpt-5474")},
		{"index", filepath.Join(ckpt, "model.ckpt-5474.index")},
		{"zip", zipFolder(t, ckpt, "")},
		{"zip with a folder", zipFolder(t, ckpt, "bert_tf_squad11_base_128/")},
		{"state file", filepath.Join(ckpt, "checkpoint")},
		{"zip without an ending", without(t, zipFolder(t, ckpt, ""))},
		{"tar.gz", tarball(t, ckpt, "./")},
		{"folder in a tar.gz", filepath.Join(tarball(t, ckpt, "bert/"), "bert")},
		{"prefix in a zip", filepath.Join(zipFolder(t, ckpt, "bert/"), "bert", "model.ckpt-5474")},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "model")
			report, err := tfbert.Export(t.Context(), c.path, dir, nil)
			require.NoError(t, err)
			checkModel(t, k, dir)
			assert.Equal(t, 39, report.Variables)
			assert.Equal(t, filepath.Base(c.path), report.Settings.Source)
			assert.Equal(t, []string{"model"}, fileNames(t, parent))
			predictOnce(t, openModel(t, dir, nil), randomWindows(1, 8)...)
		})
	}
}

func TestExportSettings(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	elsewhere := t.TempDir()
	config, vocab := filepath.Join(elsewhere, "config.json"), filepath.Join(elsewhere, "words")
	require.NoError(t, os.Rename(filepath.Join(ckpt, "bert_config.json"), config))
	require.NoError(t, os.Rename(filepath.Join(ckpt, "vocab.txt"), vocab))
	dir := exportModel(t, ckpt, &tfbert.ExportOptions{
		Graph: tfbert.ReferenceGraph, MaxSeqLength: 32, ConfigFile: config, VocabFile: vocab,
		Cased: true, Profile: wordpiece.Google,
	})
	var settings map[string]any
	text := readFiles(t, dir)["assets.extra/tfbert.json"]
	require.NoError(t, json.Unmarshal([]byte(text), &settings))
	assert.Equal(t, map[string]any{
		"graph": "reference", "precision": "fp32", "max_seq_length": 32.0, "do_lower_case": false, "profile": "google",
		"tensorflow": tf.Version(), "source": filepath.Base(ckpt),
	}, settings)

	// Nothing needs to be said again.
	m := openModel(t, dir, nil)
	assert.Equal(t, 32, m.SeqLength())
	assert.Equal(t, 32, m.Answerer().Featurizer.MaxSeqLength)
	assert.True(t, m.Tokenizer().Cased)
	assert.Equal(t, wordpiece.Google, m.Tokenizer().Profile)
	assert.Equal(t, []string{"[UNK]", "love", "##lace"}, m.Tokenizer().Tokenize("Ada lovelace"))
}

func TestExportIsReproducible(t *testing.T) {
	ckpt := newToy("gelu").trained().write(t, "model.ckpt")
	for _, length := range []int{0, 32} {
		opts := &tfbert.ExportOptions{MaxSeqLength: length}
		assert.Equal(t, readFiles(t, exportModel(t, ckpt, opts)), readFiles(t, exportModel(t, ckpt, opts)))
	}
}

func TestExportTarget(t *testing.T) {
	testenv.TensorFlow(t)
	k := newToy("gelu")
	ckpt := k.write(t, "model.ckpt")
	run := func(dir string, overwrite bool) error {
		_, err := tfbert.Export(t.Context(), ckpt, dir, &tfbert.ExportOptions{Overwrite: overwrite})
		return err
	}
	mkdir := func(t *testing.T, files ...string) string {
		dir := filepath.Join(t.TempDir(), "model")
		require.NoError(t, os.Mkdir(dir, 0o777))
		for _, name := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o666))
		}
		return dir
	}
	for _, overwrite := range []bool{false, true} {
		t.Run("new, with the folders above", func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b", "model")
			require.NoError(t, run(dir, overwrite))
			checkModel(t, k, dir)
		})
		t.Run("empty folder", func(t *testing.T) {
			dir := mkdir(t)
			require.NoError(t, run(dir+"/", overwrite))
			checkModel(t, k, dir)
			assert.Equal(t, []string{"model"}, fileNames(t, filepath.Dir(dir)))
		})
		t.Run("current folder", func(t *testing.T) {
			dir := mkdir(t)
			t.Chdir(dir)
			require.NoError(t, run(".", overwrite))
			checkModel(t, k, dir)
		})
		t.Run("no name", func(t *testing.T) {
			assert.EqualError(t, run("", overwrite), "export: no directory for the model is named")
		})
		t.Run("file", func(t *testing.T) {
			path := filepath.Join(mkdir(t, "file"), "file")
			assert.ErrorContains(t, run(path, overwrite), "not a directory")
			assert.FileExists(t, path)
		})
		t.Run("no model", func(t *testing.T) {
			dir := mkdir(t, "thesis.tex")
			want := "exists"
			if overwrite {
				want = "is not a SavedModel and will not be overwritten"
			}
			assert.EqualError(t, run(dir, overwrite), "export: "+dir+" "+want)
			assert.Equal(t, map[string]string{"thesis.tex": "mine"}, readFiles(t, dir))
		})
	}
	t.Run("a model, kept", func(t *testing.T) {
		dir := mkdir(t, "saved_model.pb")
		assert.ErrorContains(t, run(dir, false), "exists")
		assert.Equal(t, map[string]string{"saved_model.pb": "mine"}, readFiles(t, dir))
	})
	t.Run("a model, replaced", func(t *testing.T) {
		dir := mkdir(t, "saved_model.pb", "other")
		require.NoError(t, run(dir, true))
		checkModel(t, k, dir)
		assert.NotContains(t, readFiles(t, dir), "other")
		assert.Equal(t, []string{"model"}, fileNames(t, filepath.Dir(dir)))
	})
	t.Run("a link to a model, replaced", func(t *testing.T) {
		dir := mkdir(t, "saved_model.pb", "other")
		link := filepath.Join(t.TempDir(), "latest")
		require.NoError(t, os.Symlink(dir, link))
		require.NoError(t, run(link, true))
		checkModel(t, k, dir)
		assert.NotContains(t, readFiles(t, dir), "other")
		to, err := os.Readlink(link)
		require.NoError(t, err)
		assert.Equal(t, dir, to)
	})
	t.Run("a model, kept because the export failed", func(t *testing.T) {
		dir := mkdir(t, "saved_model.pb", "other")
		_, err := tfbert.Export(t.Context(), ckpt, dir, &tfbert.ExportOptions{Overwrite: true, MaxSeqLength: 49})
		require.Error(t, err)
		assert.Equal(t, map[string]string{"saved_model.pb": "mine", "other": "mine"}, readFiles(t, dir))
		assert.Equal(t, []string{"model"}, fileNames(t, filepath.Dir(dir)))
	})
}

// The folder of a model is as readable as the process's other folders are.
func TestExportMode(t *testing.T) {
	dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.Mkdir(plain, 0o777))
	want, err := os.Stat(plain)
	require.NoError(t, err)
	got, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, want.Mode(), got.Mode())
}
