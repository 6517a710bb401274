package repository

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A cache keeps the logits of windows, those that were asked for last, for all models that use it. The logits of a
// window depend on its tokens alone: whatever passage it is part of, and however its answer is decoded, they are the
// same. Of requests for one window at the same time, one runs it and the others take its result.
type cache struct {
	most int64

	mu      sync.Mutex
	entries map[windowKey]*list.Element
	order   *list.List // of the entries, the one that was asked for last first
	bytes   int64
	flights map[flightKey]*flight
}

// A windowKey is a hash of a window and its model. Clients choose windows, so it is one for which nobody finds two of
// the same key.
type windowKey [sha256.Size]byte

type logits struct{ start, end []float32 }

type cacheEntry struct {
	key   windowKey
	model uint64
	logits
}

// entryBytes is what an entry takes in addition to its logits.
const entryBytes = 256

func (l *logits) bytes() int64 { return entryBytes + 4*int64(len(l.start)+len(l.end)) }

// A flight is a window that a request runs now. Requests share it if they would also wait in the queue alike.
type flight struct {
	done   chan struct{} // closed when it has ended
	logits logits
	ok     bool
}

type flightKey struct {
	window   windowKey
	priority int
	timeout  time.Duration
}

func newCache(most int64) *cache {
	return &cache{
		most: most, entries: map[windowKey]*list.Element{}, order: list.New(), flights: map[flightKey]*flight{},
	}
}

// A CacheState says what a repository's response cache holds.
type CacheState struct {
	Entries     int // windows
	Bytes, Most int64
}

