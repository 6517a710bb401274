package savedmodel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tree makes a folder with files. A name that ends in a slash is a folder.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		name, content, ok := strings.Cut(name, "=")
		if !ok {
			content = "\x08\x01\x12\x00"
		}
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(path, 0o777))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(content), 0o666))
	}
	return dir
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		path  string
		want  string
		older []string
	}{
		{"folder", []string{"saved_model.pb"}, "", "", nil},
		{"file", []string{"m/saved_model.pb"}, "m/saved_model.pb", "m", nil},
		{"versions", []string{"9/saved_model.pb", "10/saved_model.pb", "1561024011/saved_model.pb"}, "", "1561024011", []string{"9", "10"}},
		{"versions with zeros", []string{"00000123/saved_model.pb", "00000124/saved_model.pb"}, "", "00000124", []string{"00000123"}},
		{"one version", []string{"1/saved_model.pb"}, "", "1", nil},
		{"version under way", []string{"1/saved_model.pb", "2/variables/", "temp-3/saved_model.pb"}, "", "1", nil},
		{"Triton", []string{"config.pbtxt=name: \"x\"", "1/model.savedmodel/saved_model.pb", "2/model.savedmodel/saved_model.pb"}, "",
			"2/model.savedmodel", []string{"1/model.savedmodel"}},
		{"version of Triton", []string{"1/model.savedmodel/saved_model.pb"}, "1", "1/model.savedmodel", nil},
		{"hidden", []string{"1/saved_model.pb", ".ipynb_checkpoints/saved_model.pb", "__MACOSX/2/saved_model.pb", "._saved_model.pb"}, "", "1", nil},
		{"a version within a model", []string{"saved_model.pb", "1/saved_model.pb"}, "", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := tree(t, c.files...)
			dir, older, err := Find(filepath.Join(root, c.path))
			require.NoError(t, err)
			assert.Equal(t, filepath.Join(root, c.want), dir)
			var want []string
			for _, name := range c.older {
				want = append(want, filepath.Join(root, name))
			}
			assert.ElementsMatch(t, want, older)
		})
	}
	t.Run("links", func(t *testing.T) {
		root := t.TempDir()
		require.NoError(t, os.Symlink(tree(t, "saved_model.pb"), filepath.Join(root, "3")))
		dir, _, err := Find(root)
		require.NoError(t, err)
		assert.Equal(t, filepath.Join(root, "3"), dir)
	})
}

func TestFindErrors(t *testing.T) {
	frozen := "=\x0a\x1e\x0a\x09input_ids\x12\x0bPlaceholder\x2a\x00"
	no := "DIR is not a SavedModel: it has no saved_model.pb"
	for _, c := range []struct {
		name  string
		files []string
		path  string
		want  string // DIR is the folder
		found bool   // something of a SavedModel
	}{
		{"empty", nil, "", no, false},
		{"frozen graph", []string{"frozen_model.pb" + frozen}, "frozen_model.pb",
			"DIR/frozen_model.pb is a frozen graph, not a SavedModel: name the folder that holds saved_model.pb", true},
		{"frozen graph in a folder", []string{"frozen_model.pb" + frozen}, "", no + "; frozen_model.pb is a frozen graph, not a SavedModel", false},
		{"under another name", []string{"frozen_model.pb"}, "frozen_model.pb",
			"DIR/frozen_model.pb has the name of a frozen graph, not a SavedModel, but the content of a saved_model.pb: " +
				"give it that name in a folder of its own, and name the folder", true},
		{"text", []string{"saved_model.pbtxt=meta_graphs {"}, "",
			"DIR holds a text saved_model.pbtxt, which is not supported: convert it to saved_model.pb", true},
		{"text file", []string{"saved_model.pbtxt=meta_graphs {"}, "saved_model.pbtxt",
			"DIR holds a text saved_model.pbtxt, which is not supported: convert it to saved_model.pb", true},
		{"archive", []string{"m.tar.gz=\x1f\x8b\x08"}, "m.tar.gz",
			"DIR/m.tar.gz is a gzip file: unpack it, and name the folder that holds saved_model.pb", false},
		{"PyTorch", []string{"pytorch_model.bin=PK\x03\x04" + strings.Repeat("\x00", 22) + "\x10\x00\x00\x00archive/data.pkl"}, "pytorch_model.bin",
			"DIR/pytorch_model.bin is a file of PyTorch, which is not read: save the model as safetensors, as its save_pretrained does", false},
		{"Keras", []string{"tf_model.h5=\x89HDF\r\n\x1a\n"}, "", no + "; tf_model.h5 is an HDF5 file (.h5), in which Keras keeps weights, " +
			"not a TensorFlow checkpoint", false},
		{"some file", []string{"config.json={}"}, "config.json", "DIR/config.json is a file: name the folder that holds saved_model.pb", false},
		{"models below", []string{"a/saved_model.pb", "b/1/saved_model.pb", "c/1/model.savedmodel/saved_model.pb", "d/x=1"}, "",
			no + "; below it are the models a, b, c: name one", false},
		{"checkpoint", []string{"model.ckpt.index=x", "._a.index=x"}, "", no + "; it holds the checkpoint model.ckpt", false},
		{"variables", []string{"saved_model.pb", "variables/variables.index"}, "variables",
			"DIR/variables is not a SavedModel: it has no saved_model.pb; the folder above it, DIR, is one", false},
		{"nowhere", nil, "none", "stat DIR/none: no such file or directory", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := tree(t, c.files...)
			path := filepath.Join(root, c.path)
			_, _, err := Find(path)
			assert.EqualError(t, err, strings.ReplaceAll(c.want, "DIR", root))
			if !c.found {
				assert.ErrorAs(t, err, new(*NotFoundError))
			} else {
				assert.NotErrorAs(t, err, new(*NotFoundError))
			}
			for _, read := range []func() error{
				func() error { _, err := Inspect(path); return err },
				func() error { _, err := Ops(path); return err },
				func() error { _, err := Load(path, nil); return err },
			} {
				assert.EqualError(t, read(), err.Error())
			}
		})
	}
	_, _, err := Find("gs://bucket/model")
	assert.EqualError(t, err, "open gs://bucket/model: gs:// is not supported: give a local path")
}
