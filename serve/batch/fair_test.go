package batch_test

import (
	"context"
	"errors"
	"fmt"
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

// client returns the context of a client.
func client(t *testing.T, name string) context.Context { return batch.WithClient(t.Context(), name) }

// many returns windows of one length with one name.
func many(windows, tokens, name int) []squad.Feature {
	return features(tokens, slices.Repeat([]int{name}, windows)...)
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1})
		s.atWith(client(t, "a"), 0, batch.Request{Features: features(100, 10, 11, 12, 13)})
		s.atWith(client(t, "a"), 1*ms, batch.Request{Features: features(100, 20, 21)})
		s.atWith(client(t, "b"), 2*ms, batch.Request{Features: features(100, 30, 31, 32)})
		assert.Equal(t, []string{
			"0s: 10", "10ms: 11", "20ms: 30", "30ms: 20", "40ms: 31", "50ms: 12", "60ms: 32", "70ms: 21", "80ms: 13",
		}, s.wait(), "clients in turn, and the requests of a client in turn")
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1})
		s.atWith(client(t, "long"), 0, batch.Request{Features: features(90, 10, 11, 12)})
		s.atWith(client(t, "short"), 1*ms, batch.Request{Features: features(30, 20, 21, 22, 23, 24, 25, 26)})
		assert.Equal(t, []string{
			"0s: 10", "10ms: 20", "20ms: 21", "30ms: 11", "40ms: 22", "50ms: 23", "60ms: 24", "70ms: 12", "80ms: 25",
			"90ms: 26",
		}, s.wait(), "three short windows are worth a long one")
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1})
		s.atWith(client(t, "a"), 0, batch.Request{Features: many(10, 100, 1)})
		// The next window of b always comes when it has none waiting.
		for i := range 9 {
			s.atWith(client(t, "b"), time.Duration(10*i+1)*ms, batch.Request{Features: features(100, 20+i)})
		}
		order := ""
		for _, line := range s.wait() {
			order += string(line[len(line)-2:])
		}
		assert.Equal(t, " 1 120 121 122 123 124 125 126 127 128", order)
	})
}

// Beside sixteen clients with long documents a small question waits about as long as beside one.
func TestASmallQuestionBesideLongDocuments(t *testing.T) {
	p99 := map[int]time.Duration{}
	for _, clients := range []int{1, 16} {
		synctest.Test(t, func(t *testing.T) {
			model := predictor(func(_ context.Context, f []squad.Feature) ([]squad.RawResult, error) {
				time.Sleep(ms + time.Duration(f[0].Len*len(f))*10*time.Microsecond)
				return results(f), nil
			})
			b, err := batch.New(model, batch.Options{Concurrency: 2})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			for i := range clients {
				group.Go(func() {
					for ctx.Err() == nil {
						c, cancel := context.WithTimeout(batch.WithClient(ctx, fmt.Sprint(i)), time.Minute)
						_, _ = b.Do(c, batch.Request{Features: many(875, 384, i)})
						cancel()
					}
				})
			}
			time.Sleep(time.Second)
			var times []time.Duration
			for i := range 1000 {
				time.Sleep(time.Duration(i%37) * ms)
				began := time.Now()
				c, cancel := context.WithTimeout(batch.WithClient(ctx, "small"), time.Minute)
				_, err := b.Do(c, batch.Request{Features: features(30, 1000)})
				assert.NoError(t, err)
				cancel()
				times = append(times, time.Since(began))
			}
			cancel()
			group.Wait()
			require.NoError(t, b.Close())
			slices.Sort(times)
			p99[clients] = times[990]
			t.Logf("%d clients: p50 %v, p99 %v", clients, times[500], times[990])
		})
	}
	assert.LessOrEqual(t, p99[16], 3*p99[1])
}

