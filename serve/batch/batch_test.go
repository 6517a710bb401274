package batch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

const ms = time.Millisecond

// firstID is the UniqueID that the windows of every request count from.
const firstID = 1000000000

// feature returns a window with a number as its name, which a model sees, unlike its UniqueID.
func feature(name, tokens, padded int) squad.Feature {
	f := squad.Feature{UniqueID: firstID, InputIDs: make([]int32, padded), Len: tokens}
	f.InputIDs[0] = int32(name)
	return f
}

// features returns windows of one length with these names.
func features(tokens int, names ...int) []squad.Feature {
	all := make([]squad.Feature, len(names))
	for i, name := range names {
		all[i] = feature(name, tokens, 384)
		all[i].UniqueID += int32(i)
	}
	return all
}

func name(f *squad.Feature) int { return int(f.InputIDs[0]) }

// result returns the result for a window: its name.
func result(f *squad.Feature) squad.RawResult {
	n := float32(name(f))
	return squad.RawResult{UniqueID: f.UniqueID, StartLogits: []float32{n}, EndLogits: []float32{-n}}
}

func results(features []squad.Feature) []squad.RawResult {
	all := make([]squad.RawResult, len(features))
	for i := range features {
		all[i] = result(&features[i])
	}
	return all
}

// A predictor is a function as a model.
type predictor func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error)

func (p predictor) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	return p(ctx, features)
}

// instant is a model that takes no time.
var instant = predictor(func(_ context.Context, f []squad.Feature) ([]squad.RawResult, error) {
	return results(f), nil
})

// A scenario is a batcher with a model that takes some time for each batch, and requests that come at given
// times. It runs in a synctest bubble, and counts the bubble's time from its own beginning.
type scenario struct {
	*batch.Batcher
	t     *testing.T
	began time.Time
	wg    sync.WaitGroup

	takes   time.Duration
	predict predictor // returns the results after that time

	mu      sync.Mutex
	ran     []string // the batches: when they started and their windows
	told    []batch.Batch
	replies map[int]*reply // by the name of the request's first window
}

// A reply is the outcome of a request.
type reply struct {
	batch.Response
	err error
	at  time.Duration
}

func newScenario(t *testing.T, takes time.Duration, opts batch.Options) *scenario {
	s := &scenario{t: t, began: time.Now(), takes: takes, predict: instant, replies: map[int]*reply{}}
	opts.OnBatch = func(b batch.Batch) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, b)
	}
	var err error
	s.Batcher, err = batch.New(predictor(s.runModel), opts)
	require.NoError(t, err)
	return s
}

// now returns the time since the beginning.
func (s *scenario) now() time.Duration { return time.Since(s.began) }

// runModel is the model.
func (s *scenario) runModel(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	names := make([]string, len(features))
	for i := range features {
		names[i] = fmt.Sprint(name(&features[i]))
	}
	s.mu.Lock()
	s.ran = append(s.ran, fmt.Sprintf("%v: %s", s.now(), strings.Join(names, " ")))
	s.mu.Unlock()
	select {
	case <-time.After(s.takes):
		return s.predict(ctx, features)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// at sends a request at a time from the beginning.
func (s *scenario) at(when time.Duration, r batch.Request) { s.atWith(s.t.Context(), when, r) }

// atWith is at with a context.
func (s *scenario) atWith(ctx context.Context, when time.Duration, r batch.Request) {
	s.wg.Go(func() {
		time.Sleep(when - s.now())
		got, err := s.Do(ctx, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.replies[name(&r.Features[0])] = &reply{got, err, s.now()}
		if err == nil {
			assert.Equal(s.t, results(r.Features), got.Results)
		} else {
			assert.Zero(s.t, got)
		}
	})
}

// goneAt returns the context of a client that goes at a time, which nobody knows before.
func (s *scenario) goneAt(when time.Duration) context.Context {
	ctx, cancel := context.WithCancel(s.t.Context())
	time.AfterFunc(when-s.now(), cancel)
	return ctx
}

// wait waits for all requests, closes the batcher, and returns the batches that ran.
func (s *scenario) wait() []string {
	s.wg.Wait()
	assert.Zero(s.t, s.Waiting())
	assert.NoError(s.t, s.Close())
	assert.Zero(s.t, s.Running())
	return s.ran
}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 3})
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(4*ms, batch.Request{Features: features(20, 2, 3, 4, 5)})
		s.at(5*ms, batch.Request{Features: features(30, 6)})
		assert.Equal(t, []string{"0s: 1", "10ms: 2 3 6", "20ms: 4 5"}, s.wait(), "requests take turns")

		reply := s.replies[1]
		assert.Equal(t, []any{0 * ms, 10 * ms, 1, 10 * ms}, []any{reply.Queue, reply.Compute, reply.Batches, reply.at})
		reply = s.replies[2]
		assert.Equal(t, []any{6 * ms, 20 * ms, 2, 30 * ms}, []any{reply.Queue, reply.Compute, reply.Batches, reply.at})
		reply = s.replies[6]
		assert.Equal(t, []any{5 * ms, 10 * ms, 1, 20 * ms}, []any{reply.Queue, reply.Compute, reply.Batches, reply.at})
		assert.Equal(t, []batch.Batch{
			{Windows: 1, Requests: 1, Tokens: 10, Padded: 10, Compute: 10 * ms},
			{Windows: 3, Requests: 2, Tokens: 70, Padded: 90, Queue: 6 * ms, Compute: 10 * ms},
			{Windows: 2, Requests: 1, Tokens: 40, Padded: 40, Queue: 16 * ms, Compute: 10 * ms},
		}, s.told)
	})
}

