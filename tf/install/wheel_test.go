package install

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/testenv/bounded"
)

// A fakeWheel is a wheel to be: members in order, and RECORD right unless a test spoils it.
type fakeWheel struct {
	name    string // NAME-VERSION
	members []fakeMember
}

type fakeMember struct {
	name, body string
	mode       fs.FileMode
	recorded   string // what RECORD has as its body instead; "-": no line
}

// tensorFlowWheel is a small wheel of TensorFlow.
func tensorFlowWheel(name string, metadata ...string) fakeWheel {
	return fakeWheel{name, []fakeMember{
		{name: libtf.CCLibrary, body: strings.Repeat("cc library ", 9000)},
		{name: libtf.FrameworkLibrary, body: "framework library"},
		{name: "tensorflow/include/tensorflow/c/c_api.h", body: "int TF_Version();"},
		{name: "tensorflow/include/xla/tsl/c/tsl_status.h", body: "enum code;"},
		{name: "tensorflow/include/tensorflow/core/public/session.h", body: "not needed"},
		{name: "tensorflow/python/framework/lib_native.so", body: "not needed"},
		{name: name + ".dist-info/METADATA",
			body: "Name: tensorflow\n" + strings.Join(metadata, "\n") +
				"\n\nRequires-Dist: in-the-description; extra == 'and-cuda'\n"},
	}}
}

// write makes the file and returns its pin.
func (w fakeWheel) write(t testing.TB, path string) pin {
	t.Helper()
	var buf bytes.Buffer
	archive := zip.NewWriter(&buf)
	record := w.name + ".dist-info/RECORD,,\n"
	for _, m := range w.members {
		header := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		header.SetMode(max(m.mode, 0o644))
		f, err := archive.CreateHeader(header)
		require.NoError(t, err)
		_, err = f.Write([]byte(m.body))
		require.NoError(t, err)
		body := m.body
		if m.recorded != "" {
			body = m.recorded
		}
		if m.recorded != "-" {
			sum := sha256.Sum256([]byte(body))
			record += fmt.Sprintf("%s,sha256=%s,%d\n", m.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(body))
		}
	}
	f, err := archive.Create(w.name + ".dist-info/RECORD")
	require.NoError(t, err)
	_, err = f.Write([]byte(record))
	require.NoError(t, err)
	require.NoError(t, archive.Close())
	require.NoError(t, os.WriteFile(path, buf.Bytes(), 0o644))
	sum := sha256.Sum256(buf.Bytes())
	return pin{filepath.Base(path), hex.EncodeToString(sum[:]), int64(buf.Len())}
}

// extractAll extracts a wheel into a new folder and returns the files' paths below it.
func extractAll(t *testing.T, path string) (dir string, files []string, err error) {
	t.Helper()
	w, err := openWheel(path)
	if err != nil {
		return "", nil, err
	}
	defer w.Close()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	err = w.extract(context.Background(), root, func(int) {})
	return dir, listFiles(t, dir), err
}

// listFiles returns the paths of the files below dir.
func listFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			files = append(files, filepath.ToSlash(rel))
		}
		return err
	}))
	return files
}

func TestExtract(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.whl")
	w := tensorFlowWheel("tensorflow_cpu-2.21.0")
	w.members = append(w.members,
		fakeMember{name: "nvidia/cublas/lib/libcublas.so.12", body: "cublas"},
		fakeMember{name: "nvidia/cublas/include/cublas.h", body: "not needed"},
		fakeMember{name: "nvidia/cuda_runtime/lib/libcudart_static.a", body: "not needed"},
		fakeMember{name: "nvidia/cuda_nvcc/bin/ptxas", body: "ptxas", mode: 0o755},
		fakeMember{name: "nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc", body: "bitcode"},
	)
	w.write(t, path)
	dir, files, err := extractAll(t, path)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"nvidia/cublas/lib/libcublas.so.12",
		"nvidia/cuda_nvcc/bin/ptxas",
		"nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc",
		"tensorflow/include/tensorflow/c/c_api.h",
		"tensorflow/include/xla/tsl/c/tsl_status.h",
		"tensorflow/libtensorflow_cc.so.2",
		"tensorflow/libtensorflow_framework.so.2",
	}, files)
	body, err := os.ReadFile(filepath.Join(dir, libtf.CCLibrary))
	require.NoError(t, err)
	assert.Equal(t, w.members[0].body, string(body))
	for name, want := range map[string]fs.FileMode{"nvidia/cuda_nvcc/bin/ptxas": 0o755, libtf.CCLibrary: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode(), name)
	}
}

