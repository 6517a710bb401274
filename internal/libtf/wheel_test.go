package libtf

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		{name: ccLibrary, body: strings.Repeat("cc library ", 9000)},
		{name: frameworkLibrary, body: "framework library"},
		{name: "tensorflow/include/tensorflow/c/c_api.h", body: "int TF_Version();"},
		{name: "tensorflow/include/xla/tsl/c/tsl_status.h", body: "enum code;"},
		{name: "tensorflow/include/tensorflow/core/public/session.h", body: "not needed"},
		{name: "tensorflow/python/framework/lib_native.so", body: "not needed"},
		{name: name + ".dist-info/METADATA", body: "Name: tensorflow\n" + strings.Join(metadata, "\n") + "\n\nRequires-Dist: in-the-description; extra == 'and-cuda'\n"},
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
	body, err := os.ReadFile(filepath.Join(dir, ccLibrary))
	require.NoError(t, err)
	assert.Equal(t, w.members[0].body, string(body))
	for name, want := range map[string]fs.FileMode{"nvidia/cuda_nvcc/bin/ptxas": 0o755, ccLibrary: 0o644} {
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
		{"other content than recorded", with(fakeMember{name: "tensorflow/include/tsl/c/a.h", body: "abc", recorded: "abd"}), "not what RECORD lists"},
		{"other size than recorded", with(fakeMember{name: "tensorflow/include/tsl/c/a.h", body: "abc", recorded: "abcd"}), "not what RECORD lists"},
		{"not recorded", with(fakeMember{name: "tensorflow/include/tsl/c/a.h", body: "abc", recorded: "-"}), "RECORD has no SHA-256"},
		{"path upwards", with(fakeMember{name: "../evil.so"}), `member "../evil.so" would land outside`},
		{"path upwards inside", with(fakeMember{name: "tensorflow/../../evil.so"}), "would land outside"},
		{"absolute path", with(fakeMember{name: "/etc/evil"}), "would land outside"},
		{"backslashes", with(fakeMember{name: `..\evil`}), "would land outside"},
		{"link", with(fakeMember{name: "tensorflow/libtensorflow_cc.so.3", body: "/etc/passwd", mode: fs.ModeSymlink | 0o777}), "no plain file"},
		{"member twice", with(fakeMember{name: frameworkLibrary, body: "framework library"}), "file exists"},
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
		{"bit flipped", func(b []byte) []byte { b[100] ^= 4; return b }, ccLibrary},
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

func TestParseRequirements(t *testing.T) {
	const metadata = `Metadata-Version: 2.1
Name: tensorflow
Requires-Dist: numpy>=1.26.0
Requires-Dist: nvidia-cublas-cu12<13.0,>=12.5.3.2; extra == "and-cuda"
Requires-Dist: nvidia-cuda-cupti-cu12 (==12.2.142) ; extra == 'and-cuda'
Requires-Dist: nvidia-nccl-cu12==2.16.5 ; (platform_system == "Linux") and extra == "and-cuda"
Requires-Dist: tensorflow-io>=0.23.1; extra == "gcs-filesystem"

Requires-Dist: prose; extra == "and-cuda"
`
	reqs, err := parseRequirements(strings.NewReader(metadata), "and-cuda")
	require.NoError(t, err)
	assert.Equal(t, []string{"nvidia-cublas-cu12<13.0,>=12.5.3.2", "nvidia-cuda-cupti-cu12==12.2.142", "nvidia-nccl-cu12==2.16.5"}, reqs)

	for _, bad := range []string{"--index-url=http://evil", "a @ https://evil/a.whl", "../a.whl", ""} {
		_, err := parseRequirements(strings.NewReader("Requires-Dist: "+bad+"; extra == 'and-cuda'"), "and-cuda")
		assert.ErrorContains(t, err, "not understood", bad)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("tensorflow/a.so,sha256=abc,3\nx.dist-info/RECORD,,\n")
	f.Add("\"a,b\",sha256=abc,-1\n")
	f.Add("a,sha256=abc,x")
	f.Fuzz(func(t *testing.T, text string) {
		record, err := parseRecord(strings.NewReader(text))
		if err != nil {
			return
		}
		assert.LessOrEqual(t, len(record), strings.Count(text, "sha256="))
	})
}

func FuzzParseRequirements(f *testing.F) {
	f.Add("Requires-Dist: nvidia-cublas-cu12<13.0,>=12.5.3.2; extra == \"and-cuda\"\n")
	f.Add("Requires-Dist: a (==1) ; extra == 'and-cuda'\n\n")
	f.Fuzz(func(t *testing.T, metadata string) {
		reqs, _ := parseRequirements(strings.NewReader(metadata), "and-cuda")
		for _, req := range reqs { // they become arguments of a command
			assert.Regexp(t, `^[A-Za-z0-9][A-Za-z0-9._<>=!~,*+-]*$`, req)
		}
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
