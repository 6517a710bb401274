package npy_test

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/testenv"
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

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }             \n\x00\x00\x80?"))
	f.Add([]byte("\x93NUMPY\x02\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := npy.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, d := range r.Shape {
			assert.GreaterOrEqual(t, d, 0)
		}
		_ = r.ReadFloat32s(make([]float32, 4)) // must not panic
	})
}
