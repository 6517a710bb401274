package intake

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// What is made from a request takes more memory than its bytes. Of 1 MiB of text the word pieces and windows take up to
// 32 MiB. A larger request holds numbers, or text that is refused: its JSON, its tensors and copies between them take
// up to 6 times its size.
const (
	textSize   = 1 << 20
	textFactor = 32
	factor     = 6

	freeSize   = 1 << 10 // of requests that are too small to matter, such as those for the server's health
	smallShare = 4       // small requests have this part of a budget
	smallCost  = 512     // and take up to this part of it each
)

// A Budget bounds the memory of all requests that are complete. A request for which too little is left waits, in the
// order of arrival. Small requests have a part of the budget for themselves, so that none waits for large ones.
type Budget struct {
	small, large share
	mostWaiting  int64

	used    atomic.Int64 // bytes of memory
	waiting atomic.Int64 // bytes of the requests that wait
}

type share struct {
	*semaphore.Weighted
	most int64
}

func newShare(most int64) share { return share{semaphore.NewWeighted(most), most} }

// NewBudget returns a budget of a number of bytes. If requests of more than mostWaiting bytes wait, further ones are
// refused.
func NewBudget(most, mostWaiting int64) *Budget {
	return &Budget{small: newShare(most / smallShare), large: newShare(most - most/smallShare), mostWaiting: mostWaiting}
}

// Take takes the memory for a request of a number of bytes. give returns it.
func (b *Budget) Take(ctx context.Context, size int) (give func(), err error) {
	if size <= freeSize {
		return func() {}, nil
	}
	cost := int64(min(size, textSize))*textFactor + int64(max(0, size-textSize))*factor
	from := b.large
	if cost <= (b.small.most+b.large.most)/smallCost {
		from = b.small
	}
	cost = min(cost, from.most)
	if !from.TryAcquire(cost) {
		defer b.waiting.Add(-int64(size))
		if b.waiting.Add(int64(size)) > b.mostWaiting {
			return nil, exhausted("memory", "requests of more than %d bytes wait for memory", b.mostWaiting)
		}
		if err := from.Acquire(ctx, cost); err != nil {
			return nil, err
		}
	}
	b.used.Add(cost)
	return sync.OnceFunc(func() {
		b.used.Add(-cost)
		from.Release(cost)
	}), nil
}

// Used returns the bytes that requests have taken.
func (b *Budget) Used() int64 { return b.used.Load() }

// Waiting returns the bytes of the requests that wait.
func (b *Budget) Waiting() int64 { return b.waiting.Load() }
