package batch

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/tfbert/go/squad"
)

// A call is an admitted request. Batcher.mu guards it until done is closed; then it is its client's.
type call struct {
	features []squad.Feature
	windows  []window
	level    int // its priority, from 0
	timeout  time.Duration
	arrival  time.Duration

	started bool // at least one window
	start   time.Duration
	left    int // windows without a result

	done     chan struct{} // closed when it has ended
	ended    bool
	response Response
	err      error
}

func newCall(r Request, level int) *call {
	n := len(r.Features)
	c := &call{
		features: r.Features,
		windows:  make([]window, n),
		level:    level,
		timeout:  r.Timeout,
		left:     n,
		done:     make(chan struct{}),
	}
	c.response.Results = make([]squad.RawResult, n)
	for i := range c.windows {
		c.windows[i] = window{call: c, index: i}
	}
	return c
}

// A window is a feature of a call. It is in a bucket while it waits, and then in a batch.
type window struct {
	call  *call
	index int
	due   time.Duration // when it no longer waits for others
	order uint64        // of arrival

	bucket     *bucket
	prev, next *window // in its list

	batch *batch
}

func (w *window) feature() *squad.Feature { return &w.call.features[w.index] }

// A list has windows in the order of arrival. It is linked through them, so that the windows of a cancelled
// request leave the middle of it at no cost.
type list struct{ first, last *window }

func (l *list) push(w *window) {
	if l.last == nil {
		l.first, l.last = w, w
		return
	}
	l.last.next, w.prev, l.last = w, l.last, w
}

func (l *list) remove(w *window) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

// A bucketKey is what the windows of a batch have in common.
type bucketKey struct {
	padded int // len(InputIDs): a model takes features of one length
	bucket int // number of the bucket of Feature.Len
}

// A bucket has the waiting windows that may share a batch. It is never empty.
type bucket struct {
	key    bucketKey
	n      int
	levels []list // the most urgent first
}

// all returns the windows in the order in which they go into batches.
func (k *bucket) all() iter.Seq[*window] {
	return func(yield func(*window) bool) {
		for i := range k.levels {
			for w := k.levels[i].first; w != nil; w = w.next {
				if !yield(w) {
					return
				}
			}
		}
	}
}

// before reports whether k's first window comes before that of other.
func (k *bucket) before(other *bucket) bool {
	for i := range k.levels {
		a, b := k.levels[i].first, other.levels[i].first
		if a != nil && b != nil {
			return a.order < b.order
		}
		if a != nil || b != nil {
			return a != nil
		}
	}
	return false
}

// A queue has all waiting windows. It has few buckets and can look at all of them for each batch. The cost
// of a window does not grow with the number of windows.
type queue struct {
	levels  int
	bounds  []int // Options.Buckets
	buckets map[bucketKey]*bucket
	waiting int
	order   uint64
}

func (q *queue) push(w *window) {
	f := w.feature()
	key := bucketKey{len(f.InputIDs), q.bucket(f.Len)}
	k := q.buckets[key]
	if k == nil {
		k = &bucket{key: key, levels: make([]list, q.levels)}
		q.buckets[key] = k
	}
	q.order++
	w.order, w.bucket = q.order, k
	k.levels[w.call.level].push(w)
	k.n++
	q.waiting++
}

// bucket returns the number of the bucket of windows of a length.
func (q *queue) bucket(length int) int {
	if q.bounds == nil {
		return (length + defaultBucket - 1) / defaultBucket
	}
	i, _ := slices.BinarySearch(q.bounds, length)
	return i
}

func (q *queue) remove(w *window) {
	k := w.bucket
	k.levels[w.call.level].remove(w)
	w.bucket = nil
	k.n--
	q.waiting--
	if k.n == 0 {
		delete(q.buckets, k.key)
	}
}

// take removes the windows of a batch from a bucket and returns them: the first one, and as many others as
// fit, the more urgent before the others and those nearest in length first.
func (q *queue) take(k *bucket, fits func(windows, longest int) bool) []*window {
	all := make([]*window, 0, min(k.n, mostTaken))
	longest := 0
	for w := range k.all() {
		if len(all) == mostTaken {
			break
		}
		all, longest = append(all, w), max(longest, w.feature().Len)
	}
	head := all[0]
	distance := func(w *window) int {
		return max(w.feature().Len-head.feature().Len, head.feature().Len-w.feature().Len)
	}
	// If all fit, it does not matter which come first.
	if !fits(len(all), longest) {
		slices.SortStableFunc(all[1:], func(a, b *window) int {
			return cmp.Or(cmp.Compare(a.call.level, b.call.level), cmp.Compare(distance(a), distance(b)))
		})
	}
	windows := append(make([]*window, 0, 8), head)
	longest = head.feature().Len
	for _, w := range all[1:] {
		if n := max(longest, w.feature().Len); fits(len(windows)+1, n) {
			windows, longest = append(windows, w), n
		}
	}
	for _, w := range windows {
		q.remove(w)
	}
	// Those of a request stand side by side.
	slices.SortFunc(windows, func(a, b *window) int {
		return cmp.Or(cmp.Compare(a.call.level, b.call.level), cmp.Compare(a.order, b.order))
	})
	return windows
}

// mostTaken is the number of windows of a bucket that take looks at: enough to find some that are alike,
// and a bound on its time.
const mostTaken = 256
