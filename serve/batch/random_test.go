package batch_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A simRequest is a request that comes at a time and may be cancelled at another.
type simRequest struct {
	batch.Request
	client     string
	at, cancel time.Duration
}

// A simWindow is a window that waits in a simulation or is in one of its batches.
type simWindow struct {
	request int
	squad.Feature
	due   time.Duration
	order int // of arrival
}

type simBatch struct {
	end     time.Duration
	windows []simWindow
}

// simClient is a client of a level.
type simClient struct {
	priority int
	name     string
}

// A simTurn is when a client, or a request, is next.
type simTurn struct{ key, order int }

// A simulation computes what a batcher should do with requests, in the plainest way: it keeps the waiting
// windows in one list, and looks through all of it at every event.
type simulation struct {
	opts     batch.Options // without defaults
	takes    time.Duration
	requests []simRequest

	waiting  []simWindow
	running  []simBatch
	left     map[int]int // windows without a result of requests that have not ended
	started  map[int]bool
	ran      []string
	outcomes map[int]string

	order    int
	clients  map[simClient]simTurn
	turns    map[int]simTurn   // of requests
	levels   map[int]int       // the key of the client that was served last, by priority
	lastTurn map[simClient]int // and of its request
}

func (s *simulation) run() {
	s.left, s.started, s.outcomes = map[int]int{}, map[int]bool{}, map[int]string{}
	s.clients, s.turns = map[simClient]simTurn{}, map[int]simTurn{}
	s.levels, s.lastTurn = map[int]int{}, map[simClient]int{}
	for now := time.Duration(0); ; {
		for i, r := range s.requests {
			if r.at == now {
				s.arrive(i, now)
			}
		}
		for i, r := range s.requests {
			switch _, alive := s.left[i]; {
			case alive && r.cancel == now:
				s.end(i, now, "cancelled")
			case alive && r.Timeout > 0 && r.at+r.Timeout == now && !s.started[i]:
				s.end(i, now, "timed out")
			}
		}
		s.running = slices.DeleteFunc(s.running, func(b simBatch) bool {
			live := slices.ContainsFunc(b.windows, func(w simWindow) bool { _, ok := s.left[w.request]; return ok })
			if b.end > now && live {
				return false
			}
			for _, w := range b.windows {
				if _, ok := s.left[w.request]; ok {
					if s.left[w.request]--; s.left[w.request] == 0 {
						s.end(w.request, now, "done")
					}
				}
			}
			return true
		})
		for len(s.running) < s.opts.Concurrency && s.start(now) {
		}

		next := time.Duration(1<<63 - 1)
		later := func(t time.Duration) {
			if t > now {
				next = min(next, t)
			}
		}
		for _, r := range s.requests {
			later(r.at)
			later(r.cancel)
			later(r.at + r.Timeout)
		}
		for _, b := range s.running {
			later(b.end)
		}
		for _, w := range s.waiting {
			later(w.due)
		}
		if next == 1<<63-1 {
			return
		}
		now = next
	}
}

func (s *simulation) client(request int) simClient {
	return simClient{s.requests[request].Priority, s.requests[request].client}
}

// count returns the number of waiting windows of a client, and that of waiting windows of a request.
func (s *simulation) count(request int) (ofClient, ofRequest int) {
	for _, w := range s.waiting {
		if s.client(w.request) == s.client(request) {
			ofClient++
		}
		if w.request == request {
			ofRequest++
		}
	}
	return ofClient, ofRequest
}

func (s *simulation) arrive(i int, now time.Duration) {
	r, client := s.requests[i], s.client(i)
	all, own := map[int]bool{}, map[int]bool{}
	for _, w := range s.waiting {
		if all[w.request] = true; s.client(w.request) == client {
			own[w.request] = true
		}
	}
	if free := s.opts.MaxQueue - len(all); free <= 0 || len(own) >= 8*free {
		s.outcomes[i] = fmt.Sprintf("%v: refused", now)
		return
	}
	s.left[i] = len(r.Features)
	due := now
	if r.Timeout == 0 || r.Timeout > s.opts.MaxDelay {
		due += s.opts.MaxDelay
	}
	for _, f := range r.Features {
		s.order++
		ofClient, ofRequest := s.count(i)
		if ofClient == 0 {
			s.clients[client] = simTurn{max(s.clients[client].key, s.levels[r.Priority]) + f.Len, s.order}
		}
		if ofRequest == 0 {
			s.turns[i] = simTurn{s.lastTurn[client] + f.Len, s.order}
		}
		s.waiting = append(s.waiting, simWindow{i, f, due, s.order})
	}
}

