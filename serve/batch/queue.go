package batch

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"time"

	"github.com/tfbert/go/squad"
)

// A call is a request that runs. Batcher.mu guards it until done is closed; then it is its client's.
type call struct {
	job      *job
	alone    bool // it is all of its job
	features []squad.Feature
	windows  []window
	results  []squad.RawResult
	timeout  time.Duration
	arrival  time.Duration

	started bool // at least one window
	start   time.Duration
	left    int // windows without a result

	ready    chan struct{} // has an element when first has grown; nil without Request.Progress
	first    int           // windows at the beginning that have results
	reported int           // of these, those that Progress has had

	done     chan struct{} // closed when it has ended
	ended    bool
	response Response
	err      error
}

func newCall(r Request) *call {
	n := len(r.Features)
	c := &call{
		features: r.Features,
		windows:  make([]window, n),
		timeout:  r.Timeout,
		left:     n,
		results:  make([]squad.RawResult, n),
		done:     make(chan struct{}),
	}
	if r.Progress != nil {
		c.ready = make(chan struct{}, 1)
	}
	for i := range c.windows {
		c.windows[i] = window{call: c, index: i}
	}
	return c
}

// A window is a feature of a call. It is in a share while it waits, and then in a batch.
type window struct {
	call  *call
	index int
	due   time.Duration // when it no longer waits for others
	order uint64        // of arrival

	share      *share
	prev, next *window // in its list

	batch *batch
	done  bool // it has a result
}

func (w *window) feature() *squad.Feature { return &w.call.features[w.index] }

func (w *window) tokens() int { return w.feature().Len }

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

// A turn is the place of a client or of one of its jobs in the order in which they are served. key is the tokens
// that it has had when its next window has run: who has had least is next. One that comes begins where the others
// are, so that it neither makes up for the time when it did not ask nor waits for what the others had before.
type turn struct {
	key     int
	order   uint64 // of arrival, which decides between equals
	waiting int    // windows
}

// come adds a window. now is the key of the one that was served last.
func (t *turn) come(tokens, now int, order uint64) {
	if t.waiting == 0 {
		t.key, t.order = max(t.key, now)+max(1, tokens), order
	}
	t.waiting++
}

// serve removes a window that starts.
func (t *turn) serve(tokens int, now *int) {
	*now = max(*now, t.key)
	if t.waiting--; t.waiting > 0 {
		t.key += max(1, tokens)
	}
}

func (t *turn) compare(other *turn) int {
	return cmp.Or(cmp.Compare(t.key, other.key), cmp.Compare(t.order, other.order))
}

// A client has a turn among the clients of its level of priority.
type client struct {
	id   clientID
	turn turn
	now  int // the key of its job that was served last
	jobs []*job

	windows, tokens int // of its jobs
	shares          []*clientShare
}

type clientID struct {
	level int
	name  string
}

// A job is a request as the queue sees it. It has one call, or that of each of its parts. Its turn is among the jobs
// of its client.
type job struct {
	client   *client
	turn     turn
	deadline time.Duration // never is math.MaxInt64

	admitted        int  // windows
	windows, tokens int  // of these, those that have not started
	at              int  // its place in client.jobs; -1 if no windows are left
	started         bool // a window

	arrival  time.Duration
	expected float64 // seconds

	shares []*share
}

// A share is the windows of a job that wait in a bucket.
type share struct {
	job     *job
	of      *clientShare
	windows list
	n       int
	place   int // in of.jobs; -1 while it is set aside
}

func (s *share) compare(other *share) int { return s.job.turn.compare(&other.job.turn) }
func (s *share) index() *int              { return &s.place }

// A clientShare is the shares of a client's jobs in a bucket.
type clientShare struct {
	client *client
	bucket *bucket
	jobs   ranking[*share]
	n      int // shares, also of those that are set aside
	place  int // in the bucket's level; -1 while all its shares are set aside
}

func (s *clientShare) compare(other *clientShare) int {
	return s.client.turn.compare(&other.client.turn)
}
func (s *clientShare) index() *int { return &s.place }

// ranked is what a ranking has.
type ranked[T any] interface {
	compare(T) int
	index() *int // its place
}

var (
	_ ranked[*share]       = (*share)(nil)
	_ ranked[*clientShare] = (*clientShare)(nil)
)

// A ranking is a heap: its first element is the next to be served.
type ranking[T ranked[T]] []T

func (r ranking[T]) Len() int           { return len(r) }
func (r ranking[T]) Less(i, j int) bool { return r[i].compare(r[j]) < 0 }
func (r ranking[T]) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	*r[i].index(), *r[j].index() = i, j
}

// Push implements heap.Interface.
func (r *ranking[T]) Push(x any) {
	t := x.(T)
	*t.index() = len(*r)
	*r = append(*r, t)
}

// Pop implements heap.Interface.
func (r *ranking[T]) Pop() any {
	last := len(*r) - 1
	t := (*r)[last]
	*t.index() = -1
	var none T
	(*r)[last] = none
	*r = (*r)[:last]
	return t
}