// Under 1.7 times the load that the model can take, what is begun is finished, and long documents are among it.
func TestOverload(t *testing.T) {
	const (
		small = 64  // questions of one window per second, of 8 clients: 0.8 times what the model can take
		long  = 160 // windows of documents every 2.2 s, of 5 clients: 0.9 times
	)
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		model := predictor(func(_ context.Context, f []squad.Feature) ([]squad.RawResult, error) {
			ran += len(f)
			time.Sleep(100 * ms) // 80 windows per second
			return results(f), nil
		})
		b, err := batch.New(model, batch.Options{Buckets: []int{}})
		require.NoError(t, err)
		var group sync.WaitGroup
		var mu sync.Mutex
		type outcome struct{ sent, done, refused, late int }
		outcomes := map[int]*outcome{1: {}, long: {}}
		useful := 0
		send := func(client string, windows int) {
			outcomes[windows].sent++
			group.Go(func() {
				ctx, cancel := context.WithTimeout(batch.WithClient(t.Context(), client), time.Minute)
				defer cancel()
				_, err := b.Do(ctx, batch.Request{Features: many(windows, 384, 1)})
				mu.Lock()
				defer mu.Unlock()
				var late *batch.DeadlineError
				var full *batch.QueueFullError
				o := outcomes[windows]
				switch {
				case err == nil:
					o.done++
					useful += windows
				case errors.As(err, &late), errors.As(err, &full):
					o.refused++
				default:
					o.late++
				}
			})
		}
		for i := range small * 600 {
			time.Sleep(time.Second / small)
			send(fmt.Sprint("small", i%8), 1)
			if i%(small*22/10) == 0 {
				send(fmt.Sprint("long", i%5), long)
			}
		}
		group.Wait()
		require.NoError(t, b.Close())
		t.Logf("documents %+v, questions %+v; of %d windows %d were for nothing",
			*outcomes[long], *outcomes[1], ran, ran-useful)
		assert.Greater(t, outcomes[long].done, 30)
		assert.Less(t, outcomes[long].late, outcomes[long].done/4)
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, time.Second, batch.Options{MaxSize: 1})
		within := func(d time.Duration, windows int) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			began := time.Now()
			_, err := s.Do(ctx, batch.Request{Features: many(windows, 100, 1)})
			var late *batch.DeadlineError
			if errors.As(err, &late) {
				assert.Zero(t, time.Since(began))
			}
			return err
		}
		require.NoError(t, within(time.Minute, 1)) // which shows how fast the model is
		require.NoError(t, within(time.Minute, 59), "an idle model takes what it can do in time")
		err := within(time.Minute, 61)
		assert.Equal(t, &batch.DeadlineError{Takes: 61 * time.Second, Left: time.Minute}, err, "no retry can mend it")
		assert.EqualError(t, err,
			"the request would take 1m1s, and has 1m0s left: it is too large for the speed of the model")

		s.at(s.now(), batch.Request{Features: many(40, 100, 2)})
		synctest.Wait()
		err = within(time.Minute, 30) // one of the 40 is in the model
		assert.Equal(t, &batch.DeadlineError{
			Takes: 61 * time.Second, Left: time.Minute, RetryAfter: time.Second,
		}, err)
		assert.EqualError(t, err, "the request would take 1m1s, and has 1m0s left: try again in 1s")
		require.NoError(t, within(5*time.Second, 2), "it has its turns beside a long one")
		s.wait()
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, time.Second, batch.Options{MaxSize: 1})
		require.NoError(t, s.WarmUp(t.Context(), many(1, 100, 1)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.Do(ctx, batch.Request{Features: many(1024, 100, 1)})
		assert.ErrorContains(t, err, "would take 17m4s", "the first request")
		assert.Len(t, s.wait(), 1)
	})
}

// A request that comes to be late, because many others came, has every second batch.
func TestALateRequestIsHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, time.Second, batch.Options{MaxSize: 1})
		require.NoError(t, s.WarmUp(t.Context(), many(1, 100, 1)))
		ctx, cancel := context.WithTimeout(client(t, "long"), 30*time.Second)
		defer cancel()
		s.atWith(ctx, s.now(), batch.Request{Features: many(10, 100, 1)})
		for i := range 10 {
			s.atWith(client(t, fmt.Sprint(i)), s.now()+ms, batch.Request{Features: many(8, 100, 10+i)})
		}
		s.wait()
		require.NoError(t, s.replies[1].err)
		assert.Greater(t, s.replies[1].at, 20*time.Second)
		assert.LessOrEqual(t, s.replies[14].at, 91*time.Second, "and others have the rest")
	})
}

