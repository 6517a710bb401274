package pymath

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// scramble is the i-th number of SplitMix64 from seed 0.
func scramble(i uint64) uint64 {
	z := (i + 1) * 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// The digests were made by Python 3.11.7 on glibc 2.36 and a CPU with FMA, with mix as above in
// 64-bit arithmetic, lo and hi as below, by
//
//	h = hashlib.sha256()
//	for i in range(1000000): h.update(struct.pack("<d", math.exp(lo + (scramble(i)>>11)*2.0**-53*(hi-lo))))
func TestExpRandom(t *testing.T) {
	for _, tt := range []struct {
		name   string
		lo, hi float64
		digest string
	}{
		{"n-best", -100, 0, "88fc4d2c455d838345180dde3618e3559fbd5c9f90b40747383923a3056d1972"},
		{"around 0", -1, 1, "a089a51e7411265bdc9b8598340fcfebd003aab315238a919e5d091b7b6e2a08"},
		{"down to subnormal and 0", -750, -500, "77faf37c92dc6a740865196130a9b7037730371c29f648e8e0895e0f6e6d46a0"},
		{"up to the largest", 500, 709.78, "92145fabc5d00fa20e5a75e7ba432ae46a7aae84c6332d56e6240fe013e01f2d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := sha256.New()
			var buf [8]byte
			for i := range uint64(1000000) {
				unit := float64(scramble(i)>>11) * 0x1p-53
				x := tt.lo + float64(unit*(tt.hi-tt.lo))
				binary.LittleEndian.PutUint64(buf[:], math.Float64bits(Exp(x)))
				h.Write(buf[:])
			}
			assert.Equal(t, tt.digest, hex.EncodeToString(h.Sum(nil)))
		})
	}
}

func TestExp(t *testing.T) {
	inf := math.Inf(1)
	for _, tt := range []struct{ x, want float64 }{
		{0, 1}, {math.Copysign(0, -1), 1}, {5e-324, 1}, {-5e-324, 1},
		{0x1p-54, 1}, {0x1p-52, 1 + 0x1p-52}, {-0x1p-53, 1 - 0x1p-53},
		{1, math.E}, {-1, 0.36787944117144233}, {-3, 0.049787068367863944},
		{inf, inf}, {-inf, 0}, {1024, inf}, {-1024, 0}, {math.MaxFloat64, inf}, {-math.MaxFloat64, 0},
		{709.782712893384, 1.7976931348622732e+308}, {709.7827128933841, inf},
		{-708.3964185322641, 2.2250738585072626e-308}, {-708.3964185322642, 2.2250738585070097e-308},
		{-745.1332191019411, 5e-324}, {-745.1332191019412, 0}, {-800, 0},
	} {
		assert.Equal(t, tt.want, Exp(tt.x), "exp(%v)", tt.x)
	}
	assert.True(t, math.IsNaN(Exp(math.NaN())))
}

func FuzzExp(f *testing.F) {
	f.Add(-0.5)
	f.Fuzz(func(t *testing.T, x float64) {
		got, want := Exp(x), math.Exp(x)
		if want > 0x1p-1000 && !math.IsInf(got, 0) && !math.IsInf(want, 0) {
			assert.InEpsilon(t, want, got, 1e-15)
		}
		if x <= 0 {
			assert.True(t, 0 <= got && got <= 1)
		}
	})
}

func BenchmarkExp(b *testing.B) {
	x := -20.0
	for b.Loop() {
		Exp(x)
	}
}