// The windows of one request may have the same UniqueIDs as those of another.
func TestWindowsKeepTheirIDsAndTheirCallersTheirFeatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{})
		seen := map[int32]bool{}
		s.predict = func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
			for _, f := range features {
				assert.False(t, seen[f.UniqueID], "%d was sent before", f.UniqueID)
				assert.GreaterOrEqual(t, f.UniqueID, int32(0))
				seen[f.UniqueID] = true
			}
			return instant(ctx, features)
		}
		sent := features(10, 7, 7, 7)
		sent[2].UniqueID = -5
		before := slices.Clone(sent)
		for range 4 {
			s.at(0, batch.Request{Features: sent})
		}
		s.wait()
		assert.Equal(t, before, sent)
		assert.Len(t, seen, 12)
		assert.Equal(t, int32(-5), s.replies[7].Results[2].UniqueID)
	})
}

func TestTriggers(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts batch.Options
		at   map[time.Duration][]int // windows that arrive
		want []string
	}{
		{
			name: "a free model is not kept waiting",
			at:   map[time.Duration][]int{0: {1}, 20 * ms: {2, 3}},
			want: []string{"0s: 1", "20ms: 2 3"},
		}, {
			name: "windows wait for the delay of the first, to the moment",
			opts: batch.Options{MaxDelay: 5 * ms},
			at:   map[time.Duration][]int{ms: {1}, 3 * ms: {2}, 6*ms - 1: {3}, 7 * ms: {4}, 100 * ms: {5}},
			want: []string{"6ms: 1 2 3", "16ms: 4", "105ms: 5"},
		}, {
			name: "the delay counts while the model is busy",
			opts: batch.Options{MaxDelay: 5 * ms, MaxSize: 2},
			at:   map[time.Duration][]int{0: {1, 2}, ms: {3}, 8 * ms: {4, 5, 6}, 16 * ms: {7}},
			want: []string{"0s: 1 2", "10ms: 3 4", "20ms: 5 7", "30ms: 6"},
		}, {
			name: "what is left of a delay runs from the end of a batch",
			opts: batch.Options{MaxDelay: 5 * ms, MaxSize: 2},
			at:   map[time.Duration][]int{0: {1, 2}, 8 * ms: {3}},
			want: []string{"0s: 1 2", "13ms: 3"},
		}, {
			name: "a full batch does not wait",
			opts: batch.Options{MaxDelay: 50 * ms, MaxSize: 3},
			at:   map[time.Duration][]int{0: {1}, ms: {2}, 2 * ms: {3, 4}},
			want: []string{"2ms: 1 2 3", "52ms: 4"},
		}, {
			name: "nor one of a preferred size",
			opts: batch.Options{MaxDelay: 50 * ms, PreferredSizes: []int{4, 2}},
			at:   map[time.Duration][]int{0: {1}, ms: {2}, 20 * ms: {3, 4, 5, 6, 7}},
			want: []string{"1ms: 1 2", "20ms: 3 4 5 6", "70ms: 7"},
		}, {
			name: "after the delay any size will do",
			opts: batch.Options{MaxDelay: 5 * ms, PreferredSizes: []int{4}, MaxSize: 6},
			at:   map[time.Duration][]int{0: {1, 2, 3, 4}, ms: {5, 6, 7, 8, 9}},
			want: []string{"0s: 1 2 3 4", "10ms: 5 6 7 8 9"},
		}, {
			name: "a full batch is larger than a preferred one",
			opts: batch.Options{MaxDelay: 50 * ms, PreferredSizes: []int{4}, MaxSize: 6},
			at:   map[time.Duration][]int{0: {1, 2, 3, 4, 5, 6}},
			want: []string{"0s: 1 2 3 4 5 6"},
		}, {
			name: "without a delay sizes are preferred to others",
			opts: batch.Options{PreferredSizes: []int{4}},
			at:   map[time.Duration][]int{0: {1, 2, 3, 4, 5, 6}},
			want: []string{"0s: 1 2 3 4", "10ms: 5 6"},
		}, {
			name: "a batch that a shortest window would make too large is full",
			opts: batch.Options{MaxDelay: 50 * ms, MaxTokens: 35}, // windows have 10
			at:   map[time.Duration][]int{0: {1, 2}, ms: {3}, 2 * ms: {4}},
			want: []string{"1ms: 1 2 3", "52ms: 4"},
		}, {
			name: "several batches run at once",
			opts: batch.Options{Concurrency: 2, MaxSize: 2},
			at:   map[time.Duration][]int{0: {1, 2, 3, 4, 5}, 4 * ms: {6}, 30 * ms: {7}},
			want: []string{"0s: 1 2", "0s: 3 4", "10ms: 5 6", "30ms: 7"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScenario(t, 10*ms, tc.opts)
				for when, names := range tc.at {
					s.at(when, batch.Request{Features: features(10, names...)})
				}
				got := s.wait()
				slices.SortStableFunc(got, func(a, b string) int { // batches of one moment start in any order
					x, _, _ := strings.Cut(a, ": ")
					y, _, _ := strings.Cut(b, ": ")
					if x == y {
						return strings.Compare(a, b)
					}
					return 0
				})
				assert.Equal(t, tc.want, got)
			})
		})
	}
}

func TestDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxWait: time.Hour})
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(ms, batch.Request{Features: features(10, slices.Repeat([]int{0}, 1024)...)}) // one request of any size
		for i := range 1100 {
			s.at(2*ms, batch.Request{Features: features(10, 2+i)})
		}
		s.atWith(batch.WithClient(t.Context(), "another"), 3*ms, batch.Request{Features: features(10, 5000)})
		time.Sleep(5 * ms)
		assert.Equal(t, 1024+910+1, s.Waiting(), "one client has at most 8 times as many places as are free")
		assert.Equal(t, 1, s.Running())
		s.wait()
		refused := 0
		for _, reply := range s.replies {
			var full *batch.QueueFullError
			if errors.As(reply.err, &full) {
				refused++
			}
		}
		assert.Equal(t, 1100-910, refused)
		assert.NoError(t, s.replies[5000].err)
		for i, b := range s.told[1 : len(s.told)-1] {
			assert.Equal(t, 8, b.Windows, "batch %d", i)
		}
	})
}

func TestBuckets(t *testing.T) {
	type window struct{ tokens, padded int }
	for _, tc := range []struct {
		name    string
		buckets []int
		windows []window
		want    []string // the first has the model for itself, as number 0
	}{
		{"multiples of 32", nil, []window{{33, 384}, {32, 384}, {64, 384}, {1, 384}, {65, 384}}, []string{"1 3", "2 4", "5"}},
		{"given bounds", []int{50, 100}, []window{{51, 384}, {50, 384}, {100, 384}, {1, 384}, {101, 384}, {384, 384}},
			[]string{"1 3", "2 4", "5 6"}},
		{"no bounds", []int{}, []window{{51, 384}, {50, 384}, {100, 384}}, []string{"1 2 3"}},
		{"one sequence length", []int{}, []window{{50, 384}, {50, 128}, {20, 384}, {1, 128}}, []string{"1 3", "2 4"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScenario(t, 10*ms, batch.Options{Buckets: tc.buckets})
				s.at(0, batch.Request{Features: features(300, 0)})
				var all []squad.Feature
				for i, w := range tc.windows {
					all = append(all, feature(i+1, w.tokens, w.padded))
				}
				s.at(ms, batch.Request{Features: all})
				want := []string{"0s: 0"}
				for i, names := range tc.want {
					want = append(want, fmt.Sprintf("%dms: %s", 10*(i+1), names))
				}
				assert.Equal(t, want, s.wait())
				assert.Equal(t, len(tc.want), s.replies[1].Batches)
			})
		})
	}
}

func TestABucketThatWaitsDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 2, MaxDelay: 50 * ms, Priorities: 2})
		s.at(0, batch.Request{Features: features(10, 1), Priority: 1})
		s.at(ms, batch.Request{Features: features(100, 2, 3), Priority: 2})
		s.at(2*ms, batch.Request{Features: features(200, 4), Priority: 2})
		s.at(3*ms, batch.Request{Features: features(10, 5), Priority: 2}) // fills the first, and waits for the model
		assert.Equal(t, []string{"1ms: 2 3", "11ms: 1 5", "52ms: 4"}, s.wait())
	})
}

func TestMaxTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxTokens: 100, Buckets: []int{}})
		s.at(0, batch.Request{Features: features(1, 0)})
		for i, tokens := range []int{50, 20, 51, 20, 200, 10, 10} {
			s.at(time.Duration(i+1)*ms, batch.Request{Features: features(tokens, i+1)})
		}
		assert.Equal(t, []string{"0s: 0", "10ms: 2 4 6 7", "20ms: 1", "30ms: 3", "40ms: 5"}, s.wait())
	})
}

// A window that does not fit into a batch lets others pass.
func TestOthersPassWhatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 4, MaxTokens: 100, Buckets: []int{}, Priorities: 2})
		s.at(0, batch.Request{Features: features(1, 0), Priority: 1})
		for i, tokens := range []int{30, 40, 20, 25} {
			s.at(time.Duration(i+1)*ms, batch.Request{Features: features(tokens, i+1), Priority: 1 + i/2})
		}
		assert.Equal(t, []string{"0s: 0", "10ms: 1 2", "20ms: 3 4"}, s.wait())
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 4, MaxTokens: 100, Buckets: []int{}, Priorities: 2})
		s.at(0, batch.Request{Features: features(1, 0), Priority: 1})
		for i, tokens := range []int{30, 60, 20, 25} {
			s.at(time.Duration(i+1)*ms, batch.Request{Features: features(tokens, i+1), Priority: 1 + i/2})
		}
		assert.Equal(t, []string{"0s: 0", "10ms: 1 3 4", "20ms: 2"}, s.wait())
	})
}

func TestPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 2, Priorities: 3, DefaultPriority: 2})
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(1*ms, batch.Request{Features: features(10, 2), Priority: 3})
		s.at(2*ms, batch.Request{Features: features(100, 3), Priority: 3})
		s.at(3*ms, batch.Request{Features: features(10, 4)})
		s.at(4*ms, batch.Request{Features: features(100, 5), Priority: 1})
		s.at(5*ms, batch.Request{Features: features(10, 6), Priority: 2})
		s.at(6*ms, batch.Request{Features: features(10, 7), Priority: 1})
		assert.Equal(t, []string{"0s: 1", "10ms: 7 4", "20ms: 5 3", "30ms: 6 2"}, s.wait())
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1, Priorities: 2})
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(1*ms, batch.Request{Features: features(10, 2)})
		s.at(2*ms, batch.Request{Features: features(10, 3), Priority: 2})
		s.at(3*ms, batch.Request{Features: features(10, 4), Priority: 1})
		assert.Equal(t, []string{"0s: 1", "10ms: 4", "20ms: 2", "30ms: 3"}, s.wait(), "the least urgent is the default")
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{Priorities: 3})
		for i, priority := range []int{-1, 4} {
			_, err := s.Do(t.Context(), batch.Request{Features: features(10, 1), Priority: priority})
			assert.ErrorIs(t, err, batch.ErrPriority)
			assert.EqualError(t, err, []string{
				"unknown priority: -1 is not one of 1 to 3",
				"unknown priority: 4 is not one of 1 to 3",
			}[i])
		}
		s.wait()
	})
}

// A steady flow of urgent windows neither restarts the delay of others nor keeps them past MaxWait.
func TestUrgentWindowsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: 10 * ms, Priorities: 2})
		s.at(0, batch.Request{Features: features(10, 1), Priority: 2})
		s.at(6*ms, batch.Request{Features: features(10, 2), Priority: 1})
		assert.Equal(t, []string{"10ms: 2 1"}, s.wait())
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1, MaxWait: 55 * ms, Priorities: 2})
		for i := range 20 {
			s.at(time.Duration(9*i)*ms, batch.Request{Features: features(10, i), Priority: 1, Timeout: time.Second})
		}
		s.at(1*ms, batch.Request{Features: features(10, 100), Priority: 2})
		s.wait()
		assert.Equal(t, batch.ErrTimeout, s.replies[100].err)
		assert.Equal(t, 56*ms, s.replies[100].at)
	})
}

func TestMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 1, MaxWait: 15 * ms})
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(1*ms, batch.Request{Features: features(10, 2, 3, 4)}) // starts in time, and then has as long as it takes
		s.at(2*ms, batch.Request{Features: features(10, 5)})
		s.at(3*ms, batch.Request{Features: features(10, 6), Timeout: 2 * ms})
		s.at(4*ms, batch.Request{Features: features(10, 7), Timeout: 40 * ms})
		assert.Equal(t, []string{"0s: 1", "10ms: 2", "20ms: 7", "30ms: 3", "40ms: 4"}, s.wait())
		for name, want := range map[int]time.Duration{5: 17 * ms, 6: 5 * ms} {
			assert.Equal(t, batch.ErrTimeout, s.replies[name].err)
			assert.Equal(t, want, s.replies[name].at)
		}
		for _, name := range []int{1, 2, 7} {
			assert.NoError(t, s.replies[name].err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: 20 * ms})
		s.at(1*ms, batch.Request{Features: features(10, 1)})
		s.at(3*ms, batch.Request{Features: features(10, 2), Timeout: 20 * ms})
		assert.Equal(t, []string{"3ms: 1 2"}, s.wait(), "a request does not wait for others until it times out")
	})
}

func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 1500*ms, batch.Options{MaxSize: 2, MaxQueue: 4})
		s.at(0, batch.Request{Features: features(10, 1, 2)})
		s.at(1*ms, batch.Request{Features: features(10, 3, 4, 5, 6, 7)}) // a request is one, whatever its windows
		s.at(2*ms, batch.Request{Features: features(10, 8)})
		s.at(3*ms, batch.Request{Features: features(10, 9, 10)})
		s.at(4*ms, batch.Request{Features: features(10, 11)})
		s.at(5*ms, batch.Request{Features: features(10, 12)})
		s.at(1501*ms, batch.Request{Features: features(10, 13)}) // in the place of 8
		s.at(1502*ms, batch.Request{Features: features(10, 14)})
		assert.Equal(t, []string{"0s: 1 2", "1.5s: 3 8", "3s: 9 11", "4.5s: 4 10", "6s: 5 13", "7.5s: 6 7"}, s.wait())
		full := &batch.QueueFullError{Waiting: 4, Limit: 4, RetryAfter: time.Second}
		assert.Equal(t, full, s.replies[12].err, "no batch has ended")
		assert.Equal(t, 5*ms, s.replies[12].at)
		// At 2 windows in 1.5 s eight take 6 s.
		assert.Equal(t, &batch.QueueFullError{Waiting: 4, Limit: 4, RetryAfter: 6 * time.Second}, s.replies[14].err)
		assert.EqualError(t, s.replies[14].err, "the queue is full, with 4 requests of at most 4: try again in 6s")
	})
}

func TestRetryAfterFollowsTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 0, batch.Options{MaxSize: 1, MaxQueue: 1, Concurrency: 2})
		retryAfter := func() time.Duration {
			var err *batch.QueueFullError
			s.at(s.now(), batch.Request{Features: features(10, make([]int, 8)...)})
			synctest.Wait()
			_, e := s.Do(t.Context(), batch.Request{Features: features(10, make([]int, 8)...)})
			require.ErrorAs(t, e, &err)
			assert.Equal(t, 6, s.Waiting())
			return err.RetryAfter
		}
		runHundred := func(takes time.Duration) {
			s.takes = takes
			_, err := s.Do(t.Context(), batch.Request{Features: features(10, make([]int, 100)...)})
			require.NoError(t, err)
		}
		runHundred(10 * ms)
		assert.Equal(t, time.Second, retryAfter())
		s.wg.Wait()
		runHundred(10 * time.Second)
		assert.Equal(t, 30*time.Second, retryAfter())
		s.wait()
	})
}

func TestCancelBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 4, MaxQueue: 3})
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*ms, func() { cancel(gone) })
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(1*ms, batch.Request{Features: features(10, 2)})
		s.atWith(ctx, 2*ms, batch.Request{Features: features(10, 3, 4)})
		s.at(3*ms, batch.Request{Features: features(10, 5)})
		s.at(4*ms, batch.Request{Features: features(10, 6)})          // no room
		s.at(6*ms, batch.Request{Features: features(10, 7, 8)})       // that of the request that went
		s.atWith(ctx, 7*ms, batch.Request{Features: features(10, 9)}) // gone already
		assert.Equal(t, []string{"0s: 1", "10ms: 2 5 7 8"}, s.wait())
		assert.Equal(t, gone, s.replies[3].err)
		assert.Equal(t, 5*ms, s.replies[3].at)
		assert.Equal(t, gone, s.replies[9].err)
		assert.ErrorContains(t, s.replies[6].err, "the queue is full")
	})
}

func TestCancelWhileOneWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: 10 * ms})
		ctx, cancel := context.WithTimeout(t.Context(), 5*ms)
		defer cancel()
		s.atWith(ctx, 0, batch.Request{Features: features(10, 1)})
		s.at(3*ms, batch.Request{Features: features(10, 2)})
		assert.Equal(t, []string{"13ms: 2"}, s.wait(), "the delay is that of the first that is left")
		assert.Equal(t, context.DeadlineExceeded, s.replies[1].err)
	})
}

func TestCancelDuringABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{})
		first, second := s.goneAt(14*ms), s.goneAt(26*ms)
		s.at(0, batch.Request{Features: features(10, 1)})
		s.atWith(first, 1*ms, batch.Request{Features: features(10, 2, 3)})
		s.at(2*ms, batch.Request{Features: features(10, 4)})
		s.atWith(second, 11*ms, batch.Request{Features: features(100, 5, 6)})
		s.atWith(second, 12*ms, batch.Request{Features: features(100, 7)})
		s.at(22*ms, batch.Request{Features: features(200, 8)})
		assert.Equal(t, []string{"0s: 1", "10ms: 2 3 4", "20ms: 5 6 7", "26ms: 8"}, s.wait(),
			"only a batch without requests ends early")
		assert.Equal(t, context.Canceled, s.replies[2].err)
		assert.Equal(t, 14*ms, s.replies[2].at)
		assert.NoError(t, s.replies[4].err)
		assert.Equal(t, 20*ms, s.replies[4].at)
		assert.Equal(t, 26*ms, s.replies[5].at)
		assert.Equal(t, 26*ms, s.replies[7].at)
		assert.Equal(t, context.Canceled, s.told[2].Err)
		assert.Equal(t, 6*ms, s.told[2].Compute)
	})
}

// A request has windows in two batches at once. When it ends, one of them has no windows left.
func TestCancelOfABatchAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 2, Concurrency: 2})
		ctx, cancel := context.WithTimeout(t.Context(), 4*ms)
		defer cancel()
		s.at(0, batch.Request{Features: features(100, 1)})
		s.atWith(ctx, 1*ms, batch.Request{Features: features(10, 2, 3, 4, 5, 6)})
		s.at(2*ms, batch.Request{Features: features(10, 7)})
		assert.Equal(t, []string{"0s: 1", "1ms: 2 3", "4ms: 7"}, s.wait())
		assert.NoError(t, s.replies[7].err)
	})
}

// The context of a batch is not that of a request, which may end while others wait for the batch.
func TestContextOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		s := newScenario(t, 10*ms, batch.Options{})
		s.predict = func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
			_, ok := ctx.Deadline()
			assert.False(t, ok)
			assert.Nil(t, ctx.Value(key{}))
			assert.NoError(t, ctx.Err())
			return instant(ctx, f)
		}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, 1), time.Hour)
		defer cancel()
		s.atWith(ctx, 0, batch.Request{Features: features(10, 1)})
		s.wait()
	})
}

func TestErrors(t *testing.T) {
	bad := errors.New("a window the model cannot take")
	fails := func(err error) predictor {
		return func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
			if slices.ContainsFunc(features, func(f squad.Feature) bool { return name(&f) == 3 }) {
				return nil, err
			}
			return instant(ctx, features)
		}
	}
	t.Run("a request fails alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScenario(t, 10*ms, batch.Options{})
			s.predict = fails(bad)
			s.at(0, batch.Request{Features: features(10, 0)})
			s.at(1*ms, batch.Request{Features: features(10, 1, 2)})
			s.at(2*ms, batch.Request{Features: append(features(100, 30), features(10, 3, 4)...)})
			s.at(3*ms, batch.Request{Features: features(10, 5)})
			assert.Equal(t, []string{"0s: 0", "10ms: 1 2 3 4 5", "20ms: 1 2", "30ms: 3 4", "40ms: 5"}, s.wait())
			assert.Equal(t, bad, s.replies[30].err)
			assert.Equal(t, 40*ms, s.replies[30].at, "its other batch does not start")
			assert.Equal(t, 1, s.replies[1].Batches)
			assert.Equal(t, 9*ms, s.replies[1].Queue)
			assert.Equal(t, 20*ms, s.replies[1].Compute)
			assert.Equal(t, 50*ms, s.replies[5].at)
			require.Len(t, s.told, 5)
			assert.Equal(t, []batch.Batch{
				{Windows: 5, Requests: 3, Tokens: 50, Padded: 50, Queue: 9 * ms, Compute: 10 * ms, Err: bad},
				{Windows: 2, Requests: 1, Tokens: 20, Padded: 20, Compute: 10 * ms},
				{Windows: 2, Requests: 1, Tokens: 20, Padded: 20, Compute: 10 * ms, Err: bad},
			}, s.told[1:4])
		})
	})
	t.Run("a request that is alone does not run again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScenario(t, 10*ms, batch.Options{})
			s.predict = fails(bad)
			s.at(0, batch.Request{Features: features(10, 3, 4)})
			assert.Equal(t, []string{"0s: 3 4"}, s.wait())
			assert.Equal(t, bad, s.replies[3].err)
		})
	})
	t.Run("requests that have gone do not run again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScenario(t, 10*ms, batch.Options{MaxDelay: 5 * ms})
			s.predict = fails(bad)
			ctx, cancel := context.WithTimeout(t.Context(), 19*ms)
			defer cancel()
			s.atWith(ctx, 0, batch.Request{Features: features(10, 1)})
			s.at(1*ms, batch.Request{Features: features(10, 3)})
			s.at(2*ms, batch.Request{Features: features(10, 2)})
			gone, cancelGone := context.WithTimeout(t.Context(), 24*ms)
			defer cancelGone()
			s.atWith(gone, 3*ms, batch.Request{Features: features(10, 4)})
			assert.Equal(t, []string{"5ms: 1 3 2 4", "15ms: 1", "19ms: 3", "29ms: 2"}, s.wait())
			assert.Equal(t, context.DeadlineExceeded, s.replies[1].err)
			assert.Equal(t, 24*ms, s.replies[4].at)
		})
	})
	for _, err := range []error{context.Canceled, fmt.Errorf("remote: %w", context.DeadlineExceeded)} {
		t.Run("not again: "+err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScenario(t, 10*ms, batch.Options{MaxDelay: 5 * ms})
				s.predict = fails(err)
				s.at(0, batch.Request{Features: features(10, 1)})
				s.at(1*ms, batch.Request{Features: features(10, 3)})
				assert.Equal(t, []string{"5ms: 1 3"}, s.wait())
				assert.Equal(t, err, s.replies[1].err)
				assert.Equal(t, err, s.replies[3].err)
			})
		})
	}
}

