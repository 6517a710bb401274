package squad

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTopN(t *testing.T) {
	negativeZero := float32(math.Copysign(0, -1))
	for _, tt := range []struct {
		name   string
		logits []float32
		n      int
		want   []int32
	}{
		{"largest first", []float32{1, 3, 2}, 2, []int32{1, 2}},
		{"ties in order", []float32{1, 2, 1, 2, 1}, 3, []int32{1, 3, 0}},
		{"zeros tie", []float32{negativeZero, 0, negativeZero}, 3, []int32{0, 1, 2}},
		{"all equal", []float32{7, 7, 7, 7}, 2, []int32{0, 1}},
		{"more than there are", []float32{1, 2}, 20, []int32{1, 0}},
		{"infinite", []float32{float32(math.Inf(-1)), -9, float32(math.Inf(-1))}, 2, []int32{1, 0}},
		{"none", nil, 20, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, topN(nil, tt.logits, tt.n))
		})
	}
}

func TestTopNEqualsStableSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		logits := make([]float32, 1+r.IntN(512))
		for i := range logits {
			logits[i] = float32(r.IntN(100)) / 4
		}
		want := make([]int32, len(logits))
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortStableFunc(want, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
		n := 1 + r.IntN(600)
		assert.Equal(t, want[:min(n, len(want))], topN(nil, logits, n))
	}
}

func BenchmarkTopN(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 384)
	for i := range logits {
		logits[i] = r.Float32()
	}
	var dst []int32
	for b.Loop() {
		dst = topN(dst[:0], logits, 20)
	}
}
