package quantize

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func multiply(a, b Matrix) (Matrix, error) {
	m := New(a.Rows, b.Columns)
	for r := range a.Rows {
		to := m.Row(r)
		for k, v := range a.Row(r) {
			for c, w := range b.Row(k) {
				to[c] += v * w
			}
		}
	}
	return m, nil
}

func random(seed uint64, rows, columns int) Matrix {
	r := rand.New(rand.NewPCG(seed, 0))
	m := New(rows, columns)
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

func sampleOf(m Matrix) *Sample {
	s := NewSample(m.Columns)
	for r := range m.Rows {
		s.Add(m.Row(r), true)
	}
	return s
}

func add(m Matrix, bias []float32) Matrix {
	for r := range m.Rows {
		for c := range m.Row(r) {
			m.Row(r)[c] += bias[c]
		}
	}
	return m
}

// noise compares two matrices by the variance of the first.
func noise(want, got Matrix) float64 {
	_, n := compare(want, got, make([]float32, want.Columns))
	return n
}

func TestScales(t *testing.T) {
	for _, ends := range [][2]float32{
		{-0.17, 5}, {-0.17, 41.3}, {0, 1}, {-3, 0}, {-3, 7}, {-1e-9, 1e-9}, {0, 0}, {-2, -1},
	} {
		s := asymmetric(ends[0], ends[1])
		assert.LessOrEqual(t, float64(s.Low()), float64(min(ends[0], 0))*(1-1e-6), "%v", ends)
		assert.GreaterOrEqual(t, float64(s.High()), float64(max(ends[1], 0))*(1-1e-6), "%v", ends)
		assert.Zero(t, s.Round(0), "0 must be exact: %v", ends)
		assert.Positive(t, s.Step)
		assert.Less(t, s.High()-s.Low(), 1.01*(max(ends[1], 0)-min(ends[0], 0))+2*tiny, "%v", ends)
	}
	s := symmetric(2)
	assert.Equal(t, []int{127, -127, 127, -128, 0, 64}, []int{
		s.Integer(2), s.Integer(-2), s.Integer(9), s.Integer(-9), s.Integer(0), s.Integer(64 * s.Step)})
	assert.Equal(t, []float32{-2, 2}, []float32{s.Low(), s.High()})
}

// With 7 bits no pair of products of a byte can leave 16 bits; the largest weights of a column still use all of them.
func TestWeights(t *testing.T) {
	k := random(1, 33, 40)
	for _, bits := range []int{7, 8} {
		w := round(k, bits, nil)
		largest := make([]int, k.Columns)
		for r := range k.Rows {
			for c := range k.Columns {
				v := int(w.Integers[r*k.Columns+c])
				assert.InDelta(t, k.Row(r)[c], float32(v)*w.Ranges[c]/127, float64(w.Ranges[c])/127/2*1.001)
				largest[c] = max(largest[c], v, -v)
				if bits == 7 && r%2 == 1 {
					before := int(w.Integers[(r-1)*k.Columns+c])
					assert.LessOrEqual(t, 255*(max(v, 0)+max(before, 0)), math.MaxInt16)
					assert.GreaterOrEqual(t, 255*(min(v, 0)+min(before, 0)), math.MinInt16)
				}
			}
		}
		for _, v := range largest {
			assert.GreaterOrEqual(t, v, map[int]int{7: 64, 8: 127}[bits])
		}
	}
	// A channel and its copies, which make up for one another's rounding, stay within the bound, too.
	one := random(2, 3, 40)
	copies := []Copy{{Channel: 1}, {Channel: 1}, {Channel: 1}, {Channel: -1}}
	w := round(withCopies(one, copies), 7, copies)
	for c := range one.Columns {
		sum := 0
		for r := range w.Rows {
			v := int(w.Integers[r*w.Columns+c])
			if r == 1 || r >= 3 {
				sum += v
			}
			if r%2 == 1 {
				before := int(w.Integers[(r-1)*w.Columns+c])
				assert.LessOrEqual(t, 255*(max(v, 0)+max(before, 0)), math.MaxInt16)
				assert.GreaterOrEqual(t, 255*(min(v, 0)+min(before, 0)), math.MinInt16)
			}
		}
		assert.InDelta(t, 4*one.Row(1)[c], float32(sum)*w.Ranges[c]/127, float64(w.Ranges[c])/127*1.1)
	}
	zeros := round(New(2, 2), 8, nil)
	assert.Equal(t, make([]int8, 4), zeros.Integers)
	assert.Positive(t, zeros.Ranges[0])
}

// A shift and a scale by channel change the product only by its rounding, and outlying channels cost nothing.
func TestFold(t *testing.T) {
	x, kernel, bias := random(2, 300, 24), random(3, 24, 16), random(4, 1, 16).Data
	for r := range x.Rows {
		x.Row(r)[5] = 80 + 3*x.Row(r)[5] // far from 0
		x.Row(r)[9] *= 60                // far wider
	}
	for r := range 2 { // what varies most matters least, as in a trained model
		for c := range kernel.Row(5 + 4*r) {
			kernel.Row(5 + 4*r)[c] /= 20
		}
	}
	exact, _ := multiply(x, kernel)
	exact = add(exact, bias)
	for _, bits := range []int{7, 8} {
		q := Quantizer{Bits: bits, MatMul: multiply}
		p, f, err := q.Fold(sampleOf(x), kernel, bias)
		require.NoError(t, err)
		got, _ := multiply(f.round(x, p.Input), p.Kernel.matrix())
		assert.InDelta(t, p.Noise, noise(exact, add(got, p.Bias)), 1e-6)
		assert.Greater(t, p.Decibels(), 34., "%d bits", bits)
		t.Logf("%d bits: %.1f dB", bits, p.Decibels())

		// Without rounding the folded product is the product.
		folded := New(x.Rows, x.Columns)
		for r := range x.Rows {
			for c, v := range x.Row(r) {
				folded.Row(r)[c] = (v - f.Shift[c]) / f.Factor[c]
			}
		}
		same, _ := multiply(folded, f.kernel(kernel))
		assert.Less(t, noise(exact, add(same, sum(bias, f.bias(kernel)))), 1e-10)

		again, _, err := q.Fold(sampleOf(x), kernel, bias)
		require.NoError(t, err)
		assert.Equal(t, p, again)
	}
	// The product before can have the fold: rows*k + b, of which the columns from 2 on are x.
	before, b := random(5, 7, 26), random(6, 1, 26).Data
	rows := random(7, 50, 7)
	plain, _ := multiply(rows, before)
	plain = add(plain, b)
	f := newFold(sampleOf(x), kernel, 0.5)
	f.Divide(before, b, 2)
	got, _ := multiply(rows, before)
	got = add(got, b)
	for r := range rows.Rows {
		assert.Equal(t, plain.Row(r)[:2], got.Row(r)[:2])
		for c := range 24 {
			assert.InDelta(t, (plain.Row(r)[2+c]-f.Shift[c])/f.Factor[c], got.Row(r)[2+c], 1e-4)
		}
	}
}

// Copies of a channel add up to it, and take no range from the others.
func TestSplit(t *testing.T) {
	relu := func(v float32) float32 { return max(v, 0) }
	v := random(8, 400, 12)
	for r := range v.Rows {
		v.Row(r)[3] *= 30
	}
	x := New(v.Rows, v.Columns)
	for i, a := range v.Data {
		x.Data[i] = relu(a)
	}
	kernel, bias := random(9, 12, 10), random(10, 1, 10).Data
	exact, _ := multiply(x, kernel)
	exact = add(exact, bias)
	q := Quantizer{Bits: 8, MatMul: multiply}
	p, copies, err := q.Split(sampleOf(x), kernel, bias, relu)
	require.NoError(t, err)
	require.Len(t, copies, copiesAligned)
	assert.Equal(t, 3, copies[0].Channel)
	assert.Equal(t, -1, copies[len(copies)-1].Channel, "the rest is filled up")
	got, _ := multiply(roundCopies(x, copies, p.Input, relu), p.Kernel.matrix())
	assert.InDelta(t, p.Noise, noise(exact, add(got, p.Bias)), 1e-6)

	whole, none, err := q.Split(sampleOf(x), kernel, bias, nil)
	require.NoError(t, err)
	assert.Empty(t, none)
	t.Logf("%.1f dB, without copies %.1f", p.Decibels(), whole.Decibels())
	assert.Greater(t, p.Decibels(), whole.Decibels()+5)

	// Where all channels are as wide, none is copied.
	flat := random(13, 200, 200)
	for i, v := range flat.Data {
		flat.Data[i] = abs(v) / 100
	}
	for range 2 {
		one, none, err := q.Split(sampleOf(flat), random(14, 200, 3), make([]float32, 3), relu)
		require.NoError(t, err)
		assert.Empty(t, none)
		assert.Greater(t, one.Decibels(), 30.)
		relu = nil
	}

	// The product that the activation follows has the copies as columns of lower bias.
	inner := &Product{Kernel: round(random(11, 5, 12), 8, nil), Bias: random(12, 1, 12).Data}
	one, kept := inner.Bias[3], inner.Kernel.matrix()
	inner.AppendCopies(copies)
	wide := inner.Kernel.matrix()
	require.Equal(t, 12+copiesAligned, wide.Columns)
	for r := range wide.Rows {
		assert.Equal(t, kept.Row(r), wide.Row(r)[:12])
		assert.Equal(t, kept.Row(r)[3], wide.Row(r)[12])
		assert.Zero(t, wide.Row(r)[wide.Columns-1])
	}
	assert.Equal(t, one-copies[0].Lower, inner.Bias[12])
}

func TestSampleErrors(t *testing.T) {
	require.EqualError(t, NewSample(2).Check(), "no rows to measure")
	s := sampleOf(Matrix{1, 2, []float32{1, float32(math.Inf(1))}})
	require.EqualError(t, s.Check(), "channel 1 has values from +Inf to +Inf")
}
