package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// sleeper returns models that sleep: some time for a batch, and some for each of its tokens.
func sleeper(seqLength int, perBatch, perToken time.Duration) fakemodel.Models {
	return fakemodel.Models{
		SeqLength: seqLength,
		OnBatch: func(ctx context.Context, _ repository.Source, features []squad.Feature) error {
			longest := 0
			for i := range features {
				longest = max(longest, features[i].Len)
			}
			select {
			case <-time.After(perBatch + perToken*time.Duration(longest*len(features))):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

// clientAt returns an HTTP client with an address of its own, 127.0.0.n.
func clientAt(t *testing.T, n int) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(n))}}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// post sends JSON and returns the response's status, header and body; the status is 0 if there is no response.
func post(ctx context.Context, c *http.Client, url, body string) (status int, header http.Header, reply string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := c.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return response.StatusCode, response.Header, string(b)
}

// longQuestion returns a question about a document of words that nobody asks for and then, at its end, the answer.
func longQuestion(words int, more string) string {
	return fmt.Sprintf(`{"question":"find w1","context":"%sw1"%s}`, strings.Repeat("w777 ", words), more)
}

func percentile(times []time.Duration, p float64) time.Duration {
	slices.Sort(times)
	return times[int(float64(len(times)-1)*p)].Round(100 * time.Microsecond)
}

// One client's long documents do not put off the small questions of others.
func TestAttackLongDocuments(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	document := longQuestion(560_000/5, `,"doc_stride":128,"max_query_length":16`)
	measure := func(clients int, address func(i int) int) (p50, p99 time.Duration) {
		f := startServer(t, &setup{
			models: sleeper(384, time.Millisecond, 10*time.Microsecond),
			repo:   repository.Options{Batching: batch.Options{Concurrency: 2}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for i := range clients {
			c := clientAt(t, address(i))
			group.Go(func() {
				for ctx.Err() == nil {
					if status, _, _ := post(ctx, c, f.url+"/v1/answer", document); status != 200 {
						time.Sleep(100 * time.Millisecond)
					}
				}
			})
		}
		m, err := f.host.Models.Acquire("bert", 0)
		require.NoError(t, err)
		for end := time.Now().Add(10 * time.Second); m.Batcher().Waiting() < 800*clients && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		m.Release()
		var times []time.Duration // from when all documents wait, or as many of them as may
		c := clientAt(t, 2)
		samples := 200
		if raceDetector {
			samples = 20
		}
		for i := range samples {
			began := time.Now()
			status, _, reply := post(t.Context(), c, f.url+"/v1/answer", question(i))
			assert.Equal(t, 200, status, reply)
			times = append(times, time.Since(began))
		}
		cancel()
		group.Wait()
		return percentile(times, 0.5), percentile(times, 0.99)
	}
	each := func(i int) int { return 10 + i }
	_, alone := measure(0, each)
	p50, one := measure(1, each)
	t.Logf("a small question: p99 %v alone; beside one client with documents of 560 KB p50 %v, p99 %v", alone, p50, one)
	p50, many := measure(16, each)
	t.Logf("beside 16 such clients p50 %v, p99 %v, %.1f times that beside one", p50, many, float64(many)/float64(one))
	p50, same := measure(16, func(int) int { return 2 })
	t.Logf("beside 16 such documents of its own client p50 %v, p99 %v", p50, same)
	// The goal is 3 times. A busy machine adds to all of them, and here only much more is an error. With the race detector
	// the time goes into cutting the documents, not into the queue.
	if raceDetector {
		return
	}
	assert.Less(t, many, 5*one+time.Second)
	assert.Less(t, same, 5*one+time.Second)
}

// An idle server takes one request of more windows than may wait.
func TestAttackManyQuestionsOfOneRequest(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{models: sleeper(384, time.Millisecond, time.Microsecond)})
	one := longQuestion(60*128, `,"doc_stride":128,"max_query_length":16`)
	body := `{"requests":[` + strings.TrimSuffix(strings.Repeat(one+",", 64), ",") + `]}`
	status, _, reply := post(t.Context(), clientAt(t, 10), f.url+"/v1/answer", body)
	t.Logf("64 questions of 60 windows in one request: status %d, %d answered, %d refused", status,
		strings.Count(reply, `"answer":"w1"`), strings.Count(reply, `{"error":`))
	assert.Equal(t, 200, status)
	assert.Equal(t, 64, strings.Count(reply, `"answer":"w1"`))

	inputs := `{"inputs":[` + strings.TrimSuffix(strings.Repeat(
		fmt.Sprintf(`{"question":"find w1","context":"%sw1"},`, strings.Repeat("w777 ", 60*128)), 64), ",") + `]}`
	status, _, reply = post(t.Context(), clientAt(t, 10), f.url+"/models/bert", inputs)
	t.Logf("in Hugging Face's form: status %d, %d answered", status, strings.Count(reply, `"answer":"w1"`))
	assert.Equal(t, 200, status)
	assert.Equal(t, 64, strings.Count(reply, `"answer":"w1"`))
}

// Under more load than the model can take, long documents get through too, and what is begun is not thrown away.
func TestAttackOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	const (
		perBatch = 20 * time.Millisecond // 400 windows per second
		windows  = 160                   // of a long document
		lasts    = 12 * time.Second
	)
	f := startServer(t, &setup{
		models: sleeper(384, perBatch, 0),
		serve:  Options{RequestTimeout: 4 * time.Second},
		repo:   repository.Options{Batching: batch.Options{MaxQueue: 200, Buckets: []int{}}},
	})
	long := longQuestion(windows*128, `,"doc_stride":128,"max_query_length":16`)
	var group sync.WaitGroup
	var sent, answered [2]atomic.Int64 // small and long
	var refused, late, useful atomic.Int64
	load := func(kind int, every time.Duration, clients int, body string) {
		group.Go(func() {
			var all []*http.Client
			for i := range clients {
				all = append(all, clientAt(t, 10+100*kind+i))
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for began, n := time.Now(), 0; time.Since(began) < lasts; n++ {
				<-tick.C
				sent[kind].Add(1)
				group.Go(func() {
					switch status, _, reply := post(t.Context(), all[n%clients], f.url+"/v1/answer", body); {
					case status == 200:
						var answer struct{ Windows []any }
						assert.NoError(t, json.Unmarshal([]byte(reply), &answer))
						useful.Add(int64(len(answer.Windows)))
						answered[kind].Add(1)
					case status == 429 || status == 504 && strings.Contains(reply, "would take"):
						refused.Add(1)
					default:
						late.Add(1)
					}
				})
			}
		})
	}
	before := f.models.Windows.Load()
	load(0, 2780*time.Microsecond, 40, question(1))
	load(1, time.Second/2, 8, long)
	group.Wait()
	ran := f.models.Windows.Load() - before
	t.Logf("of %d long documents %d were answered, of %d small questions %d; %d were refused at once, %d ended late; "+
		"of %d windows that ran %d were for nothing", sent[1].Load(), answered[1].Load(), sent[0].Load(), answered[0].Load(),
		refused.Load(), late.Load(), ran, ran-useful.Load())
	assert.Positive(t, answered[1].Load())
}

// What cannot be done in time is refused at once, with the time that it would take.
func TestAttackPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	// A tenth of the size of a minute, and a model that makes one window a second.
	f := startServer(t, &setup{
		models: sleeper(384, 0, 100*time.Millisecond/384), serve: Options{RequestTimeout: 6 * time.Second},
	})
	c := clientAt(t, 10)
	status, _, reply := post(t.Context(), c, f.url+"/v1/answer",
		longQuestion(9*128, `,"doc_stride":128,"max_query_length":16`))
	require.Equal(t, 200, status, reply) // the first full batch shows how fast the model is
	before := f.models.Windows.Load()
	began := time.Now()
	status, header, reply := post(t.Context(), c, f.url+"/v1/answer",
		longQuestion(1000*128, `,"doc_stride":128,"max_query_length":16`))
	took := time.Since(began)
	eventually(t, "the model is idle", func() bool {
		m, err := f.host.Models.Acquire("bert", 0)
		require.NoError(t, err)
		defer m.Release()
		return m.Batcher().Running() == 0
	})
	t.Logf("1,000 windows of 0.1 s in 6 s: status %d after %v, %d windows ran: %s", status, took.Round(time.Second/10),
		f.models.Windows.Load()-before, strings.TrimSpace(reply))
	assert.Equal(t, 504, status)
	assert.Empty(t, header.Get("Retry-After"), "it does not help")
	assert.Contains(t, reply, "the request would take 1m")

	// Two requests of 3.5 s each: the second can be done in time later.
	half := longQuestion(34*128, `,"doc_stride":128,"max_query_length":16`)
	var group sync.WaitGroup
	group.Go(func() {
		status, _, reply := post(t.Context(), c, f.url+"/v1/answer", half)
		assert.Equal(t, 200, status, reply)
	})
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	defer m.Release()
	eventually(t, "the first is begun", func() bool { return m.Batcher().Running() > 0 })
	began = time.Now()
	status, header, reply = post(t.Context(), c, f.url+"/v1/answer", half)
	t.Logf("3.5 s of windows behind as many: status %d after %v, Retry-After %q: %s", status,
		time.Since(began).Round(time.Second/10), header.Get("Retry-After"), strings.TrimSpace(reply))
	assert.Equal(t, 429, status)
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	require.NoError(t, err)
	assert.Contains(t, reply, fmt.Sprintf("try again in %ds", seconds), "one time, computed once")
	group.Wait()
	status, _, reply = post(t.Context(), c, f.url+"/v1/answer", half)
	assert.Equal(t, 200, status, reply)
}

// A stream takes about as much CPU time as one answer.
func TestAttackStreaming(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{models: fakemodel.Models{SeqLength: 384}})
	c := clientAt(t, 10)
	ask := func(stream bool) (cpu time.Duration, bytes, lines int) {
		var words strings.Builder
		for i := range 1400 {
			fmt.Fprintf(&words, "%c ", 'a'+i%26)
		}
		body, err := json.Marshal(map[string]any{
			"question": "find w1", "context": words.String(), "stream": stream, "doc_stride": 1, "max_query_length": 8,
			"n_best_size": 100, "max_answer_length": 300,
		})
		require.NoError(t, err)
		began := cpuTime(t)
		status, _, reply := post(t.Context(), c, f.url+"/v1/answer", string(body))
		require.Equal(t, 200, status, reply)
		return cpuTime(t) - began, len(reply), strings.Count(reply, "\n")
	}
	once, bytes, _ := ask(false)
	t.Logf("3 KB that make 1,021 windows: %v of CPU time, %d KiB", once.Round(10*time.Millisecond), bytes>>10)
	stream, streamed, lines := ask(true)
	t.Logf("as a stream: %v of CPU time, %d KiB in %d lines", stream.Round(10*time.Millisecond), streamed>>10, lines)
	assert.Less(t, stream, 3*once+time.Second)
	assert.LessOrEqual(t, lines, 33)
}

// cpuTime returns the CPU time that the process has taken.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
