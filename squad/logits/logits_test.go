package logits

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

func TestComputed(t *testing.T) {
	nan := float32(math.NaN())
	row := []float32{1, 2, nan, 4, nan, nan}
	for tokens, want := range []int{4, 4, 4, 4, 4, 5, 6} { // a token without a logit stays, to be found
		assert.Len(t, computed(row, tokens), want, "%d tokens", tokens)
	}
	assert.Len(t, computed([]float32{nan, nan, nan}, 2), 2)
	assert.Len(t, computed([]float32{1, 2, 3}, 2), 3)
}

func TestWrittenAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logits.npy")
	results := []squad.RawResult{
		{UniqueID: 7, StartLogits: []float32{1, 2}, EndLogits: []float32{3, 4}},
		{UniqueID: 8, StartLogits: []float32{1, 2, 5}, EndLogits: []float32{3, 4, 6}},
	}
	w, err := Create(path, 3)
	require.NoError(t, err)
	require.NoError(t, w.Write(results))
	assert.ErrorContains(t, w.Write([]squad.RawResult{{StartLogits: make([]float32, 4)}}), "got 4 logits")
	require.NoError(t, w.Close())

	r, err := Open(path)
	require.NoError(t, err)
	defer r.Close()
	assert.Equal(t, 2, r.Windows())
	assert.Equal(t, 3, r.Length())
	var count *CountError
	require.ErrorAs(t, r.Done(), &count)
	assert.Equal(t, CountError{Path: path, Windows: 2, More: true}, *count)
	got, err := r.Predict(t.Context(), []squad.Feature{{UniqueID: 7, Len: 2}, {UniqueID: 8, Len: 2}})
	require.NoError(t, err)
	assert.Equal(t, results, got)
	require.NoError(t, r.Done())
	_, err = r.Predict(t.Context(), make([]squad.Feature, 1))
	require.ErrorAs(t, err, &count)
	assert.Equal(t, CountError{Path: path, Windows: 2}, *count)
}
