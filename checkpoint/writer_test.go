package checkpoint

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/testenv"
)

// rewriteCheckpoint copies every variable of r to a new checkpoint and returns its prefix.
func rewriteCheckpoint(t *testing.T, r *Reader) string {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "copy")
	w, err := Create(prefix)
	require.NoError(t, err)
	defer w.Abort()
	for _, v := range r.Variables() {
		data, err := r.Read(v.Name)
		require.NoError(t, err)
		require.NoError(t, w.Add(v.Name, v.DType, v.Shape, data))
	}
	require.NoError(t, w.Close())
	return prefix
}

func requireSameFile(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.ReadFile(want)
	require.NoError(t, err)
	b, err := os.ReadFile(got)
	require.NoError(t, err)
	require.True(t, string(a) == string(b), "%s and %s differ", want, got)
}

// The bundled model was written by TensorFlow, and so must be its copy, to the byte.
func TestRewriteBundledModel(t *testing.T) {
	model := filepath.Join(testenv.Model(t), "model.ckpt")
	prefix := rewriteCheckpoint(t, openTest(t, model))
	for _, suffix := range []string{".index", ".data-00000-of-00001"} {
		requireSameFile(t, model+suffix, prefix+suffix)
	}
}

// Many variables, so that the index takes several blocks: see testdata/make.py.
func TestSameBytesAsTensorFlow(t *testing.T) {
	values := map[string]int{}
	for i := range 6000 {
		values[fmt.Sprintf("model/layer_%d/%s/weight", i, strings.Repeat("x", i%50))] = i
	}

	prefix := filepath.Join(t.TempDir(), "many")
	w, err := Create(prefix)
	require.NoError(t, err)
	defer w.Abort()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i := values[name]
		require.NoError(t, w.AddFloat32s(name, []int64{2}, []float32{float32(i), float32(-i)}))
	}
	require.NoError(t, w.Close())

	var got strings.Builder
	for _, suffix := range []string{".data-00000-of-00001", ".index"} {
		b, err := os.ReadFile(prefix + suffix)
		require.NoError(t, err)
		fmt.Fprintf(&got, "%x  many%s\n", sha256.Sum256(b), suffix)
	}
	want, err := os.ReadFile("testdata/many.sha256")
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())
}

func TestRoundTrip(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "ckpt")
	w, err := Create(prefix)
	require.NoError(t, err)
	defer w.Abort()
	// Out of order, and more than one chunk of data.
	large := make([]float32, chunkSize)
	for i := range large {
		large[i] = float32(i) / 3
	}
	require.NoError(t, w.AddFloat32s("z/large", []int64{4, chunkSize / 4}, large))
	raw := map[string][]byte{}
	for dtype := range dtypes {
		if dtype == String {
			continue
		}
		data := []byte("0123456789abcdef0123456789abcdef")[:2*dtype.Size()]
		raw[dtype.String()] = data
		require.NoError(t, w.Add(dtype.String(), dtype, []int64{2, 1}, data))
	}
	require.NoError(t, w.AddFloat32s("scalar", nil, []float32{1}))
	require.NoError(t, w.AddFloat32s("empty", []int64{0}, nil))
	require.NoError(t, w.Close())

	r := openTest(t, prefix)
	for name, want := range raw {
		v, ok := r.Variable(name)
		require.True(t, ok)
		assert.Equal(t, name, v.DType.String())
		assert.Equal(t, []int64{2, 1}, v.Shape)
		got, err := r.Read(name)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	got, err := r.Float32s("z/large")
	require.NoError(t, err)
	assert.Equal(t, large, got)
	got, err = r.Float32s("empty")
	require.NoError(t, err)
	assert.Empty(t, got)
	assert.Len(t, r.Variables(), len(raw)+3)
}

func TestWriterRefuses(t *testing.T) {
	tests := []struct {
		name string
		add  func(w *Writer) error
		want string
	}{
		{"no name", func(w *Writer) error { return w.AddFloat32s("", nil, []float32{1}) },
			"write: a variable without a name"},
		{"name twice", func(w *Writer) error { return w.AddFloat32s("first", nil, []float32{1}) },
			"write first: a variable of this name is there already"},
		{"string", func(w *Writer) error { return w.Add("s", String, nil, nil) },
			"write s: string[] has no fixed size"},
		{"negative", func(w *Writer) error { return w.Add("s", Int8, []int64{-1}, nil) },
			"write s: int8[-1] has no fixed size"},
		{"overflow", func(w *Writer) error { return w.Add("s", Int8, []int64{1 << 32, 1 << 31}, nil) },
			"write s: int8[4294967296 2147483648] has no fixed size"},
		{"too few values", func(w *Writer) error { return w.AddFloat32s("s", []int64{2, 3}, make([]float32, 5)) },
			"write s: 20 bytes given, but float32[2 3] takes 24"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			w, err := Create(filepath.Join(dir, "ckpt"))
			require.NoError(t, err)
			defer w.Abort()
			require.NoError(t, w.AddFloat32s("first", nil, []float32{1}))
			assert.EqualError(t, test.add(w), test.want)
			assert.EqualError(t, w.AddFloat32s("next", nil, []float32{1}), test.want)
			assert.EqualError(t, w.Close(), test.want)
			assertEmpty(t, dir)
		})
	}
}

func TestAbortLeavesTheOldCheckpoint(t *testing.T) {
	prefix := copyFiles(t, "testdata/types")
	w, err := Create(prefix)
	require.NoError(t, err)
	require.NoError(t, w.AddFloat32s("a", nil, []float32{1}))
	w.Abort()
	w.Abort()
	assert.ErrorIs(t, w.Close(), errClosed)
	assert.ErrorIs(t, w.AddFloat32s("b", nil, []float32{1}), errClosed)
	for _, suffix := range []string{".index", ".data-00000-of-00001"} {
		requireSameFile(t, "testdata/types"+suffix, prefix+suffix)
	}
}

func TestCloseTwice(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "ckpt")
	w, err := Create(prefix)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	w.Abort()
	assert.ErrorIs(t, w.Close(), errClosed)
	assert.Empty(t, openTest(t, prefix).Variables())
}

func TestCreateInMissingFolder(t *testing.T) {
	_, err := Create(filepath.Join(t.TempDir(), "no", "ckpt"))
	assert.ErrorContains(t, err, "create checkpoint ")
}

func TestFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/dev/full is Linux's")
	}
	for _, suffix := range []string{".data-00000-of-00001", ".index"} {
		t.Run(suffix, func(t *testing.T) {
			dir := t.TempDir()
			prefix := filepath.Join(dir, "ckpt")
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			require.NoError(t, err)
			defer full.Close()
			w, err := Create(prefix)
			require.NoError(t, err)
			defer w.Abort()
			for _, p := range []*file.Pending{w.file, w.index} {
				if strings.HasSuffix(p.Path(), suffix) {
					require.NoError(t, p.File.Close())
					p.File = full
				}
			}
			require.NoError(t, w.AddFloat32s("a", nil, []float32{1}))
			assert.ErrorContains(t, w.Close(), "no space left on device")
			assertEmpty(t, dir)
		})
	}
}

func assertEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func BenchmarkAddFloat32s(b *testing.B) {
	values := make([]float32, 1<<20)
	b.SetBytes(int64(4 * len(values)))
	b.ReportAllocs()
	dir := b.TempDir()
	for b.Loop() {
		w, err := Create(filepath.Join(dir, "ckpt"))
		require.NoError(b, err)
		require.NoError(b, w.AddFloat32s("w", []int64{1 << 20}, values))
		require.NoError(b, w.Close())
	}
}
