package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// folder makes a folder with a checkpoint called types, beside which the given files stand. A nil content is that
// of the checkpoint's own file with the ending.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		if rest, ok := strings.CutPrefix(content, "types"); ok {
			b, err := os.ReadFile("testdata/types" + rest)
			require.NoError(t, err)
			content = string(b)
		}
		require.NoError(t, os.WriteFile(path, []byte(content), 0o666))
	}
	return dir
}

const (
	index = "types.index"
	data  = "types.data-00000-of-00001"
	shard = ".data-00000-of-00001"

	pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
)

// table is a file that ends like one of LevelDB's tables and begins with the value of the empty key.
func table(value string) string {
	return "\x00\x00\x20" + value + strings.Repeat("x", 60) + "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
}

func TestFindPrefix(t *testing.T) {
	state := func(name string) map[string]string {
		return map[string]string{
			"m-10.index": index, "m-10" + shard: data, "m-20.index": index, "m-20" + shard: data, "m-20.meta": "", "checkpoint": name,
		}
	}
	newest := state(`model_checkpoint_path: "m-20"`)
	one := map[string]string{"m-20.index": index, "m-20" + shard: data}
	with := func(name, content string) map[string]string {
		return map[string]string{"m-20.index": index, "m-20" + shard: data, name: content}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		path  string
	}{
		{"prefix", newest, "m-20"},
		{"index", newest, "m-20.index"},
		{"data", newest, "m-20" + shard},
		{"graph", newest, "m-20.meta"},
		{"state file", newest, "checkpoint"},
		{"folder", newest, ""},
		{"dot of a completed name", newest, "m-20."},
		{"slash after a name", newest, "m-20/"},
		{"state file under another name", with("best.txt", `model_checkpoint_path: "m-20"`), "best.txt"},
		{"state with a byte order mark", state("\ufeff" + `model_checkpoint_path: "m-20"`), ""},
		{
			"state with lines of Windows",
			state("model_checkpoint_path: \"m-20\"\r\nall_model_checkpoint_paths: \"m-10\"\r\n"), "",
		},
		{"state of another machine", state(`model_checkpoint_path: "/home/me/out/m-20"`), ""},
		{"state of Windows", state(`model_checkpoint_path: "C:\\train\\out\\m-20"`), ""},
		{"state of a bucket", state(`model_checkpoint_path: "gs://bucket/out/m-20"`), ""},
		{"state in single quotes", state(`model_checkpoint_path: 'm-20'`), ""},
		{"state of a step that is not here", with("checkpoint", `model_checkpoint_path: "m-30"`), ""},
		{"state file of a step that is not here", with("checkpoint", `model_checkpoint_path: "m-30"`), "checkpoint"},
		{"folder called checkpoint", with("checkpoint/x", ""), ""},
		{"macOS", with("._m-20.index", "\x00\x05\x16\x07\x00"), ""},
		{"hidden files", with(".m-10.index", index), ""},
		{"folders of programs", with(".ipynb_checkpoints/m-10.index", index), ""},
		{"folder that ends like an index", with("x.index/y", ""), ""},
		{"no other file", one, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.files)
			path := dir
			if c.path != "" {
				path += "/" + c.path
			}
			assert.Equal(t, filepath.Join(dir, "m-20"), openTest(t, path).Prefix())
		})
	}

	t.Run("prefix that ends like a file", func(t *testing.T) {
		dir := folder(t, map[string]string{"m.meta.index": index, "m.meta" + shard: data})
		assert.Equal(t, filepath.Join(dir, "m.meta"), openTest(t, filepath.Join(dir, "m.meta")).Prefix())
	})
	t.Run("cache of links", func(t *testing.T) {
		blobs := folder(t, map[string]string{"a1": index, "b2": data})
		dir := t.TempDir()
		require.NoError(t, os.Symlink(filepath.Join(blobs, "a1"), filepath.Join(dir, "m.index")))
		require.NoError(t, os.Symlink(filepath.Join(blobs, "b2"), filepath.Join(dir, "m"+shard)))
		assert.Equal(t, filepath.Join(dir, "m"), openTest(t, dir).Prefix())
	})
	t.Run("link to a folder", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "latest")
		require.NoError(t, os.Symlink(folder(t, one), link))
		assert.Equal(t, filepath.Join(link, "m-20"), openTest(t, link).Prefix())
	})
}

