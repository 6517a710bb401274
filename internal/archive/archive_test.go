package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Members are given as NAME=CONTENT; a name that ends in a slash is a folder.
func split(member string) (name, content string) {
	name, content, _ = strings.Cut(member, "=")
	return name, content
}

func zipOf(t *testing.T, members ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, m := range members {
		name, content := split(m)
		f, err := w.Create(name)
		require.NoError(t, err)
		_, err = io.WriteString(f, content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func tarOf(t *testing.T, format tar.Format, members ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if format == tar.FormatPAX { // as git archive begins
		require.NoError(t, w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"},
		}))
	}
	for _, m := range members {
		name, content := split(m)
		h := &tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Format: format}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := io.WriteString(w, content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func gzipOf(t *testing.T, content []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// bzipped is a tar of ./bert/m.index, ./bert/m.data-00000-of-00001 and ./vocab.txt, packed by bzip2.
const bzipped = "QlpoOTFBWSZTWUrCVo8AAHB/gOmAACBAA/2ABAASAH8jn0AICCAAkgyoYgaANNAAyaCKhCeoBpoNA2kNNH7ZnluGpFzxwkTQUndyqMmLtGt3usJqJBGAesLZXQ9mN5xIdHUCWMBAvpSkq1bbIx7snEXCBzJo0qKZipUYNncR2y6DoMe0SpSlQ78ZQXiBe4IgaIFa57sCCB+LuSKcKEglYStHgA=="

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o666))
	return path
}

// unpack returns the files that are unpacked of the model at a path, as NAME=CONTENT.
func unpack(t *testing.T, path string, savedModels bool) (_ *Unpacked, files []string, err error) {
	t.Helper()
	name, inside, ok := Split(path)
	require.True(t, ok, path)
	a, err := Open(t.Context(), name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { require.NoError(t, a.Close()) }()
	m, err := a.Choose(inside, savedModels)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(t.TempDir(), "model")
	u, err := m.Unpack(t.Context(), dir)
	if err != nil {
		return nil, nil, err
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files = append(files, rel+"="+string(b))
		return err
	}))
	return u, files, nil
}

const shard = ".data-00000-of-00001"

func TestForms(t *testing.T) {
	members := []string{"bert/", "bert/m.index=i", "bert/m" + shard + "=d", "vocab.txt=v"}
	dotted := []string{"./", "./bert/", "./bert/m.index=i", "./bert/m" + shard + "=d", "./vocab.txt=v"}
	packed, err := base64.StdEncoding.DecodeString(bzipped)
	require.NoError(t, err)
	long := strings.Repeat("ü", 120) + "/"
	for _, c := range []struct {
		name    string
		content []byte
	}{
		{"model.ZIP", zipOf(t, members...)},
		{"zip", zipOf(t, members...)},
		{"backslashes.zip", zipOf(t, `bert\m.index=i`, `bert\m`+shard+"=d", "vocab.txt=v")},
		{"model.tar", tarOf(t, tar.FormatUSTAR, members...)},
		{"gnu.tar", tarOf(t, tar.FormatGNU, dotted...)},
		{"pax.tar", tarOf(t, tar.FormatPAX, dotted...)},
		{"long.tar", tarOf(t, tar.FormatPAX, long+"m.index=i", long+"m"+shard+"=d", "vocab.txt=v")},
		{"model.tar.gz", gzipOf(t, tarOf(t, tar.FormatGNU, dotted...))},
		{"model.tgz", gzipOf(t, tarOf(t, tar.FormatUSTAR, members...))},
		{"model.tar.bz2", packed},
		{"named as another.txt", gzipOf(t, tarOf(t, tar.FormatGNU, members...))},
		{"macOS.zip", zipOf(t, append(members, "__MACOSX/bert/._m.index=x", "bert/._vocab.txt=x", "bert/.DS_Store=x",
			".ipynb_checkpoints/m.index=x")...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.name, c.content)
			u, files, err := unpack(t, path, false)
			require.NoError(t, err)
			assert.Equal(t, []string{"m" + shard + "=d", "m.index=i", "vocab.txt=v"}, files)
			assert.Equal(t, path+"/vocab.txt", u.Name(filepath.Join(u.Path, "vocab.txt")), "where it is in the archive")
		})
	}
}