func TestExtractBadWheel(t *testing.T) {
	const project = "tensorflow_cpu-2.21.0"
	with := func(m ...fakeMember) fakeWheel {
		w := tensorFlowWheel(project)
		w.members = append(w.members, m...)
		return w
	}
	for _, tt := range []struct {
		name  string
		wheel fakeWheel
		want  string
	}{
		{"other content than recorded", with(fakeMember{name: "tensorflow/include/tsl/c/a.h", body: "abc", recorded: "abd"}),
			"not what RECORD lists"},
		{"other size than recorded", with(fakeMember{name: "tensorflow/include/tsl/c/a.h", body: "abc", recorded: "abcd"}),
			"not what RECORD lists"},
		{"not recorded", with(fakeMember{name: "tensorflow/include/tsl/c/a.h", body: "abc", recorded: "-"}),
			"RECORD has no SHA-256"},
		{"path upwards", with(fakeMember{name: "../evil.so"}), `member "../evil.so" would land outside`},
		{"path upwards inside", with(fakeMember{name: "tensorflow/../../evil.so"}), "would land outside"},
		{"absolute path", with(fakeMember{name: "/etc/evil"}), "would land outside"},
		{"line feed", with(fakeMember{name: "tensorflow/include/tsl/c/a\n.h"}), "would land outside"},
		{"backslashes", with(fakeMember{name: `..\evil`}), "would land outside"},
		{"link", with(fakeMember{name: "tensorflow/libtensorflow_cc.so.3", body: "/etc/passwd",
			mode: fs.ModeSymlink | 0o777}), "not a plain file"},
		{"member twice", with(fakeMember{name: libtf.FrameworkLibrary, body: "framework library"}), "file exists"},
		{"RECORD twice", with(fakeMember{name: "other-1.0.dist-info/RECORD", body: "x"}), "more than one RECORD"},
		{"RECORD is no CSV", fakeWheel{`a"b-1.0`, nil}, "RECORD: "},
		{"no version", fakeWheel{"tensorflow", nil}, "not a wheel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.whl")
			tt.wheel.write(t, path)
			_, _, err := extractAll(t, path)
			require.ErrorContains(t, err, tt.want)
			assert.ErrorContains(t, err, path)
		})
	}
}

func TestExtractDamagedFile(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "x.whl")
	tensorFlowWheel("tensorflow_cpu-2.21.0").write(t, whole)
	data, err := os.ReadFile(whole)
	require.NoError(t, err)
	for _, tt := range []struct {
		name  string
		spoil func(data []byte) []byte
		want  string
	}{
		{"empty", func([]byte) []byte { return nil }, "not a wheel, or not a whole one"},
		{"a web page", func([]byte) []byte { return []byte("<html>not found</html>") }, "not a wheel, or not a whole one"},
		{"cut", func(b []byte) []byte { return b[:len(b)/2] }, "not a wheel, or not a whole one"},
		{"bit flipped", func(b []byte) []byte { b[100] ^= 4; return b }, libtf.CCLibrary},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.whl")
			require.NoError(t, os.WriteFile(path, tt.spoil(bytes.Clone(data)), 0o644))
			_, _, err := extractAll(t, path)
			require.ErrorContains(t, err, tt.want)
			assert.ErrorContains(t, err, path)
		})
	}
}

// rawZip makes a zip whose members declare sizes that are not theirs.
func rawZip(t testing.TB, members map[string]uint64, bodies map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		var packed bytes.Buffer
		w, err := flate.NewWriter(&packed, flate.BestCompression)
		require.NoError(t, err)
		_, err = io.WriteString(w, bodies[name])
		require.NoError(t, err)
		require.NoError(t, w.Close())
		size, ok := members[name]
		if !ok {
			size = uint64(len(bodies[name]))
		}
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE([]byte(bodies[name])),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: size}
		h.SetMode(0o644)
		raw, err := z.CreateRaw(h)
		require.NoError(t, err)
		_, err = raw.Write(packed.Bytes())
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return buf.Bytes()
}