// Cache returns the state of the response cache. It reports false if there is none.
func (r *Repository) Cache() (s CacheState, ok bool) {
	c := r.cache
	if c == nil {
		return CacheState{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return CacheState{len(c.entries), c.bytes, c.most}, true
}

// modelNumbers tells a model that was loaded again from the one before.
var modelNumbers atomic.Uint64

// lookups are what a request asked the cache for.
type lookups struct {
	hits, misses int // windows
	took         time.Duration
}

func (l *lookups) add(o lookups) {
	l.hits += o.hits
	l.misses += o.misses
	l.took += o.took
}

// do runs the windows of a request, except those that the cache has.
func (m *Model) do(ctx context.Context, r batch.Request, s *Seconds) (batch.Response, error) {
	if m.cache == nil {
		return m.batcher.Do(ctx, r)
	}
	began := time.Now()
	x := m.cache.begin(m.number, r)
	s.cache.add(lookups{len(r.Features) - len(x.own), len(x.own), time.Since(began)})

	response, err := m.runOwn(ctx, x, s)
	if err == nil {
		err = x.report() // where others run what is next
	}
	if err != nil {
		return batch.Response{}, err
	}
	failed, err := x.wait(ctx, &response)
	if err != nil {
		return batch.Response{}, err
	}
	if len(failed) > 0 { // alone, so that many requests for a window that fails do not fail one after the other
		again, err := m.batcher.Do(ctx, x.request(failed))
		if err != nil {
			return batch.Response{}, err
		}
		for i, result := range again.Results {
			x.results[failed[i]] = result
		}
		response.Queue += again.Queue
		response.Compute += again.Compute
		response.Batches += again.Batches
	}
	if x.progress != nil {
		response.Results = nil
		return response, x.report()
	}
	response.Results = x.results
	return response, nil
}

// runOwn runs the windows of a request that no other one runs.
func (m *Model) runOwn(ctx context.Context, x *cachedCall, s *Seconds) (response batch.Response, err error) {
	err = errNotRun
	var results []squad.RawResult
	defer func() {
		began := time.Now()
		m.cache.end(m.number, x, results, err) // also after a panic, because others wait
		s.cache.took += time.Since(began)
	}()
	if err := x.report(); err != nil {
		return response, err
	}
	r := x.request(x.own)
	if x.progress != nil {
		r.Progress = func(next []squad.RawResult) error {
			for _, result := range next {
				x.results[x.own[len(results)]] = result
				results = append(results, result)
			}
			return x.report()
		}
	}
	response, err = m.batcher.Do(ctx, r)
	if x.progress == nil {
		results = response.Results
	}
	return response, err
}

var errNotRun = errors.New("the windows were not run")

// A cachedCall is a request on its way through the cache.
type cachedCall struct {
	batch.Request
	results []squad.RawResult
	keys    []flightKey
	own     []int // windows that it runs itself
	flights map[int]*flight

	progress func([]squad.RawResult) error // Request.Progress of all windows
	reported int
}

// report calls progress with the results of the first windows that it has not had.
func (x *cachedCall) report() error {
	from := x.reported
	for x.reported < len(x.results) && x.results[x.reported].StartLogits != nil {
		x.reported++
	}
	if x.progress == nil || x.reported == from {
		return nil
	}
	return x.progress(x.results[from:x.reported])
}

// request returns the request of some of the windows alone.
func (x *cachedCall) request(windows []int) batch.Request {
	r := x.Request
	r.Features = make([]squad.Feature, len(windows))
	for i, w := range windows {
		r.Features[i] = x.Features[w]
	}
	return r
}

func (x *cachedCall) set(window int, l *logits) {
	x.results[window] = squad.RawResult{
		UniqueID: x.Features[window].UniqueID, StartLogits: l.start, EndLogits: l.end,
	}
}

// begin looks the windows of a request up, and begins a flight for each that is neither there nor under way.
func (c *cache) begin(model uint64, r batch.Request) *cachedCall {
	x := &cachedCall{
		Request: r, results: make([]squad.RawResult, len(r.Features)), flights: map[int]*flight{},
		keys: make([]flightKey, len(r.Features)), progress: r.Progress,
	}
	x.Progress = nil
	for i := range r.Features {
		x.keys[i] = flightKey{keyOf(model, &r.Features[i]), r.Priority, r.Timeout}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range x.keys {
		if e := c.entries[key.window]; e != nil {
			c.order.MoveToFront(e)
			x.set(i, &e.Value.(*cacheEntry).logits)
			continue
		}
		f := c.flights[key]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[key] = f
			x.own = append(x.own, i)
			continue
		}
		x.flights[i] = f
	}
	return x
}

// end ends the flights of a request, with the results of its own windows or an error.
func (c *cache) end(model uint64, x *cachedCall, results []squad.RawResult, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, w := range x.own {
		f := c.flights[x.keys[w]]
		delete(c.flights, x.keys[w])
		if err == nil {
			x.results[w] = results[i]
			// Copies, because a result is part of its whole batch.
			f.logits = logits{slices.Clone(results[i].StartLogits), slices.Clone(results[i].EndLogits)}
			f.ok = true
			c.add(&cacheEntry{x.keys[w].window, model, f.logits})
		}
		close(f.done)
	}
}

// add adds an entry and drops the oldest until there is room. c.mu is held.
func (c *cache) add(e *cacheEntry) {
	if e.bytes() > c.most {
		return
	}
	if old := c.entries[e.key]; old != nil {
		c.remove(old)
	}
	c.entries[e.key] = c.order.PushFront(e)
	for c.bytes += e.bytes(); c.bytes > c.most; {
		c.remove(c.order.Back())
	}
}

// remove removes an entry. c.mu is held.
func (c *cache) remove(at *list.Element) {
	e := c.order.Remove(at).(*cacheEntry)
	delete(c.entries, e.key)
	c.bytes -= e.bytes()
}

// drop drops the entries of a model, which is not used any more.
func (c *cache) drop(model uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		at := e
		e = e.Next()
		if at.Value.(*cacheEntry).model == model {
			c.remove(at)
		}
	}
}

// wait takes the results of windows that other requests run. It returns those whose requests failed, which may have
// been for reasons of their own.
func (x *cachedCall) wait(ctx context.Context, response *batch.Response) (failed []int, err error) {
	began := time.Now()
	for w := range x.Features {
		f := x.flights[w]
		if f == nil {
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !f.ok {
			failed = append(failed, w)
			continue
		}
		x.set(w, &f.logits)
	}
	if len(x.flights) > 0 {
		response.Queue += time.Since(began)
	}
	return failed, nil
}

// keyOf returns the key of a window: all that a model sees of it.
func keyOf(model uint64, f *squad.Feature) windowKey {
	b := make([]byte, 0, 24+12*f.Len)
	b = binary.LittleEndian.AppendUint64(b, model)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(f.InputIDs)))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Len))
	for _, list := range [][]int32{f.InputIDs, f.InputMask, f.SegmentIDs} {
		for _, n := range list[:f.Len] {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
	}
	return sha256.Sum256(b)
}