func TestChoose(t *testing.T) {
	checkpoint := func(prefix string) []string {
		return []string{prefix + ".index=" + prefix, prefix + shard + "="}
	}
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	saved := []string{"export/1/saved_model.pb=g", "export/1/variables/variables.index=v", "export/1/variables/variables" + shard + "=",
		"export/1/assets/vocab.txt=w", "export/1/readme.md=x"}
	two := join(checkpoint("bert/model.ckpt"), []string{"bert/vocab.txt=1"}, checkpoint("pretrained/bert.ckpt"), []string{"pretrained/vocab.txt=2"})
	steps := join(checkpoint("m-1"), checkpoint("m-2"), []string{"checkpoint=s"})
	for _, c := range []struct {
		name    string
		members []string
		inside  string
		saved   bool
		files   []string
		want    string // the error, without the archive's path
	}{
		{"two", two, "", false, nil,
			" holds several models: bert/model.ckpt, pretrained/bert.ckpt; name one, as in ZIP/bert/model.ckpt"},
		{
			"folder", two, "pretrained", false,
			[]string{"bert.ckpt" + shard + "=", "bert.ckpt.index=pretrained/bert.ckpt", "vocab.txt=2"}, "",
		},
		{
			"prefix", two, "bert/model.ckpt", false,
			[]string{"model.ckpt" + shard + "=", "model.ckpt.index=bert/model.ckpt", "vocab.txt=1"}, "",
		},
		{
			"index", two, "bert/model.ckpt.index", false,
			[]string{"model.ckpt" + shard + "=", "model.ckpt.index=bert/model.ckpt", "vocab.txt=1"}, "",
		},
		{"wrong", two, "bret", false, nil, " holds no model bret; it holds bert/model.ckpt, pretrained/bert.ckpt"},
		{
			"wrong step", two, "bert/model.ckpt-1", false, nil,
			" holds no model bert/model.ckpt-1; it holds bert/model.ckpt, pretrained/bert.ckpt",
		},
		{
			"steps", steps, "", false,
			[]string{"checkpoint=s", "m-1" + shard + "=", "m-1.index=m-1", "m-2" + shard + "=", "m-2.index=m-2"}, "",
		},
		{"step", steps, "m-1", false, []string{"checkpoint=s", "m-1" + shard + "=", "m-1.index=m-1"}, ""},
		{
			"state file", steps, "checkpoint", false,
			[]string{"checkpoint=s", "m-1" + shard + "=", "m-1.index=m-1", "m-2" + shard + "=", "m-2.index=m-2"}, "",
		},
		{"at the top and below", join(checkpoint("a"), checkpoint("old/b")), "", false, nil,
			" holds several models: a, old/b; name one, as in ZIP/a"},
		{"at the top", join(checkpoint("a"), checkpoint("old/b")), "a", false, []string{"a" + shard + "=", "a.index=a"}, ""},
		{"configuration above", join(checkpoint("x/y/m"), []string{"x/vocab.txt=near", "vocab.txt=far", "z/vocab.txt=other", "c/bert_config.json=c"}), "", false,
			[]string{"bert_config.json=c", "m" + shard + "=", "m.index=x/y/m", "vocab.txt=near"}, ""},
		{"two vocabularies elsewhere", join(checkpoint("x/m"), []string{"y/vocab.txt=1", "z/vocab.txt=2"}), "", false,
			[]string{"m" + shard + "=", "m.index=x/m"}, ""},
		{
			"SavedModel", saved, "", true,
			[]string{
				"assets/vocab.txt=w",
				"saved_model.pb=g",
				"variables/variables" + shard + "=",
				"variables/variables.index=v",
			},
			"",
		},
		{
			"SavedModel at the top", []string{"saved_model.pb=g", "variables/variables.index=v"}, "", true,
			[]string{"saved_model.pb=g", "variables/variables.index=v"}, "",
		},
		{
			"SavedModel by its folder", saved, "export", true,
			[]string{
				"assets/vocab.txt=w",
				"saved_model.pb=g",
				"variables/variables" + shard + "=",
				"variables/variables.index=v",
			},
			"",
		},
		{"SavedModel in place of a checkpoint", saved, "", false, nil,
			": no checkpoint in this archive: it has no *.index file; export/1 is a SavedModel, which needs no export: unpack it"},
		{
			"SavedModel beside a checkpoint", join(saved, checkpoint("m")), "", false,
			[]string{"m" + shard + "=", "m.index=m", "vocab.txt=w"}, "",
		},
		{
			"both", join(saved, checkpoint("m")), "", true, nil,
			" holds several models: export/1, m; name one, as in ZIP/export/1",
		},
		{"archive in an archive", []string{"bert/model.zip=PK"}, "", false, nil,
			": no checkpoint in this archive: it has no *.index file; it holds bert/model.zip"},
		{"PyTorch", []string{"pytorch_model.bin=x", "config.json=x", "vocab.txt=x"}, "", true, nil,
			": no model in this archive: it has no *.index file and no saved_model.pb; it holds pytorch_model.bin"},
		{
			"transformers", []string{"qa/model.safetensors=w", "qa/config.json=c", "qa/vocab.txt=v", "qa/optimizer.pt=x"}, "", true,
			[]string{"config.json=c", "model.safetensors=w", "vocab.txt=v"}, "",
		},
		{
			"transformers by its file", []string{"model.safetensors=w", "config.json=c", "b/model.safetensors=x"},
			"b/model.safetensors", false, []string{"config.json=c", "model.safetensors=x"}, "",
		},
		{"several of transformers", []string{"a/model.safetensors=w", "model.safetensors=w"}, "", false, nil,
			" holds several models: a/model.safetensors, model.safetensors; name one, as in ZIP/a/model.safetensors"},
		{"data alone", []string{"m" + shard + "="}, "", false, nil,
			": no checkpoint in this archive: it has no *.index file; found m" + shard + " but not its .index"},
		{"nothing", nil, "", false, nil, ": no checkpoint in this archive: it has no *.index file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, content := range map[string][]byte{"z": zipOf(t, c.members...), "t": gzipOf(t, tarOf(t, tar.FormatGNU, c.members...))} {
				path := write(t, name, content)
				_, files, err := unpack(t, filepath.Join(path, c.inside), c.saved)
				if c.want == "" {
					require.NoError(t, err)
					assert.Equal(t, c.files, files)
				} else if len(c.members) > 0 || name == "z" {
					assert.EqualError(t, err, path+strings.ReplaceAll(c.want, "ZIP", path))
				}
			}
		})
	}
}

