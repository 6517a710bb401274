package file

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func tarOf(t *testing.T, format tar.Format, name string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: 1, Mode: 0o644, Format: format}))
	_, err := w.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func zipOf(t *testing.T, name string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	require.NoError(t, err)
	_, err = f.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func gzipOf(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(content))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

// v7 makes the header that tar wrote before there was a magic number.
func v7(t *testing.T) string {
	b := []byte(tarOf(t, tar.FormatUSTAR, "model.ckpt.index"))
	clear(b[257:512])
	sum := int64(8 * ' ')
	for i, c := range b[:512] {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	copy(b[148:156], []byte{0, 0, 0, 0, 0, 0, 0, ' '})
	for i := 5; i >= 0; i-- {
		b[148+i] = byte('0' + sum%8)
		sum /= 8
	}
	return string(b)
}

func TestKindOf(t *testing.T) {
	table := func(head string) string { return head + strings.Repeat("x", 60) + tableMagic }
	for _, c := range []struct {
		name, content string
		want          Kind
	}{
		{"empty", "", Empty},
		{"pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", LFSPointer},
		{"page", "\n<!DOCTYPE html>\n<html lang=en>", HTML},
		{"page with a byte order mark", "\ufeff<html><body>404", HTML},
		{"page after a comment", "<!-- x -->\n<HTML>\n", HTML},
		{"XHTML", `<?xml version="1.0"?><!DOCTYPE html><html xmlns="x">`, HTML},
		{"error of S3", `<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>`, XML},
		{"macOS", "\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", AppleDouble},
		{"zip", zipOf(t, "bert/vocab.txt"), Zip},
		{"empty zip", "PK\x05\x06" + strings.Repeat("\x00", 18), Zip},
		{"cut zip", "PK\x03\x04", Zip},
		{"torch", zipOf(t, "archive/data.pkl"), PyTorch},
		{"old torch", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", PyTorch},
		{"npz", zipOf(t, "arr_0.npy"), NumPy},
		{"npy", "\x93NUMPY\x01\x00", NumPy},
		{"gzip", gzipOf(t, "x"), Gzip},
		{"bzip2", "BZh91AY&SY", Bzip2},
		{"zstd", "\x28\xb5\x2f\xfd\x04\x00", Zstd},
		{"xz", "\xfd7zXZ\x00\x00", XZ},
		{"7z", "7z\xbc\xaf\x27\x1c\x00", SevenZ},
		{"rar", "Rar!\x1a\x07\x01\x00", RAR},
		{"tar", tarOf(t, tar.FormatUSTAR, "./vocab.txt"), Tar},
		{"GNU tar", tarOf(t, tar.FormatGNU, "./"+strings.Repeat("x", 200)), Tar},
		{"pax tar", tarOf(t, tar.FormatPAX, "ü/"+strings.Repeat("x", 200)), Tar},
		{"tar of the seventh edition", v7(t), Tar},
		{"safetensors", "\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":{}}", Safetensors},
		{"HDF5", "\x89HDF\r\n\x1a\n\x00", HDF5},
		{"TensorFlow Lite", "\x1c\x00\x00\x00TFL3\x00\x00", TFLite},
		{"SavedModel", "\x08\x01\x12\xc0\x3b", SavedModel},
		{"frozen graph", "\x0a\x1e\x0a\x09input_ids\x12\x0bPlaceholder\x2a\x00", GraphDef},
		{"meta graph", "\x0a\x20\x12\x10\x0a\x0e\x0a\x03Add\x22\x05serve", MetaGraph},
		{"text SavedModel", "saved_model_schema_version: 1\nmeta_graphs {\n", TextGraph},
		{"text graph", "node {\n  name: \"x\"\n", TextGraph},
		{"index", table("\x00\x00\x0a\x08\x01\x1a\x02"), Index},
		{"V1 checkpoint", table("\x00\x00\xb8\x13\x0a\xb5\x13"), CheckpointV1},
		{"compressed V1 checkpoint", table("\x80\x20\xf0\x3c\x00\x00\x90\x03\x0a\x8d\x03"), CheckpointV1},

		{"vocabulary", "[PAD]\n[UNK]\n", ""},
		{"vocabulary of markup", "<s>\n<pad>\n</s>\n<unk>\n", ""},
		{"JSON", `{"vocab_size": 1}`, ""},
		{"line feed", "\n", ""},
		{"zeros", strings.Repeat("\x00", 1000), ""},
		{"field that leads nowhere", "\x0a\xff\xff\xff\xff\x0f\x0a\x01x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := strings.NewReader(c.content)
			assert.Equal(t, c.want, KindOf(r, r.Size()))
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, []byte(c.content), 0o666))
			assert.Equal(t, c.want, KindOfPath(path))
		})
	}
	assert.Empty(t, KindOfPath(t.TempDir()))
	assert.EqualError(t, &KindError{"vocab.txt", LFSPointer},
		"vocab.txt is a Git LFS pointer, not the file itself: run git lfs pull")
}

func TestCheckLocal(t *testing.T) {
	for _, path := range []string{
		"gs://bucket/model.ckpt", "s3://b/k", "hdfs://host:9000/x", "abfs://x@y/z", "http://h/x", "https://h/x",
		"file:///tmp/x", "GS://bucket", " gs://bucket", "s3a://b", "gs://",
	} {
		err := CheckLocal(path)
		assert.ErrorContains(t, err, ":// is not supported: give a local path", path)
	}
	assert.EqualError(t, CheckLocal("GS://bucket"), "gs:// is not supported: give a local path")
	for _, path := range []string{"", "-", "model", "/a//b", `C:\model`, "C:/model", "a:b", "./gs://x", "://x", "gs:/x"} {
		assert.NoError(t, CheckLocal(path), path)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"._vocab.txt", ".DS_Store", ".ipynb_checkpoints", ".git", "__MACOSX"} {
		assert.True(t, IsHidden(name), name)
	}
	for _, name := range []string{"vocab.txt", ".", "..", "_", "MACOSX"} {
		assert.False(t, IsHidden(name), name)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "model.zip.crdownload")
	require.NoError(t, os.WriteFile(path, nil, 0o666))
	assert.True(t, IsPartial(path))
	assert.False(t, IsPartial(filepath.Join(dir, "other.part")), "which does not exist")
	assert.False(t, IsPartial(dir))
}