// serve removes a window that starts.
func (s *simulation) serve(w simWindow) {
	i, client := w.request, s.client(w.request)
	s.waiting = slices.DeleteFunc(s.waiting, func(x simWindow) bool { return x.order == w.order })
	s.started[i] = true
	s.levels[client.priority] = max(s.levels[client.priority], s.clients[client].key)
	s.lastTurn[client] = max(s.lastTurn[client], s.turns[i].key)
	ofClient, ofRequest := s.count(i)
	if c := s.clients[client]; ofClient > 0 {
		s.clients[client] = simTurn{c.key + w.Len, c.order}
	}
	if r := s.turns[i]; ofRequest > 0 {
		s.turns[i] = simTurn{r.key + w.Len, r.order}
	}
}

// next returns the window whose turn it is, among those that ok accepts.
func (s *simulation) next(ok func(simWindow) bool) (best simWindow, found bool) {
	for _, w := range s.waiting {
		if !ok(w) {
			continue
		}
		a, b := s.clients[s.client(w.request)], s.clients[s.client(best.request)]
		x, y := s.turns[w.request], s.turns[best.request]
		if !found || cmp.Or(
			cmp.Compare(s.requests[w.request].Priority, s.requests[best.request].Priority),
			cmp.Compare(a.key, b.key), cmp.Compare(a.order, b.order),
			cmp.Compare(x.key, y.key), cmp.Compare(x.order, y.order), cmp.Compare(w.order, best.order),
		) < 0 {
			best, found = w, true
		}
	}
	return best, found
}

func (s *simulation) end(i int, now time.Duration, outcome string) {
	s.outcomes[i] = fmt.Sprintf("%v: %s", now, outcome)
	delete(s.left, i)
	s.waiting = slices.DeleteFunc(s.waiting, func(w simWindow) bool { return w.request == i })
}

// start starts the next batch, if one is ready.
func (s *simulation) start(now time.Duration) bool {
	type bucket struct{ length, padded int }
	of := func(w simWindow) bucket { return bucket{(w.Len + 31) / 32, len(w.InputIDs)} }
	notReady := map[bucket]bool{}
	for {
		head, ok := s.next(func(w simWindow) bool { return !notReady[of(w)] })
		if !ok {
			return false
		}
		n, longest, due := 0, 0, time.Duration(1<<63-1)
		for _, w := range s.waiting {
			if of(w) == of(head) {
				n, longest, due = n+1, max(longest, w.Len), min(due, w.due)
			}
		}
		preferred := 0
		for _, p := range s.opts.PreferredSizes {
			if p <= n {
				preferred = max(preferred, p)
			}
		}
		size := s.opts.MaxSize
		switch {
		case n >= s.opts.MaxSize, s.opts.MaxTokens > 0 && (n+1)*longest > s.opts.MaxTokens:
		case s.opts.MaxDelay > 0 && due <= now:
		case preferred > 0:
			size = preferred
		case s.opts.MaxDelay > 0:
			notReady[of(head)] = true
			continue
		}
		s.fill(now, size, func(w simWindow) bool { return of(w) == of(head) })
		return true
	}
}

// fill starts a batch of the windows that may share it, in turn, as far as they fit.
func (s *simulation) fill(now time.Duration, size int, share func(simWindow) bool) {
	var windows []simWindow
	longest, aside := 0, map[int]bool{}
	for len(windows) < size {
		w, ok := s.next(func(w simWindow) bool { return share(w) && !aside[w.request] })
		if !ok {
			break
		}
		n := max(longest, w.Len)
		if len(windows) > 0 && s.opts.MaxTokens > 0 && (len(windows)+1)*n > s.opts.MaxTokens {
			aside[w.request] = true
			continue
		}
		longest = n
		s.serve(w)
		windows = append(windows, w)
	}
	slices.SortFunc(windows, func(a, b simWindow) int {
		return cmp.Or(
			cmp.Compare(s.requests[a.request].Priority, s.requests[b.request].Priority), cmp.Compare(a.order, b.order))
	})
	line := fmt.Sprintf("%v:", now)
	for _, w := range windows {
		line += fmt.Sprintf(" %d", name(&w.Feature))
	}
	s.ran = append(s.ran, line)
	s.running = append(s.running, simBatch{now + s.takes, windows})
}