func (r *ranking[T]) fix(t T) {
	if i := *t.index(); i >= 0 {
		heap.Fix(r, i)
	}
}

func (r *ranking[T]) leave(t T) {
	if i := *t.index(); i >= 0 {
		heap.Remove(r, i)
	}
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
	levels []ranking[*clientShare] // the most urgent first
}

// head returns the level of the next window of a bucket and the share that it is in.
func (k *bucket) head() (level int, s *share) {
	for level = range k.levels {
		if r := k.levels[level]; len(r) > 0 {
			return level, r[0].jobs[0]
		}
	}
	return level, nil
}

// before reports whether k's next window comes before that of other.
func (k *bucket) before(other *bucket) bool {
	level, s := k.head()
	otherLevel, o := other.head()
	return cmp.Or(
		cmp.Compare(level, otherLevel), s.of.compare(o.of), s.compare(o),
		cmp.Compare(s.windows.first.order, o.windows.first.order),
	) < 0
}

// all calls f with every window.
func (k *bucket) all(f func(*window)) {
	for _, clients := range k.levels {
		for _, c := range clients {
			for _, s := range c.jobs {
				for w := s.windows.first; w != nil; w = w.next {
					f(w)
				}
			}
		}
	}
}

// A queue has all waiting windows and the jobs that they belong to. It has few buckets and can look at all of them for
// each batch. The cost of a window hardly grows with the number of windows.
type queue struct {
	levels  int
	bounds  []int // Options.Buckets
	buckets map[bucketKey]*bucket
	waiting int
	order   uint64

	now     []int // of each level, the key of the client that was served last
	clients map[clientID]*client
	busy    int    // clients with jobs
	jobs    int    // with windows that have not started
	due     []*job // those with a deadline, the earliest first
}

func newQueue(levels int, bounds []int) queue {
	return queue{
		levels: levels, bounds: bounds, buckets: map[bucketKey]*bucket{},
		now: make([]int, levels), clients: map[clientID]*client{},
	}
}

// add adds a job of a client, whose windows come later.
func (q *queue) add(id clientID, j *job) {
	c := q.clients[id]
	if c == nil {
		q.forget()
		c = &client{id: id}
		q.clients[id] = c
	}
	if len(c.jobs) == 0 {
		q.busy++
	}
	j.client, j.at = c, len(c.jobs)
	c.jobs = append(c.jobs, j)
	c.windows += j.windows
	c.tokens += j.tokens
	q.jobs++
	if j.deadline != math.MaxInt64 {
		at, _ := slices.BinarySearchFunc(q.due, j.deadline, func(other *job, d time.Duration) int {
			return cmp.Or(cmp.Compare(other.deadline, d), -1) // after its equals
		})
		q.due = slices.Insert(q.due, at, j)
	}
}

// settle takes windows off a job that have started or will not run. A job without windows leaves.
func (q *queue) settle(j *job, windows, tokens int) {
	if j.at < 0 {
		return
	}
	c := j.client
	windows, tokens = min(windows, j.windows), min(tokens, j.tokens)
	if windows == j.windows {
		tokens = j.tokens
	}
	j.windows -= windows
	j.tokens -= tokens
	c.windows -= windows
	c.tokens -= tokens
	if j.windows > 0 {
		return
	}
	last := c.jobs[len(c.jobs)-1]
	c.jobs[j.at], last.at = last, j.at
	c.jobs = slices.Delete(c.jobs, len(c.jobs)-1, len(c.jobs))
	j.at = -1
	if len(c.jobs) == 0 {
		q.busy--
	}
	q.jobs--
	if j.deadline != math.MaxInt64 {
		q.due = slices.DeleteFunc(q.due, func(other *job) bool { return other == j })
	}
}

// forget drops clients that have nothing to do and have had no more than those that wait, if there are many.
func (q *queue) forget() {
	if len(q.clients) < 64+2*q.busy {
		return
	}
	for id, c := range q.clients {
		if len(c.jobs) == 0 && c.turn.waiting == 0 && (q.waiting == 0 || c.turn.key <= q.now[id.level]) {
			delete(q.clients, id)
		}
	}
}

// before returns the windows and tokens that will have run when a job of a client is done, if everybody takes turns,
// without its own.
func (q *queue) before(id clientID, tokens int) (windows, sum int) {
	add := func(n, have, most int) {
		if have <= most {
			windows, sum = windows+n, sum+have
		} else {
			windows, sum = windows+n*most/have, sum+most
		}
	}
	if c := q.clients[id]; c != nil {
		for _, j := range c.jobs {
			add(j.windows, j.tokens, tokens)
		}
	}
	own := sum + tokens
	for _, c := range q.clients {
		switch {
		case c.id.level < id.level:
			add(c.windows, c.tokens, math.MaxInt)
		case c.id.level == id.level && c.id != id:
			add(c.windows, c.tokens, own)
		}
	}
	return windows, sum
}

