// Package pymath does what Python's math module does on x86-64 Linux, bit for bit.
package pymath

//go:generate go run gen.go

import "math"

// A power is 2^(k/128) for some k, split into the nearest float64 and what it lacks.
type power struct {
	tail uint64 // float64 bits of 2^(k/128)/head - 1
	head uint64 // float64 bits of the nearest float64, less k<<52/128 (see Exp)
}

const (
	inverse = 0x1.71547652b82fep0 * 128 // 128/ln 2
	ln2High = 0x1.62e42fefa0000p-8      // ln 2/128, its upper bits
	ln2Low  = 0x1.cf79abc9e3b39p-47     // and the rest
	shift   = 0x1.8p52                  // adding it rounds to an integer in the low bits

	// Of the polynomial for e^r - 1 - r, |r| <= ln 2/256.
	c2 = 0x1.ffffffffffdbdp-2
	c3 = 0x1.555555555543cp-3
	c4 = 0x1.55555cf172b91p-5
	c5 = 0x1.1111167a4d017p-7
)

// Exp returns e^x as the exp of glibc 2.28 and later does on an x86-64 CPU with FMA, and so as
// Python's math.exp does there; but where Python raises OverflowError, Exp returns +Inf.
//
// It is not always the nearest float64: the point is to err as glibc errs. The method is that of
// Arm's optimized routines, which glibc uses: with k the integer nearest to x*128/ln 2,
// e^x = 2^(k/128) * e^r, where 2^(k/128) comes from a table and e^r from a polynomial. Constants are
// theirs. Every math.FMA stands where GCC fuses glibc's expression, and the explicit conversions
// keep the Go compiler from fusing more.
func Exp(x float64) float64 {
	switch {
	case math.IsNaN(x):
		return x
	case x >= 1024:
		return math.Inf(1)
	case x <= -1024:
		return 0
	case math.Abs(x) < 0x1p-54:
		return 1 + x
	}
	shifted := math.FMA(inverse, x, shift)
	k := math.Float64bits(shifted) // in its low bits
	kf := shifted - shift
	r := math.FMA(kf, -ln2Low, math.FMA(kf, -ln2High, x))

	p := powers[k%128]
	tail := math.Float64frombits(p.tail)
	bits := p.head + k<<(52-7) // of 2^(k/128): the table left out what k%128 adds here
	r2 := float64(r * r)
	q := math.FMA(r2, math.FMA(r, c3, c2), float64(tail+r))
	q = math.FMA(float64(r2*r2), math.FMA(r, c5, c4), q) // e^r - 1
	if math.Abs(x) < 512 {
		head := math.Float64frombits(bits)
		return math.FMA(head, q, head)
	}
	if k&0x80000000 == 0 { // the exponent of 2^(k/128) may be too large
		head := math.Float64frombits(bits - 1009<<52)
		return 0x1p1009 * math.FMA(head, q, head)
	}
	// The result may be subnormal: scale up, and round at the last bit that it will keep. GCC fuses
	// nothing here, because the product is used in two basic blocks.
	head := math.Float64frombits(bits + 1022<<52)
	product := float64(head * q)
	y := float64(head + product)
	if y < 1 {
		low := float64(float64(head-y) + product)
		high := float64(1 + y)
		low = float64(float64(float64(1-high)+y) + low)
		y = float64(high+low) - 1
	}
	return 0x1p-1022 * y
}
