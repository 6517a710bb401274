package squad

import "slices"

// topN appends the positions of the n largest logits to dst, largest first and equals in the order
// of their positions.
func topN(dst []int32, logits []float32, n int) []int32 {
	for i, x := range logits {
		if len(dst) == n {
			if x <= logits[dst[n-1]] {
				continue
			}
			dst = dst[:n-1]
		}
		// Insert after the last that is not smaller.
		at := len(dst)
		for at > 0 && logits[dst[at-1]] < x {
			at--
		}
		dst = slices.Insert(dst, at, int32(i))
	}
	return dst
}