func (q *queue) push(w *window) {
	f, j := w.feature(), w.call.job
	key := bucketKey{len(f.InputIDs), q.bucket(f.Len)}
	k := q.buckets[key]
	if k == nil {
		k = &bucket{key: key, levels: make([]ranking[*clientShare], q.levels)}
		q.buckets[key] = k
	}
	q.order++
	w.order = q.order
	j.client.turn.come(f.Len, q.now[j.client.id.level], w.order)
	j.turn.come(f.Len, j.client.now, w.order)
	w.share = j.share(k)
	w.share.windows.push(w)
	w.share.n++
	k.n++
	q.waiting++
}

// share returns the share of a job in a bucket.
func (j *job) share(k *bucket) *share {
	for _, s := range j.shares {
		if s.of.bucket == k {
			return s
		}
	}
	s := &share{job: j, of: j.client.share(k)}
	j.shares = append(j.shares, s)
	s.of.n++
	heap.Push(&s.of.jobs, s)
	if s.of.place < 0 {
		heap.Push(&k.levels[j.client.id.level], s.of)
	}
	return s
}

func (c *client) share(k *bucket) *clientShare {
	for _, s := range c.shares {
		if s.bucket == k {
			return s
		}
	}
	s := &clientShare{client: c, bucket: k, place: -1}
	c.shares = append(c.shares, s)
	return s
}

// bucket returns the number of the bucket of windows of a length.
func (q *queue) bucket(length int) int {
	if q.bounds == nil {
		return (length + defaultBucket - 1) / defaultBucket
	}
	i, _ := slices.BinarySearch(q.bounds, length)
	return i
}

// remove removes a window that will not run.
func (q *queue) remove(w *window) {
	j := w.call.job
	j.turn.waiting--
	j.client.turn.waiting--
	q.drop(w)
}

// start removes a window that starts and ends the turn of its job and client.
func (q *queue) start(w *window) {
	j := w.call.job
	c := j.client
	tokens := w.tokens()
	j.turn.serve(tokens, &c.now)
	c.turn.serve(tokens, &q.now[c.id.level])
	j.started = true
	q.drop(w)
	for _, s := range j.shares {
		s.of.jobs.fix(s)
	}
	for _, s := range c.shares {
		s.bucket.levels[c.id.level].fix(s)
	}
}

// drop takes a window out of its share, and takes out what is empty then.
func (q *queue) drop(w *window) {
	s := w.share
	of, j := s.of, s.job
	k, c := of.bucket, of.client
	s.windows.remove(w)
	s.n--
	k.n--
	q.waiting--
	w.share = nil
	q.settle(j, 1, w.tokens())
	if s.n == 0 {
		of.jobs.leave(s)
		of.n--
		j.shares = without(j.shares, s)
	}
	if len(of.jobs) == 0 {
		k.levels[c.id.level].leave(of)
	}
	if of.n == 0 {
		c.shares = without(c.shares, of)
	}
	if k.n == 0 {
		delete(q.buckets, k.key)
	}
}

// without returns a list without an element that is in it, in another order.
func without[T comparable](list []T, t T) []T {
	i, last := slices.Index(list, t), len(list)-1
	list[i] = list[last]
	return slices.Delete(list, last, last+1)
}

// take removes the windows of a batch from a bucket and returns them: those of first, if that is not nil, and then
// whose turn it is, the more urgent before the others. A window that does not fit lets others pass.
func (q *queue) take(k *bucket, first *job, size int, exceeds func(windows, longest int) bool) []*window {
	windows := make([]*window, 0, min(size, k.n))
	longest := 0
	fits := func(w *window) bool {
		n := max(longest, w.tokens())
		if len(windows) > 0 && exceeds(len(windows)+1, n) {
			return false
		}
		longest = n
		return true
	}
	start := func(w *window) {
		q.start(w)
		windows = append(windows, w)
	}
	if first != nil {
		for _, s := range first.shares {
			if s.of.bucket != k {
				continue
			}
			for s.n > 0 && len(windows) < size && fits(s.windows.first) {
				start(s.windows.first)
			}
			break
		}
	}
	var aside []*share
	for i := range k.levels {
		level := &k.levels[i]
		for len(*level) > 0 && len(windows) < size && len(aside) < mostAside {
			of := (*level)[0]
			s := of.jobs[0]
			if w := s.windows.first; fits(w) {
				start(w)
				continue
			}
			aside = append(aside, s)
			of.jobs.leave(s)
			if len(of.jobs) == 0 {
				level.leave(of)
			}
		}
	}
	for _, s := range aside {
		heap.Push(&s.of.jobs, s)
		if s.of.place < 0 {
			heap.Push(&k.levels[s.of.client.id.level], s.of)
		}
	}
	// Those of a call stand side by side.
	slices.SortFunc(windows, func(a, b *window) int {
		return cmp.Or(
			cmp.Compare(a.call.job.client.id.level, b.call.job.client.id.level), cmp.Compare(a.order, b.order))
	})
	return windows
}

// mostAside is the number of jobs whose next window does not fit into a batch that take looks past.
const mostAside = 64