func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1, MaxQueue: 2})
		part, end, err := s.Admit(t.Context(), 0, 4, 400)
		require.NoError(t, err)
		s.atWith(part, 0, batch.Request{Features: features(100, 10, 11)})
		s.at(1*ms, batch.Request{Features: features(100, 20, 21, 22)})
		s.at(2*ms, batch.Request{Features: features(100, 30)})            // the queue is full
		s.atWith(part, 3*ms, batch.Request{Features: features(100, 12)})  // for others
		s.atWith(part, 21*ms, batch.Request{Features: features(100, 13)}) // its parts have the turns of one request
		s.at(55*ms, batch.Request{Features: features(100, 40)})           // the last part has started
		assert.Equal(t, []string{
			"0s: 10", "10ms: 11", "20ms: 20", "30ms: 12", "40ms: 21", "50ms: 13", "60ms: 22", "70ms: 40",
		}, s.wait())
		end()
		end()
		var full *batch.QueueFullError
		assert.ErrorAs(t, s.replies[30].err, &full)
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxQueue: 1, Priorities: 2})
		_, _, err := s.Admit(t.Context(), 3, 1, 1)
		assert.ErrorIs(t, err, batch.ErrPriority)
		_, end, err := s.Admit(t.Context(), 1, 1000, 10000)
		require.NoError(t, err)
		_, _, err = s.Admit(t.Context(), 1, 1, 1)
		assert.EqualError(t, err, "the queue is full, with 1 requests of at most 1: try again in 1s")
		end() // without a part: its place is free
		_, end, err = s.Admit(t.Context(), 1, 1, 1)
		require.NoError(t, err)
		end()
		_, end, err = s.Admit(t.Context(), 1, 0, 0)
		require.NoError(t, err)
		end()
		require.NoError(t, s.Close())
		_, _, err = s.Admit(t.Context(), 1, 1, 1)
		assert.Equal(t, batch.ErrClosed, err)
	})
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 2})
		f := []squad.Feature{feature(1, 10, 384), feature(2, 100, 384), feature(3, 10, 384)}
		var got []squad.RawResult
		var at []time.Duration
		r, err := s.Do(t.Context(), batch.Request{Features: f, Progress: func(r []squad.RawResult) error {
			got, at = append(got, r...), append(at, s.now())
			return nil
		}})
		require.NoError(t, err)
		assert.Nil(t, r.Results)
		assert.Equal(t, 2, r.Batches)
		assert.Equal(t, results(f), got)
		assert.Equal(t, []time.Duration{10 * ms, 20 * ms}, at, "the second is the last to run")

		calls := 0
		_, err = s.Do(t.Context(), batch.Request{
			Features: f, Progress: func([]squad.RawResult) error { calls++; return assert.AnError },
		})
		assert.Equal(t, assert.AnError, err)
		assert.Equal(t, 1, calls)
		assert.Zero(t, s.Waiting())

		assert.Panics(t, func() {
			_, _ = s.Do(t.Context(), batch.Request{Features: f, Progress: func([]squad.RawResult) error { panic("x") }})
		})
		assert.Zero(t, s.Waiting())
		require.NoError(t, s.Close())
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 2})
		s.predict = func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
			if name(&f[0]) == 5 {
				return nil, assert.AnError
			}
			return instant(ctx, f)
		}
		var slow []squad.RawResult
		_, err := s.Do(t.Context(), batch.Request{
			Features: features(10, 1, 2, 3, 4, 5), Progress: func(r []squad.RawResult) error {
				time.Sleep(time.Second)
				slow = append(slow, r...)
				return nil
			},
		})
		assert.Equal(t, assert.AnError, err)
		assert.Equal(t, results(features(10, 1, 2, 3, 4)), slow, "also what came before the error")
		require.NoError(t, s.Close())
	})
}
