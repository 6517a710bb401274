package tfbert_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/tfbert"
)

// A member of a zip that no archiver makes.
type member struct {
	name     string
	mode     fs.FileMode
	body     string
	declared uint64 // as its size; 0 for the right one
}

// zipOf makes a zip. The members' sizes are what they declare.
func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, m := range members {
		var packed bytes.Buffer
		w, err := flate.NewWriter(&packed, flate.BestCompression)
		require.NoError(t, err)
		_, err = w.Write([]byte(m.body))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate, CompressedSize64: uint64(packed.Len()),
			UncompressedSize64: max(m.declared, uint64(len(m.body)))}
		if m.declared != 0 {
			h.UncompressedSize64 = m.declared
		}
		h.SetMode(max(m.mode, 0o644))
		raw, err := z.CreateRaw(h)
		require.NoError(t, err)
		_, err = raw.Write(packed.Bytes())
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return buf.Bytes()
}

// A zip writes only the files of its checkpoint, in the folder that is made for it, and no more
// than it says at the sizes that zips have.
func TestHostileZip(t *testing.T) {
	index := member{name: "model.ckpt.index", body: "x"}
	var many []member
	for i := range 5000 {
		many = append(many, member{name: fmt.Sprint(i, ".index")})
	}
	for _, c := range []struct {
		name string
		zip  []byte
		want string
	}{
		{"path upwards", zipOf(t, index, member{name: "../model.ckpt.data-00000-of-00001"}),
			`member "../model.ckpt.data-00000-of-00001" would land outside its folder: refused`},
		{"path upwards inside", zipOf(t, member{name: "a/../../model.ckpt.index"}), "would land outside"},
		{"path upwards of what is not unpacked", zipOf(t, index, member{name: "../../.bashrc"}), "would land outside"},
		{"absolute path", zipOf(t, member{name: "/etc/model.ckpt.index"}), "would land outside"},
		{"line feed", zipOf(t, member{name: "model\n.index"}), `member "model\n.index" would land outside`},
		{"backslashes", zipOf(t, member{name: `..\model.ckpt.index`}), "would land outside"},
		{"link", zipOf(t, index, member{name: "vocab.txt", mode: fs.ModeSymlink | 0o777, body: "/etc/passwd"}),
			"vocab.txt is not a plain file"},
		{"device", zipOf(t, index, member{name: "vocab.txt", mode: fs.ModeDevice | 0o666}), "vocab.txt is not a plain file"},
		{"pipe", zipOf(t, member{name: "model.ckpt.index", mode: fs.ModeNamedPipe | 0o666}), "is not a plain file"},
		{"member twice", zipOf(t, index, index), "model.ckpt.index is in this archive twice: refused"},
		{"member twice, in folders", zipOf(t, member{name: "a/model.ckpt.index"}, member{name: `b\model.ckpt.index`}),
			"holds several models: a/model.ckpt, b/model.ckpt; name one, as in "},
		{"many members", zipOf(t, many...), "more than 4096 files of models"},
		{"bomb", zipOf(t, index, member{name: "model.ckpt.data-00000-of-00001", body: strings.Repeat("\x00", 80<<20)}),
			"unpacks to more than 67108864 bytes, which no model of its size does"},
		{"bomb of many", zipOf(t, index, member{name: "a.data-00000-of-00001", body: strings.Repeat("\x00", 40<<20)}, member{name: "b.data-00000-of-00001", body: strings.Repeat("\x00", 40<<20)}),
			"b.data-00000-of-00001: this archive unpacks to more than "},
		{"claim of exabytes", zipOf(t, index, member{name: "model.ckpt.data-00000-of-00001", declared: 1<<64 - 1}), "unpacks to more than"},
		{"claims that wrap around", zipOf(t, member{name: "a.index", body: "x"}, member{name: "a.data-0", declared: 1<<64 - 2}, member{name: "b.data-0", declared: 3}), "unpacks to more than"},
		{"more than it declares", zipOf(t, index, member{name: "model.ckpt.data-00000-of-00001", body: strings.Repeat("\x00", 8<<20), declared: 10}), "zip: not a valid zip file"},
		{"less than it declares", zipOf(t, index, member{name: "model.ckpt.data-00000-of-00001", body: "x", declared: 10}), "unexpected EOF"},
		{"only a suffix", zipOf(t, member{name: ".index", body: "x"}), "no checkpoint in this archive"},
		{"claim of members", claimMembers(zipOf(t, index)), "zip"},
		{"encrypted", encrypted(zipOf(t, index)), "model.ckpt.index is encrypted"},
		{"tar with a path upwards", tarOf(t, true, tar.Header{Name: "../model.ckpt.index"}), "would land outside"},
		{"tar with an absolute path", tarOf(t, true, tar.Header{Name: "/etc/model.ckpt.index"}), "would land outside"},
		{"tar with a link", tarOf(t, true, tar.Header{Name: "m.index"},
			tar.Header{Name: "vocab.txt", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "vocab.txt is not a plain file"},
		{"tar with a hard link", tarOf(t, true, tar.Header{Name: "m.index", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
			"m.index is not a plain file"},
		{"tar with a device", tarOf(t, false, tar.Header{Name: "m.index", Typeflag: tar.TypeChar}), "is not a plain file"},
		{"tar with a member twice", tarOf(t, true, tar.Header{Name: "m.index"}, tar.Header{Name: "./m.index"}),
			"m.index is in this archive twice: refused"},
		{"tar bomb", tarOf(t, true, tar.Header{Name: "m.index"}, tar.Header{Name: "m.data-00000-of-00001", Size: 80 << 20}),
			"unpacks to more than 67108864 bytes"},
		{"tar bomb beside the model", tarOf(t, true, tar.Header{Name: "m.index"}, tar.Header{Name: "x", Size: 40 << 20},
			tar.Header{Name: "y", Size: 40 << 20}), "unpacks to more than 67108864 bytes"},
		{"bomb that is no tar", gzipped(t, make([]byte, 80<<20)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model.zip")
			require.NoError(t, os.WriteFile(path, c.zip, 0o666))
			bounded.Run(t, 100*len(c.zip), 30*time.Second, func() { checkNothingLeft(t, t.Context(), path, nil, c.want) })
			assert.Equal(t, []string{"model.zip"}, fileNames(t, filepath.Dir(path)))
		})
	}
}

// encrypted sets the mark of encryption in the directory of a zip of one member.
func encrypted(z []byte) []byte {
	z = bytes.Clone(z)
	at := bytes.Index(z, []byte("PK\x01\x02"))
	z[at+8] |= 1
	return z
}

// tarOf makes a tar of members that hold zeros.
func tarOf(t testing.TB, packed bool, members ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range members {
		h.Mode = 0o644
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write(make([]byte, h.Size))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	if packed {
		return gzipped(t, buf.Bytes())
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// claimMembers makes the end of a zip claim all the members that there can be.
func claimMembers(z []byte) []byte {
	z = bytes.Clone(z)
	end := z[len(z)-22:]
	binary.LittleEndian.PutUint16(end[8:], 0xffff)
	binary.LittleEndian.PutUint16(end[10:], 0xffff)
	return z
}

// A checkpoint's configuration may claim sizes that no memory holds, and its files need have no end.
func TestHostileCheckpoint(t *testing.T) {
	config := func(text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { writeFile(t, text, dir, "bert_config.json") }
	}
	hole := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, name), 8<<40); err != nil {
				t.Skip("no file of this size can be made here: ", err)
			}
		}
	}
	device := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if _, err := os.Stat("/dev/zero"); err != nil {
				t.Skip("no /dev/zero here")
			}
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
			require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, name)))
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"a million layers",
			config(`{"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1048576}`),
			"variables, too few for 1048576 layers"},
		{"a wide layer",
			config(`{"vocab_size": 20, "hidden_size": 1048576, "num_attention_heads": 2, "intermediate_size": 1048576}`),
			"does not fit"},
		{"deep JSON", config(strings.Repeat("[", 1<<20)), "not a bert_config.json"},
		{"long JSON", config(`{"vocab_size": 20, "x": "` + strings.Repeat("x", 2<<20) + `"}`),
			"not a bert_config.json: it is longer than 1048576 bytes"},
		{"configuration of 8 TiB", hole("bert_config.json"), "not a bert_config.json: it is longer than 1048576 bytes"},
		{"vocabulary of 8 TiB", hole("vocab.txt"), "vocab.txt: read vocabulary: more than 16 MiB"},
		{"endless configuration", device("bert_config.json"), "bert_config.json is not a plain file"},
		{"endless vocabulary", device("vocab.txt"), "vocab.txt is not a plain file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := newToy("gelu").write(t, "model.ckpt")
			c.spoil(t, dir)
			bounded.Run(t, 128<<20, 20*time.Second, func() { checkNothingLeft(t, t.Context(), dir, nil, c.want) })
		})
	}
}