// The batches, their times and the outcome of every request are those of the simulation.
func TestBatcherDoesWhatASimulationDoes(t *testing.T) {
	outcomes := map[string]int{}
	batches := 0
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		opts := batch.Options{
			MaxSize:     1 + rnd.IntN(8),
			MaxTokens:   rnd.IntN(2) * (100 + rnd.IntN(400)),
			MaxDelay:    time.Duration(rnd.IntN(2)*rnd.IntN(20)) * ms,
			MaxQueue:    2 + rnd.IntN(20),
			Concurrency: 1 + rnd.IntN(3),
			Priorities:  1 + rnd.IntN(3),
		}
		for range rnd.IntN(3) {
			opts.PreferredSizes = append(opts.PreferredSizes, 1+rnd.IntN(opts.MaxSize))
		}
		takes := time.Duration(1+rnd.IntN(15)) * ms
		gap := 1 + rnd.IntN(10) // ms between requests, on average
		lengths := 1 + rnd.IntN(128)
		requests := make([]simRequest, 60)
		named := 0
		for i := range requests {
			r := &requests[i]
			// No two events happen at the same moment, when their order would be undefined: every request
			// has nanoseconds of its own, and a quarter of its milliseconds for each way to end.
			r.at = time.Duration(rnd.IntN(len(requests)*gap))*ms + time.Duration(i+1)
			r.Priority = 1 + rnd.IntN(opts.Priorities)
			r.client = string(rune('a' + rnd.IntN(4)))
			if rnd.IntN(4) == 0 {
				r.cancel = r.at + time.Duration(rnd.IntN(40))*ms + ms/4
			}
			if rnd.IntN(4) == 0 {
				r.Timeout = time.Duration(rnd.IntN(40))*ms + ms/2
			}
			for range 1 + rnd.IntN(1+rnd.IntN(6)) {
				named++
				r.Features = append(r.Features, feature(named, 1+rnd.IntN(lengths), 128<<rnd.IntN(2)))
			}
		}
		want := &simulation{opts: opts, takes: takes, requests: requests}
		want.run()

		synctest.Test(t, func(t *testing.T) {
			s := newScenario(t, takes, opts)
			for _, r := range requests {
				ctx := t.Context()
				if r.cancel > 0 {
					ctx = s.goneAt(r.cancel)
				}
				s.atWith(batch.WithClient(ctx, r.client), r.at, r.Request)
			}
			got := s.wait()
			slices.Sort(got) // batches of one moment start in any order
			slices.Sort(want.ran)
			require.Equal(t, want.ran, got, "seed %d: %+v", seed, opts)
			for i, r := range requests {
				reply := s.replies[name(&r.Features[0])]
				outcome := "refused"
				switch {
				case reply.err == nil:
					outcome = "done"
				case errors.Is(reply.err, batch.ErrTimeout):
					outcome = "timed out"
				case errors.Is(reply.err, context.Canceled):
					outcome = "cancelled"
				}
				require.Equal(t, want.outcomes[i], fmt.Sprintf("%v: %s", reply.at, outcome), "seed %d, request %d", seed, i)
				outcomes[outcome]++
			}
			batches += len(got)
		})
	}
	t.Log(batches, "batches,", outcomes)
	for _, outcome := range []string{"done", "refused", "timed out", "cancelled"} {
		assert.Greater(t, outcomes[outcome], 100, outcome)
	}
}

