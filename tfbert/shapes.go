package tfbert

import (
	"math/bits"
	"sync"
)

// XLA compiles a graph once for each shape, which takes seconds, and gives up on a graph of which it has compiled more
// than ten shapes while each ran fewer than 50 times on average. From then on no shape of it runs compiled.
const (
	maxShapes  = 8  // and two in reserve, for batches that are larger than all before
	bucketSize = 64 // of lengths
)

// shapes chooses the shapes of the batches that reach XLA, so that they stay few. It may be used from many goroutines
// at once.
type shapes struct {
	mu   sync.Mutex
	seen []batchShape
}

type batchShape struct{ rows, length int }

// choose returns the shape to which a batch is filled up: the next power of two of its rows, unless these are fixed,
// and the next multiple of 64 of its length, or longest if that is less. If there are maxShapes already, it is the
// smallest of those that the batch fits into. Only a batch that fits into none of them makes another one, as large as
// all of them.
func (s *shapes) choose(batch batchShape, longest int, fixed bool) batchShape {
	want := batchShape{batch.rows, min((batch.length+bucketSize-1)/bucketSize*bucketSize, longest)}
	if !fixed {
		want.rows = 1 << bits.Len(uint(batch.rows-1))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var best batchShape
	for _, have := range s.seen {
		if have == want {
			return want
		}
		fits := have.rows >= batch.rows && have.length >= batch.length && have.length <= longest
		if fits && (best.rows == 0 || have.rows*have.length < best.rows*best.length) {
			best = have
		}
	}
	if len(s.seen) >= maxShapes {
		if best.rows > 0 {
			return best
		}
		for _, have := range s.seen { // so that every batch seen so far, and more, fits into it
			want.rows, want.length = max(want.rows, have.rows), max(want.length, have.length)
		}
		want.length = min(want.length, longest)
	}
	s.seen = append(s.seen, want)
	return want
}