// What a zip holds is unpacked into its folder or refused, and nothing stays of it.
func FuzzUnpack(f *testing.F) {
	f.Add(zipOf(f, member{name: "model.ckpt.index", body: "x"},
		member{name: "a/checkpoint", body: `model_checkpoint_path: "../x"`}))
	f.Add(zipOf(f, member{name: "../vocab.txt", body: "[UNK]"}))
	f.Add(tarOf(f, false, tar.Header{Name: "m.index", Size: 1}, tar.Header{Name: "vocab.txt", Typeflag: tar.TypeSymlink, Linkname: "/"}))
	f.Add(tarOf(f, true, tar.Header{Name: "a/m.index", Size: 1}, tar.Header{Name: "a/m.data-00000-of-00001", Size: 9}))
	f.Add(zipOf(f, member{name: "x.index", mode: fs.ModeSymlink, body: "/etc/passwd"}, member{name: "y.data-00000-of-00001", declared: 1 << 40}))
	dir := f.TempDir()
	path := filepath.Join(dir, "model.zip")
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(path, data, 0o666))
		bounded.Run(t, 2000*len(data), 30*time.Second, func() {
			_, err := tfbert.Export(t.Context(), path, filepath.Join(dir, "model"), nil)
			require.Error(t, err)
		})
		require.Equal(t, []string{"model.zip"}, fileNames(t, dir))
	})
}
