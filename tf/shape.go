package tf

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Shape is the size of each dimension, or -1 for one that is not known. The shape of a scalar is empty.
type Shape []int64

// NumElements returns the number of elements. ok is false if a dimension is unknown or the product does not fit an
// int64.
func (s Shape) NumElements() (n int64, ok bool) {
	product := uint64(1)
	for _, d := range s {
		if d < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(product, uint64(d))
		if hi != 0 || lo > 1<<63-1 {
			return 0, false
		}
		product = lo
	}
	return int64(product), true
}

// Compatible reports whether a tensor of shape t may be used for s: they have the same rank, and every known
// dimension of s is equal.
func (s Shape) Compatible(t Shape) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range s {
		if s[i] >= 0 && t[i] >= 0 && s[i] != t[i] {
			return false
		}
	}
	return true
}

// String returns the shape as "[?,128]".
func (s Shape) String() string {
	dims := make([]string, len(s))
	for i, d := range s {
		if d < 0 {
			dims[i] = "?"
		} else {
			dims[i] = strconv.FormatInt(d, 10)
		}
	}
	return fmt.Sprintf("[%s]", strings.Join(dims, ","))
}
