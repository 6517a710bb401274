package npy_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/testenv/bounded"
)

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	w, err := npy.Create(path, npy.Float32, 2, 3)
	require.NoError(t, err)
	require.NoError(t, w.WriteFloat32s([]float32{1, 2, 3}))
	require.NoError(t, w.WriteFloat32s([]float32{4, 5, 6}))
	require.NoError(t, w.Close())

	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Len(t, b, 128+6*4)
	assert.Contains(t, string(b), "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }")
	r, err := npy.NewReader(bytes.NewReader(b))
	require.NoError(t, err)
	assert.Equal(t, []int{1, 2, 3}, r.Shape)
	values := make([]float32, 6)
	require.NoError(t, r.ReadFloat32s(values))
	assert.Equal(t, []float32{1, 2, 3, 4, 5, 6}, values)
	assert.ErrorContains(t, r.ReadFloat32s(values), "cut short")
}

func TestHalfARow(t *testing.T) {
	w, err := npy.Create(filepath.Join(t.TempDir(), "a.npy"), npy.Int32, 2)
	require.NoError(t, err)
	require.NoError(t, w.WriteInt32s([]int32{1, 2, 3}))
	assert.ErrorContains(t, w.Close(), "not whole rows of 2")
}

// numpy itself wrote this file.
func TestReadNumpy(t *testing.T) {
	f, err := os.Open(testenv.Golden(t, "mini", "model.s384.logits.npy"))
	require.NoError(t, err)
	defer f.Close()
	r, err := npy.NewReader(f)
	require.NoError(t, err)
	assert.Equal(t, npy.Float32, r.DType)
	assert.Equal(t, []int{53, 2, 384}, r.Shape)
	require.NoError(t, r.ReadFloat32s(make([]float32, 53*2*384)))
}

func TestZip(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.npy")
	w, err := npy.Create(file, npy.Int32)
	require.NoError(t, err)
	require.NoError(t, w.WriteInt32s([]int32{7, 8}))
	require.NoError(t, w.Close())
	require.NoError(t, npy.Zip(filepath.Join(dir, "a.npz"), []string{"ids"}, []string{file}))
	z, err := zip.OpenReader(filepath.Join(dir, "a.npz"))
	require.NoError(t, err)
	defer z.Close()
	require.Len(t, z.File, 1)
	assert.Equal(t, "ids.npy", z.File[0].Name)
	assert.EqualValues(t, 128+8, z.File[0].UncompressedSize64)
}

// A header that claims terabytes allocates nothing.
func TestClaims(t *testing.T) {
	file := func(shape string) string {
		text := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n", shape)
		return "\x93NUMPY\x01\x00" + string(binary.LittleEndian.AppendUint16(nil, uint16(len(text)))) + text
	}
	const tera = "1099511627776"
	for _, c := range []struct{ name, file, want string }{
		{"terabytes", file(tera + ", 2, 384"), "the file is cut short: EOF"},
		{"an exabyte", file(tera + ", 262144, 1"), "the file is cut short: EOF"},
		{"of nothing", file("0, " + tera), "the file is cut short: EOF"},
		{"more than there can be", file(tera + ", " + tera),
			"no file can hold an array of the shape (" + tera + ", " + tera + ")"},
		{"more than there can be, by nothing", file("0, " + tera + ", " + tera), "no file can hold"},
		{"a number beyond int64", file("99999999999999999999"), "cannot read the shape (99999999999999999999)"},
		{"negative", file("-1"), "cannot read the header"},
		{"a dimension too many", file(strings.Repeat("1, ", 65)), "cannot read the shape (1, 1, "},
		{"a long header", file(strings.Repeat("1, ", 20000)), "cannot read the shape (1, 1, "},
		{"no header", "\x93NUMPY\x01\x00\xff\xff{", "the header is cut short"},
		{"a header that is none", "\x93NUMPY\x01\x00\xff\xff" + strings.Repeat("\x00", 1<<16), "cannot read the header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			bounded.Run(t, 0, 10*time.Second, func() {
				var r *npy.Reader
				if r, err = npy.NewReader(strings.NewReader(c.file)); err == nil {
					err = r.ReadFloat32s(make([]float32, 8))
				}
			})
			require.ErrorContains(t, err, c.want)
			assert.Less(t, len(err.Error()), 1200)
		})
	}
}

func TestReadRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	const row = 30001 // more than is read at once, and not a part of it
	w, err := npy.Create(path, npy.Float32, row)
	require.NoError(t, err)
	want := make([]float32, 3*row)
	for i := range want {
		want[i] = float32(i) / 3
	}
	require.NoError(t, w.WriteFloat32s(want))
	require.NoError(t, w.Close())
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r, err := npy.NewReader(iotest.HalfReader(f))
	require.NoError(t, err)
	var got []float32
	for range 3 {
		values := make([]float32, row)
		require.NoError(t, r.ReadFloat32s(values))
		got = append(got, values...)
	}
	assert.Equal(t, want, got)
	assert.ErrorIs(t, r.ReadFloat32s(make([]float32, 1)), io.EOF)
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }             " +
		"\n\x00\x00\x80?"))
	f.Add([]byte("\x93NUMPY\x02\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded.Run(t, 100*len(b), 10*time.Second, func() {
			r, err := npy.NewReader(bytes.NewReader(b))
			if err != nil {
				return
			}
			for _, d := range r.Shape {
				assert.GreaterOrEqual(t, d, 0)
			}
			_ = r.ReadFloat32s(make([]float32, 4)) // must not panic
		})
	})
}