func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: 5 * ms})
		s.predict = func(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
			if slices.ContainsFunc(features, func(f squad.Feature) bool { return name(&f) == 3 }) {
				panic("out of cheese\nand of tea")
			}
			return instant(ctx, features)
		}
		s.at(0, batch.Request{Features: features(10, 1)})
		s.at(1*ms, batch.Request{Features: features(10, 3)})
		s.at(100*ms, batch.Request{Features: features(10, 2)})
		assert.Equal(t, []string{"5ms: 1 3", "15ms: 1", "25ms: 3", "105ms: 2"}, s.wait())
		assert.NoError(t, s.replies[1].err)
		assert.NoError(t, s.replies[2].err)
		assert.EqualError(t, s.replies[3].err, "the model panicked: out of cheese")
		var p *batch.PanicError
		require.ErrorAs(t, s.replies[3].err, &p)
		assert.Equal(t, "out of cheese\nand of tea", p.Value)
		assert.Contains(t, string(p.Stack), "TestPanic")
	})
}

// Results that a model mixes up are an error, and never the answer to another window.
func TestMixUps(t *testing.T) {
	type resultList = []squad.RawResult
	for _, tc := range []struct {
		name, err string
		mixUp     func(r resultList) resultList
	}{
		{
			"too few", "the model returned 2 results for 3 windows",
			func(r resultList) resultList { return r[1:] },
		}, {
			"none", "the model returned 0 results for 3 windows",
			func(resultList) resultList { return nil },
		}, {
			"too many", "the model returned 4 results for 3 windows",
			func(r resultList) resultList { return append(r, r[0]) },
		}, {
			"order", "the model returned window 2 where window 0 was asked for, 1 of 3 in the batch",
			func(r resultList) resultList { r[0], r[2] = r[2], r[0]; return r },
		}, {
			"twice", "the model returned window 1 where window 2 was asked for, 3 of 3 in the batch",
			func(r resultList) resultList { r[2] = r[1]; return r },
		}, {
			"its own", "the model returned window 1000000001 where window 1 was asked for, 2 of 3 in the batch",
			func(r resultList) resultList { r[1].UniqueID = firstID + 1; return r },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScenario(t, 10*ms, batch.Options{})
				s.predict = func(_ context.Context, f []squad.Feature) ([]squad.RawResult, error) {
					return tc.mixUp(results(f)), nil
				}
				s.at(0, batch.Request{Features: features(10, 1, 2, 3)})
				s.wait()
				assert.EqualError(t, s.replies[1].err, tc.err)
			})
		})
	}
	t.Run("only in batches of several requests", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScenario(t, 10*ms, batch.Options{MaxDelay: 5 * ms})
			s.predict = func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
				r := results(f)
				slices.Reverse(r)
				return r, nil
			}
			s.at(0, batch.Request{Features: features(10, 1)})
			s.at(1*ms, batch.Request{Features: features(10, 2)})
			s.wait()
			assert.NoError(t, s.replies[1].err)
			assert.NoError(t, s.replies[2].err)
		})
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxSize: 2, MaxDelay: time.Hour, Concurrency: 2})
		s.at(0, batch.Request{Features: features(10, 1, 2, 3, 4, 5)})
		s.at(1*ms, batch.Request{Features: features(100, 6)})
		s.at(8*ms, batch.Request{Features: features(10, 7)})
		time.Sleep(5 * ms)
		for range 2 { // at once
			s.wg.Go(func() {
				assert.NoError(t, s.Close())
				assert.Equal(t, 20*ms, s.now(), "when all have been answered")
				assert.Zero(t, s.Waiting())
				assert.Zero(t, s.Running())
			})
		}
		ran := s.wait()
		slices.Sort(ran[:2])
		slices.Sort(ran[2:])
		assert.Equal(t, []string{"0s: 1 2", "0s: 3 4", "10ms: 5", "10ms: 6"}, ran, "without the rest of the delay")
		assert.NoError(t, s.replies[1].err)
		assert.NoError(t, s.replies[6].err)
		assert.Equal(t, batch.ErrClosed, s.replies[7].err)
		_, err := s.Predict(t.Context(), features(10, 8))
		assert.Equal(t, batch.ErrClosed, err)
		assert.NoError(t, s.Close())
		assert.Equal(t, 20*ms, s.now())
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: 50 * ms})
		s.at(0, batch.Request{Features: features(10, 1)})
		time.Sleep(ms)
		require.NoError(t, s.Close())
		assert.Equal(t, 11*ms, s.now())
		s.wait()
	})
}

func TestNoWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: time.Hour})
		got, err := s.Do(t.Context(), batch.Request{})
		assert.NoError(t, err)
		assert.Zero(t, got)
		r, err := s.Predict(t.Context(), nil)
		assert.NoError(t, err)
		assert.Empty(t, r)
		assert.Zero(t, s.now())
		assert.Empty(t, s.wait())
	})
}

func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		opts batch.Options
		err  string
	}{
		{batch.Options{MaxSize: -1}, "MaxSize is negative: use a positive value, or 0 for the default"},
		{batch.Options{MaxTokens: -1}, "MaxTokens is negative: use a positive value, or 0 for the default"},
		{batch.Options{MaxDelay: -1}, "MaxDelay is negative: use a positive value, or 0 for the default"},
		{batch.Options{MaxQueue: -1}, "MaxQueue is negative: use a positive value, or 0 for the default"},
		{batch.Options{MaxWait: -1}, "MaxWait is negative: use a positive value, or 0 for the default"},
		{batch.Options{Concurrency: -1}, "Concurrency is negative: use a positive value, or 0 for the default"},
		{batch.Options{Priorities: -1}, "Priorities is negative: use a positive value, or 0 for the default"},
		{batch.Options{DefaultPriority: -1}, "DefaultPriority is negative: use a positive value, or 0 for the default"},
		{batch.Options{Priorities: 101}, "there are 101 priorities: there may be at most 100"},
		{batch.Options{DefaultPriority: 2}, "the default priority 2 is not one of 1 to 1"},
		{batch.Options{Priorities: 3, DefaultPriority: 4}, "the default priority 4 is not one of 1 to 3"},
		{batch.Options{PreferredSizes: []int{4, 9}}, "the preferred size 9 is not one of 1 to MaxSize, 8"},
		{batch.Options{MaxSize: 2, PreferredSizes: []int{0}}, "the preferred size 0 is not one of 1 to MaxSize, 2"},
		{batch.Options{Buckets: []int{0, 8}}, "buckets [0 8] do not ascend from a positive length"},
		{batch.Options{Buckets: []int{8, 8}}, "buckets [8 8] do not ascend from a positive length"},
		{batch.Options{MaxWait: 5 * ms, MaxDelay: 5 * ms},
			"requests end after a MaxWait of 5ms, before a MaxDelay of 5ms lets them start: make MaxWait longer"},
	} {
		_, err := batch.New(instant, tc.opts)
		assert.EqualError(t, err, tc.err)
	}
	_, err := batch.New(nil, batch.Options{})
	assert.EqualError(t, err, "the model is nil")
}

// The caller may change its options after New.
func TestOptionsAreCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		preferred, buckets := []int{4, 2}, []int{50, 100}
		s := newScenario(t, 10*ms, batch.Options{MaxDelay: 5 * ms, PreferredSizes: preferred, Buckets: buckets})
		assert.Equal(t, []int{4, 2}, preferred)
		preferred[0], buckets[0] = 1, 1
		s.at(0, batch.Request{Features: features(50, 1)})
		s.at(0, batch.Request{Features: features(1, 1)})
		assert.Equal(t, []string{"0s: 1 1"}, s.wait())
	})
}
