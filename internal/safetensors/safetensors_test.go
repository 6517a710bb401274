package safetensors

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
)

// writeFile writes a file of a header and data.
func writeFile(t testing.TB, header, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	content := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	require.NoError(t, os.WriteFile(path, append(append(content, header...), data...), 0o600))
	return path
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	values := map[string][]float32{"b": {1, -2.5, float32(math.Inf(1)), 0, 3, 4}, "a": {7}, "empty": {}}
	source := func(name string, shape ...int64) Source {
		return Source{name, shape, func() ([]float32, error) { return values[name], nil }}
	}
	require.NoError(t, Write(path, []Source{source("b", 2, 3), source("empty", 0, 5), source("a")}))
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	var names []string
	for _, tensor := range f.Tensors() {
		names = append(names, tensor.Name)
		got, err := f.Float32s(tensor.Name)
		require.NoError(t, err)
		assert.Equal(t, values[tensor.Name], got)
	}
	assert.Equal(t, []string{"b", "empty", "a"}, names)
	assert.Zero(t, f.data%8, "the data is aligned")
	_, err = f.Float32s("none")
	require.ErrorContains(t, err, `has no tensor "none"`)
}

func TestTypes(t *testing.T) {
	data := "\x00\x00\x80\x3f" + "\x00\x3c" + "\x80\x3f" + "\x00\x00\x00\x00\x00\x00\xf0\x3f" + "\x01\x00\x00\x00\x00\x00\x00\x00"
	f, err := Open(writeFile(t, `{"f32":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
		"f16":{"dtype":"F16","shape":[1],"data_offsets":[4,6]},"bf16":{"dtype":"BF16","shape":[1],"data_offsets":[6,8]},
		"__metadata__":{"format":"pt"},
		"f64":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},"i64":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}`, data))
	require.NoError(t, err)
	defer f.Close()
	for _, name := range []string{"f32", "f16", "bf16", "f64"} {
		got, err := f.Float32s(name)
		require.NoError(t, err)
		assert.Equal(t, []float32{1}, got, name)
	}
	_, err = f.Float32s("i64")
	require.ErrorContains(t, err, "I64 is not a floating-point type")
}

func TestDamaged(t *testing.T) {
	entry := func(dtype, shape, offsets string) string {
		return `{"w":{"dtype":"` + dtype + `","shape":` + shape + `,"data_offsets":` + offsets + `}}`
	}
	for _, tt := range []struct{ header, data, want string }{
		{entry("F32", "[2]", "[0,8]"), "1234", "was the file cut off?"},
		{entry("F32", "[1]", "[0,4]"), "12345678", "it has 8 bytes of data, and its tensors have 4"},
		{entry("F32", "[1]", "[4,8]"), "12345678", "where 0 to at most 8 is right"},
		{entry("F32", "[3]", "[0,8]"), "12345678", "\"w\" has 8 bytes, and F32[3] takes 12"},
		{entry("F32", "[-1]", "[0,8]"), "12345678", "of which the size is unknown"},
		{entry("F32", "[4611686018427387904,4]", "[0,8]"), "12345678", "of which the size is unknown"},
		{entry("F33", "[2]", "[0,8]"), "12345678", "of which the size is unknown"},
		{entry("F32", "[2]", "[8,0]"), "12345678", "where 0 to at most 8"},
		{`{"w":{"dtype":"F32","shape":[2]}}`, "", `the entry of "w" is not one of a tensor`},
		{`{"w":7}`, "", `the entry of "w" is not one of a tensor`},
		{`{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"w":{}}`, "", "duplicate"},
		{`[]`, "", "its header is not a JSON object"},
		{`{`, "", "its header is not JSON"},
		{``, "", "its header is not a JSON object"},
	} {
		_, err := Open(writeFile(t, tt.header, tt.data))
		require.ErrorContains(t, err, "is damaged or not a safetensors file: ", tt.header)
		assert.ErrorContains(t, err, tt.want, tt.header)
	}
	for content, want := range map[string]string{
		"":                                  "an empty file",
		"1234567":                           "it has no header",
		"\xff\xff\xff\xff\xff\xff\xff\xff{": "its header claims 18446744073709551615",
		"PK\x03\x04":                        "is a zip archive",
		"version https://git-lfs.github.com/spec/v1\n": "is a Git LFS pointer",
	} {
		path := filepath.Join(t.TempDir(), "model.safetensors")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := Open(path)
		assert.ErrorContains(t, err, want)
	}
}

// A file does not cost memory that it only claims.
func TestClaims(t *testing.T) {
	tiny := `"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`
	var many strings.Builder
	for i := range 20000 {
		many.WriteString(strings.Replace(tiny, "x", strings.Repeat("y", i%7)+string(rune('a'+i%26)), 1))
	}
	for name, header := range map[string]string{
		"nested": `{"w":` + strings.Repeat("[", 100000),
		"shape":  `{"w":{"dtype":"F32","shape":[` + strings.Repeat("1,", 100000),
		"name":   `{"` + strings.Repeat("x", 1<<20),
		"many":   "{" + many.String(),
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, header, "")
			bounded.Run(t, 40*len(header), 10*time.Second, func() {
				_, err := Open(path)
				assert.Error(t, err)
			})
		})
	}
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	failing := errors.New("no values")
	err := Write(path, []Source{{"w", []int64{1}, func() ([]float32, error) { return nil, failing }}})
	require.ErrorIs(t, err, failing)
	err = Write(path, []Source{{"w", []int64{2}, func() ([]float32, error) { return []float32{1}, nil }}})
	require.ErrorContains(t, err, "w has 1 values for the shape [2]")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "nothing is left")
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":{}}        "))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "model.safetensors")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		file, err := Open(path)
		if err != nil {
			return
		}
		for _, tensor := range file.Tensors() {
			if tensor.IsFloat() {
				values, err := file.Float32s(tensor.Name)
				require.NoError(t, err)
				require.LessOrEqual(t, len(values), len(content))
			}
		}
		require.NoError(t, file.Close())
	})
}