func TestFindPrefixErrors(t *testing.T) {
	steps := map[string]string{"model.ckpt-10.index": index, "model.ckpt-20.index": index}
	many := map[string]string{}
	for i := range 30 {
		many["m-"+string(rune('a'+i%26))+strings.Repeat("x", i)+".index"] = ""
	}
	none := "no checkpoint in this folder: it has no *.index file"
	for _, c := range []struct {
		name  string
		files map[string]string
		path  string
		want  string // DIR is the folder
	}{
		{"wrong step", steps, "model.ckpt",
			"no checkpoint here: DIR/model.ckpt.index does not exist; there are model.ckpt-10, model.ckpt-20 in that folder"},
		{"wrong step of an index", steps, "model.ckpt-30.index",
			"no checkpoint here: DIR/model.ckpt-30.index does not exist; there are model.ckpt-10, model.ckpt-20 in that folder"},
		{"the only step", map[string]string{"model.ckpt-20.index": index}, "model.ckpt",
			"no checkpoint here: DIR/model.ckpt.index does not exist; there is model.ckpt-20 in that folder"},
		{"several", steps, "", "several checkpoints in this folder; name one of model.ckpt-10, model.ckpt-20"},
		{"state of a step that is not here",
			map[string]string{"a.index": "", "b.index": "", "checkpoint": `model_checkpoint_path: "c"`}, "checkpoint",
			"several checkpoints in this folder; name one of a, b"},
		{"state that names nothing", map[string]string{"checkpoint": "", "b.index": "", "a.index": ""}, "",
			"several checkpoints in this folder; name one of a, b"},
		{"no folder", nil, "none/model.ckpt", "no checkpoint here: DIR/none/model.ckpt.index does not exist"},
		{"data alone", map[string]string{"m-2" + shard: data}, "", "found m-2" + shard + " but not its .index: copy it"},
		{
			"prefix of data alone", map[string]string{"m-2" + shard: data}, "m-2",
			"found m-2" + shard + " but not m-2.index: copy it",
		},
		{
			"data file alone", map[string]string{"m-2" + shard: data}, "m-2" + shard,
			"found m-2" + shard + " but not m-2.index: copy it",
		},
		{"graph alone", map[string]string{"m-2.meta": ""}, "m-2.meta", "no checkpoint here: DIR/m-2.index does not exist"},
		{"empty folder", nil, "", none},
		{"below", map[string]string{"uncased/bert.ckpt.index": ""}, "", none + "; there is uncased/bert.ckpt below it"},
		{"V1 format in a folder", map[string]string{"model.ckpt": table("\x0a\x01")}, "", none +
			"; model.ckpt is a checkpoint of the V1 format (one file, as TensorFlow before 0.12 wrote it), which is not supported: " +
			"restore it and save it again with a tf.train.Saver of version 2"},
		{"V1 format", map[string]string{"model.ckpt": table("\x0a\x01")}, "model.ckpt", "DIR/model.ckpt is a checkpoint of the V1 " +
			"format (one file, as TensorFlow before 0.12 wrote it), which is not supported: " +
			"restore it and save it again with a tf.train.Saver of version 2"},
		{"index under another name", map[string]string{"model.txt": table("\x08\x01")}, "model.txt",
			"DIR/model.txt is the .index of a checkpoint under another name: give it its own name, and the .data files beside it"},
		{
			"pointers", map[string]string{"m.index": pointer}, "",
			"DIR/m.index is a Git LFS pointer, not the file itself: run git lfs pull",
		},
		{"pointer for data", map[string]string{"m.index": index, "m" + shard: pointer}, "",
			"DIR/m" + shard + " is a Git LFS pointer, not the file itself: run git lfs pull"},
		{"page for an index", map[string]string{"m.index": "<!DOCTYPE html><html>"}, "",
			"DIR/m.index is an HTML page, such as the login or error page of a site: download the file again"},
		{
			"empty index", map[string]string{"m.index": ""}, "",
			"DIR/m.index is an empty file: its download or copy did not finish",
		},
		{"packed files", map[string]string{"m.index.gz": "\x1f\x8b\x08", "m" + shard + ".gz": "\x1f\x8b\x08"}, "",
			none + "; m" + shard + ".gz is a gzip file: unpack it; m.index.gz is a gzip file: unpack it"},
		{"Keras", map[string]string{"tf_model.h5": "\x89HDF\r\n\x1a\n"}, "",
			none + "; tf_model.h5 is an HDF5 file (.h5), in which Keras keeps weights, not a TensorFlow checkpoint"},
		{"unfinished download", map[string]string{"model.zip.part": "PK\x03\x04"}, "",
			none + "; model.zip.part is a download that has not finished"},
		{"unfinished download by name", map[string]string{"x.crdownload": "PK\x03\x04"}, "x.crdownload",
			"DIR/x.crdownload is a download that has not finished"},
		{"path of Windows", map[string]string{"ckpt/m.index": index}, `ckpt\m`,
			`no checkpoint here: DIR/ckpt\m.index does not exist; there is DIR/ckpt/m`},
		{"macOS alone", map[string]string{"._m.index": ""}, "", none},
		{"many", many, "", "and 18 more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.files)
			path := dir
			if c.path != "" {
				path += "/" + c.path
			}
			_, err := Open(path)
			require.Error(t, err)
			want := strings.ReplaceAll(c.want, "DIR", dir)
			if c.name == "many" {
				assert.ErrorContains(t, err, want)
			} else {
				assert.EqualError(t, err, "open "+path+": "+want)
			}
		})
	}
	_, err := Open("gs://bucket/model.ckpt")
	assert.EqualError(t, err, "open gs://bucket/model.ckpt: gs:// is not supported: give a local path")
}