func TestSplit(t *testing.T) {
	path := write(t, "m.zip", zipOf(t, "m.index="))
	for in, inside := range map[string]string{"": "", "/": "", "/a": "a", "/a/b/": "a/b", "/./a": "a"} {
		name, got, ok := Split(path + in)
		assert.True(t, ok)
		assert.Equal(t, [2]string{path, inside}, [2]string{name, got})
	}
	for _, path := range []string{
		"", ".", "none", "/none/model.zip", t.TempDir(), write(t, "m.zip", []byte("<html>")), write(t, "m.index", nil),
		write(t, "pytorch_model.bin", zipOf(t, "archive/data.pkl=x")), "gs://bucket/m.zip",
	} {
		_, _, ok := Split(path)
		assert.False(t, ok, path)
	}
	for name, want := range map[string]string{
		"a/bert.zip": "bert", "bert.ZIP": "bert", "model.tar.gz": "model", "m.tgz": "m", "zip": "zip", "bert": "bert", ".zip": ".zip",
	} {
		assert.Equal(t, want, Base(name), name)
	}
}

func TestDamaged(t *testing.T) {
	packed := gzipOf(t, tarOf(t, tar.FormatGNU, "m.index="+strings.Repeat("x", 100), "m"+shard+"=d"))
	whole := zipOf(t, "m.index=x")
	for _, c := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"cut zip", whole[:len(whole)-10], ": zip: not a valid zip file: it is damaged or not complete; download it again"},
		{"cut tar.gz", packed[:len(packed)-20], ": unexpected EOF: it is damaged or not complete; download it again"},
		{"one packed file", gzipOf(t, []byte("[PAD]\n")), ": it is packed, but not an archive: unpack it"},
		{"a packed zip", gzipOf(t, whole), ": it is packed, but not an archive: unpack it"},
		{"an empty tar", gzipOf(t, make([]byte, 1024)), ": it holds nothing"},
		{"packed nothing", gzipOf(t, nil), ": it holds nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "m", c.content)
			_, _, err := unpack(t, path, false)
			assert.EqualError(t, err, path+c.want)
		})
	}
}

func TestNameError(t *testing.T) {
	path := write(t, "m.zip", zipOf(t, "bert/m.index=", "bert_config.json="))
	u, _, err := unpack(t, path, false)
	require.NoError(t, err)
	cause := errors.New("read " + u.Path + "/bert_config.json in " + u.Path + " of " + u.Path + "/m.index")
	err = u.NameError(cause)
	assert.EqualError(t, err, "read "+path+"/bert_config.json in "+path+"/bert of "+path+"/bert/m.index")
	assert.ErrorIs(t, err, cause)
	assert.NoError(t, u.NameError(nil))
	assert.Equal(t, cause, (*Unpacked)(nil).NameError(cause))
}
