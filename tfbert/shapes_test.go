package tfbert

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
)

func TestShapes(t *testing.T) {
	var s shapes
	for _, c := range []struct{ batch, want batchShape }{
		{batchShape{1, 1}, batchShape{1, 64}}, {batchShape{8, 64}, batchShape{8, 64}},
		{batchShape{5, 65}, batchShape{8, 128}}, {batchShape{33, 380}, batchShape{64, 380}}, // of windows of 380
	} {
		assert.Equal(t, c.want, s.choose(c.batch, 380, false), c.batch)
	}
	assert.Equal(t, batchShape{5, 128}, s.choose(batchShape{5, 100}, 384, true), "the rows are fixed")
}

// However batches come, their shapes are ten at most.
func TestShapesAreFew(t *testing.T) {
	for name, sizes := range map[string]int{"predict": 1, "server": 8, "large server": 32} {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 1))
			var s shapes
			reached := map[batchShape]bool{}
			for range 5000 {
				batch := batchShape{8, 1 + random.IntN(384)}
				if sizes > 1 {
					batch.rows = 1 + random.IntN(sizes)
				}
				shape := s.choose(batch, 384, false)
				require.True(t, shape.rows >= batch.rows && shape.length >= batch.length && shape.length <= 384)
				reached[shape] = true
			}
			assert.LessOrEqual(t, len(reached), 10, name)
			if sizes == 1 {
				assert.Len(t, reached, 6, name)
			}
		}
	}
}

// Batches of every size and length reach the session in few shapes, and have the logits that they have without XLA.
func TestXLAFillsUpBatches(t *testing.T) {
	testenv.TensorFlow(t)
	dir := t.TempDir() + "/model"
	_, err := Export(t.Context(), testenv.Model(t), dir, nil)
	require.NoError(t, err)
	open := func(xla bool) *Model {
		m, err := Open(dir, &Options{TrimPadding: true, Config: savedmodel.Config{XLA: xla}})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, m.Close()) })
		return m
	}
	plain, compiled := open(false), open(true)
	_, err = compiled.Precision(t.Context())
	require.NoError(t, err)
	for _, length := range []int{3, 64, 70, 130} {
		for rows := range 3 {
			var features []squad.Feature
			for i := range rows + 1 {
				f := squad.Feature{
					UniqueID: int32(i), Len: length, InputIDs: make([]int32, 160), InputMask: make([]int32, 160),
					SegmentIDs: make([]int32, 160),
				}
				for k := range length {
					f.InputIDs[k], f.InputMask[k] = int32(1000+7*k+i), 1
				}
				features = append(features, f)
			}
			want, err := plain.Predict(t.Context(), features)
			require.NoError(t, err)
			got, err := compiled.Predict(t.Context(), features)
			require.NoError(t, err)
			require.Len(t, got, len(want))
			for i := range want {
				assert.InDeltaSlice(t, want[i].StartLogits, got[i].StartLogits, 1e-3)
				assert.InDeltaSlice(t, want[i].EndLogits, got[i].EndLogits, 1e-3)
			}
			assert.Contains(t, compiled.shapes.seen, *compiled.last.Load())
		}
	}
	assert.Equal(t, []batchShape{
		{8, 64}, {1, 64}, {2, 64}, {4, 64}, {1, 128}, {2, 128}, {4, 128}, {1, 160}, {8, 160},
	}, compiled.shapes.seen)
	assert.Empty(t, plain.shapes.seen)
}