// Of thousands of requests of all kinds, to a model that fails in all ways, each gets its own results or an
// error that fits, and no bound is broken.
func TestEverythingAtOnce(t *testing.T) {
	const requests, mostWindows = 4000, 9
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			opts := batch.Options{
				MaxSize: 6, MaxTokens: 900, MaxDelay: 3 * ms, MaxQueue: 20, MaxWait: 60 * ms,
				Concurrency: 3, Priorities: 3, PreferredSizes: []int{4},
			}
			bad := errors.New("bad")
			// The name of a window decides what the model does.
			fails := func(f squad.Feature) bool { return name(&f)%97 == 0 }
			panics := func(f squad.Feature) bool { return name(&f)%101 == 0 }
			mixesUp := func(f squad.Feature) bool { return name(&f)%103 == 0 }

			var mu sync.Mutex
			speed := rand.New(rand.NewPCG(seed, 3))
			running, ran := 0, map[int]int{}
			var b *batch.Batcher
			model := predictor(func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
				mu.Lock()
				running++
				assert.LessOrEqual(t, running, opts.Concurrency)
				longest := 0
				for i := range f {
					ran[name(&f[i])]++
					longest = max(longest, f[i].Len)
					assert.Len(t, f[i].InputIDs, len(f[0].InputIDs))
					assert.Equal(t, (f[0].Len+31)/32, (f[i].Len+31)/32)
				}
				takes := time.Duration(1+speed.IntN(10)) * ms
				mu.Unlock()
				assert.LessOrEqual(t, len(f), opts.MaxSize)
				assert.True(t, len(f) == 1 || len(f)*longest <= opts.MaxTokens)
				assert.LessOrEqual(t, b.Waiting(), opts.MaxQueue*mostWindows)
				select {
				case <-time.After(takes):
				case <-ctx.Done():
				}
				mu.Lock()
				running--
				mu.Unlock()
				switch {
				case ctx.Err() != nil:
					return nil, ctx.Err()
				case slices.ContainsFunc(f, fails):
					return nil, bad
				case slices.ContainsFunc(f, panics):
					panic("a window")
				case slices.ContainsFunc(f, mixesUp):
					r := results(f)
					r[0].UniqueID--
					return r, nil
				}
				return results(f), nil
			})
			told := 0
			opts.OnBatch = func(x batch.Batch) {
				mu.Lock()
				defer mu.Unlock()
				told += x.Windows
				assert.LessOrEqual(t, x.Requests, x.Windows)
				assert.LessOrEqual(t, x.Tokens, x.Padded)
			}
			b, err := batch.New(model, opts)
			require.NoError(t, err)

			var wg sync.WaitGroup
			counts := map[string]int{}
			named := 0
			for range requests {
				r := batch.Request{Priority: rnd.IntN(4)}
				for range 1 + rnd.IntN(1+rnd.IntN(mostWindows)) {
					named++
					r.Features = append(r.Features, feature(named, 1+rnd.IntN(200), 256<<rnd.IntN(2)))
				}
				client := string(rune('a' + rnd.IntN(5)))
				at, patience := time.Duration(rnd.IntN(requests*2))*ms, time.Hour
				if rnd.IntN(5) == 0 {
					patience = time.Duration(1+rnd.IntN(30)) * ms
				}
				wg.Go(func() {
					time.Sleep(at)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					got, err := b.Do(batch.WithClient(ctx, client), r)
					mu.Lock()
					defer mu.Unlock()
					most := 0 // runs of a window
					for _, f := range r.Features {
						most = max(most, ran[name(&f)])
						assert.LessOrEqual(t, ran[name(&f)], 2)
					}
					var full *batch.QueueFullError
					var late *batch.DeadlineError
					var panicked *batch.PanicError
					switch {
					case err == nil:
						counts["done"]++
						assert.Equal(t, results(r.Features), got.Results)
						assert.False(t, slices.ContainsFunc(r.Features, fails))
						assert.False(t, slices.ContainsFunc(r.Features, panics))
						assert.False(t, slices.ContainsFunc(r.Features, mixesUp))
					case errors.As(err, &full):
						counts["refused"]++
						assert.Zero(t, most)
					case errors.As(err, &late):
						counts["too late"]++
						assert.Zero(t, most)
						assert.Greater(t, late.Takes, late.Left)
					case errors.Is(err, batch.ErrTimeout):
						counts["timed out"]++
						assert.Zero(t, most)
					case errors.Is(err, context.DeadlineExceeded):
						counts["cancelled"]++
						assert.Less(t, patience, time.Hour)
					case errors.Is(err, bad):
						counts["failed"]++
						assert.True(t, slices.ContainsFunc(r.Features, fails))
					case errors.As(err, &panicked):
						counts["panicked"]++
						assert.True(t, slices.ContainsFunc(r.Features, panics))
					default:
						counts["mixed up"]++
						assert.ErrorContains(t, err, "the model returned window")
						assert.True(t, slices.ContainsFunc(r.Features, mixesUp))
					}
				})
			}
			wg.Wait()
			assert.Zero(t, b.Waiting())
			require.NoError(t, b.Close())
			assert.Zero(t, b.Running())
			total, runs := 0, 0
			for _, n := range counts {
				total += n
			}
			for _, n := range ran {
				runs += n
			}
			assert.Equal(t, requests, total)
			assert.Equal(t, runs, told)
			assert.Len(t, counts, 8, "each kind of outcome is in it")
			t.Log(runs, "windows run,", counts)
		})
	}
}