// What a wheel claims or inflates to costs neither memory nor disk.
func TestHostileWheel(t *testing.T) {
	const record, header = "tensorflow_cpu-2.21.0.dist-info/RECORD", "tensorflow/include/tsl/c/a.h"
	zeros := strings.Repeat("\x00", 2<<20)
	line := func(body string, size any) string {
		sum := sha256.Sum256([]byte(body))
		return fmt.Sprintf("%s,sha256=%s,%v\n", header, base64.RawURLEncoding.EncodeToString(sum[:]), size)
	}
	for _, tt := range []struct {
		name   string
		sizes  map[string]uint64
		bodies map[string]string
		want   string
	}{
		{"RECORD of exabytes", map[string]uint64{record: 1<<64 - 1}, map[string]string{record: "x"},
			"not a wheel: its RECORD is of 18446744073709551615 bytes"},
		{"RECORD that inflates", nil, map[string]string{record: strings.Repeat("\n", 9<<20)},
			"not a wheel: its RECORD is of 9437184 bytes"},
		{"RECORD that inflates beyond its size", map[string]uint64{record: 10},
			map[string]string{record: strings.Repeat("\n", 9<<20)}, "not a valid zip file"},
		{"RECORD of one field", nil, map[string]string{record: strings.Repeat(",", 2<<20)}, "wrong number of fields"},
		{"member of exabytes", map[string]uint64{header: 1<<64 - 1}, map[string]string{record: line("x", 1), header: "x"},
			"not what RECORD lists"},
		{"member of exabytes, as recorded", map[string]uint64{header: 1<<63 - 1},
			map[string]string{record: line("x", uint64(1<<63-1)), header: "x"}, "unexpected EOF"},
		{"member of a negative size", nil, map[string]string{record: line("x", -1), header: "x"}, "not what RECORD lists"},
		{"member that inflates beyond its size", map[string]uint64{header: 10},
			map[string]string{record: line(zeros, 10), header: zeros}, "not a valid zip file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.whl")
			require.NoError(t, os.WriteFile(path, rawZip(t, tt.sizes, tt.bodies), 0o644))
			var dir string
			var err error
			bounded.Run(t, 400<<20, 30*time.Second, func() { dir, _, err = extractAll(t, path) })
			require.ErrorContains(t, err, tt.want)
			if dir != "" {
				info, err := os.Stat(filepath.Join(dir, header))
				assert.True(t, err != nil || info.Size() <= 1<<20, "it wrote more than declared")
			}
		})
	}
}

// The sizes that members claim together must not wrap around to what the disk has room for.
func TestHugeMembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.whl")
	a, b := "tensorflow/include/tsl/c/a.h", "tensorflow/include/tsl/c/b.h"
	require.NoError(t, os.WriteFile(path, rawZip(t, map[string]uint64{a: 1<<64 - 8, b: 16},
		map[string]string{"x-1.0.dist-info/RECORD": "", a: "", b: ""}), 0o644))
	w, err := openWheel(path)
	require.NoError(t, err)
	defer w.Close()
	_, size := w.members()
	assert.EqualValues(t, math.MaxInt64, size)
}

// FuzzWheel holds that any wheel is extracted below its folder or refused.
func FuzzWheel(f *testing.F) {
	path := filepath.Join(f.TempDir(), "x.whl")
	w := tensorFlowWheel("tensorflow_cpu-2.21.0", "Requires-Dist: nvidia-nccl-cu12; extra == 'and-cuda'")
	w.write(f, path)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole)
	f.Add(rawZip(f, map[string]uint64{"tensorflow/libtensorflow_cc.so.2": 1 << 40},
		map[string]string{"a-1.dist-info/RECORD": "", "tensorflow/libtensorflow_cc.so.2": "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(parent, "tree"), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
		root, err := os.OpenRoot(filepath.Join(parent, "tree"))
		require.NoError(t, err)
		defer root.Close()
		// Each member is extracted through a buffer of a megabyte, and RECORD has up to maxListing.
		bounded.Run(t, 1<<30, 30*time.Second, func() {
			w, err := openWheel(path)
			if err != nil {
				return
			}
			defer w.Close()
			_ = w.extract(t.Context(), root, func(int) {})
		})
		entries, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("tensorflow/a.so,sha256=abc,3\nx.dist-info/RECORD,,\n")
	f.Add("\"a,b\",sha256=abc,-1\n")
	f.Add("a,sha256=abc,x")
	f.Fuzz(func(t *testing.T, text string) {
		var record map[string]recorded
		var err error
		bounded.Run(t, 100*len(text), 10*time.Second, func() { record, err = parseRecord(strings.NewReader(text)) })
		if err != nil {
			return
		}
		assert.LessOrEqual(t, len(record), strings.Count(text, "sha256="))
	})
}

func BenchmarkExtract(b *testing.B) {
	w := tensorFlowWheel("tensorflow_cpu-2.21.0")
	var body strings.Builder
	for i := range 1 << 20 {
		fmt.Fprintf(&body, "%x ", i*i)
	}
	w.members[0].body = body.String()
	path := filepath.Join(b.TempDir(), "x.whl")
	w.write(b, path)
	b.SetBytes(int64(body.Len()))
	for b.Loop() {
		wheel, err := openWheel(path)
		require.NoError(b, err)
		dir := b.TempDir()
		root, err := os.OpenRoot(dir)
		require.NoError(b, err)
		require.NoError(b, wheel.extract(b.Context(), root, func(int) {}))
		root.Close()
		wheel.Close()
		os.RemoveAll(dir)
	}
}
