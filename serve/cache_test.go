package serve

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

func cached(bytes int64) *setup { return &setup{repo: repository.Options{CacheBytes: bytes}} }

// What one protocol has asked, the others need not ask the model again, however the answer is decoded.
func TestCache(t *testing.T) {
	f := startServer(t, cached(1<<20))
	c := pb.NewInferenceClient(f.dial(t))
	before := f.models.Windows.Load()
	first := f.ask("POST", "/v1/answer", []byte(question(1)))
	assert.Contains(t, first.Body.String(), `"answer":"w1"`)
	assert.Equal(t, before+1, f.models.Windows.Load())

	again := f.ask("POST", "/v1/answer", []byte(strings.Replace(question(1), "}", `,"n_best_size":3}`, 1)))
	assert.Contains(t, again.Body.String(), `"answer":"w1"`)
	r, err := c.ModelInfer(t.Context(), askRequest("", "find w1", "a b w1. c d"))
	require.NoError(t, err)
	assert.Equal(t, "w1", textAnswer(t, r))
	assert.Equal(t, before+1, f.models.Windows.Load(), "the model was not asked again")

	// Of another passage with the same tokens the text is its own.
	other := f.ask("POST", "/v1/answer", []byte(`{"question":"find w1","context":"A  B W1. C D"}`))
	assert.Contains(t, other.Body.String(), `"answer":"W1"`)

	for range 2 {
		assert.Equal(t, 200, f.ask("POST", "/v2/models/bert/infer", []byte(tensorBody)).Code)
	}
	assert.Equal(t, before+2, f.models.Windows.Load())

	stats, err := c.ModelStatistics(t.Context(), &pb.ModelStatisticsRequest{Name: "bert_qa"})
	require.NoError(t, err)
	s := stats.GetModelStats()[0]
	assert.EqualValues(t, 3, s.GetInferenceStats().GetCacheHit().GetCount())
	assert.EqualValues(t, 1, s.GetInferenceStats().GetCacheMiss().GetCount())
	assert.Positive(t, s.GetInferenceStats().GetCacheHit().GetNs())
	assert.EqualValues(t, 4, s.GetInferenceStats().GetSuccess().GetCount())
	assert.EqualValues(t, 1, s.GetInferenceCount(), "hits are not counted")
	metrics := f.ask("GET", "/metrics", nil).Body.String()
	for _, line := range []string{
		`nv_cache_num_hits_per_model{model="bert_qa",version="1"} 3`,
		`nv_cache_num_misses_per_model{model="bert_qa",version="1"} 1`,
		`nv_cache_num_hits_per_model{model="bert",version="1"} 1`,
		"tfbert_cache_windows 2", "tfbert_cache_limit_bytes 1.048576e+06",
	} {
		assert.Contains(t, metrics, line+"\n")
	}
	config, err := c.ModelConfig(t.Context(), &pb.ModelConfigRequest{Name: "bert"})
	require.NoError(t, err)
	assert.True(t, config.GetConfig().GetResponseCache().GetEnable())
}

// Requests for the same at the same time run it once. If that run fails, each of them runs it for itself.
func TestCacheRunsOnce(t *testing.T) {
	s := cached(1 << 20)
	gate := newGate(&s.models)
	f := newFixture(t, s)
	before := f.models.Windows.Load()
	gate.shut.Store(true)
	var group sync.WaitGroup
	const clients = 20
	for range clients {
		group.Go(func() {
			w := f.ask("POST", "/v1/answer", []byte(question(1)))
			assert.Contains(t, w.Body.String(), `"answer":"w1"`)
		})
	}
	<-gate.stopped
	close(gate.opened)
	group.Wait()
	assert.Equal(t, before+1, f.models.Windows.Load())

	for range 3 {
		group.Go(func() {
			w := f.ask("POST", "/v1/answer", []byte(`{"question":"find fail","context":"a"}`))
			assert.Equal(t, 500, w.Code)
		})
	}
	group.Wait()
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
}

// The cache keeps to its bytes, and a model that is loaded again does not get the results of the one before.
func TestCacheBounds(t *testing.T) {
	s := cached(8 << 10)
	s.repo.Control = repository.ControlExplicit
	f := newFixture(t, s)
	for i := range 100 {
		require.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(i))).Code)
		state, ok := f.host.Models.Cache()
		require.True(t, ok)
		require.LessOrEqual(t, state.Bytes, state.Most)
	}
	state, _ := f.host.Models.Cache()
	assert.Greater(t, state.Entries, 5)
	before := f.models.Windows.Load()
	f.ask("POST", "/v1/answer", []byte(question(99)))
	assert.Equal(t, before, f.models.Windows.Load(), "the latest is there")
	f.ask("POST", "/v1/answer", []byte(question(0)))
	assert.Equal(t, before+1, f.models.Windows.Load(), "the oldest is not")

	require.Equal(t, 200, f.ask("POST", "/v2/repository/models/bert/load", nil).Code)
	before = f.models.Windows.Load()
	f.ask("POST", "/v1/answer", []byte(question(0)))
	assert.Equal(t, before+1, f.models.Windows.Load())
	eventually(t, "what the model before left is dropped", func() bool {
		state, _ := f.host.Models.Cache()
		return state.Entries == 1
	})
}

// With a config.pbtxt a model uses the cache if that says so, as with Triton.
func TestCacheConfig(t *testing.T) {
	for _, tt := range []struct {
		config string
		bytes  int64
		runs   int64
		warn   bool
	}{
		{"max_batch_size: 8", 1 << 20, 2, false},
		{"max_batch_size: 8 response_cache { enable: false }", 1 << 20, 2, false},
		{"max_batch_size: 8 response_cache { enable: true }", 1 << 20, 1, false},
		{"max_batch_size: 8 response_cache { enable: true }", 0, 2, true},
	} {
		s := cached(tt.bytes)
		s.repo.Control = repository.ControlExplicit
		f := newFixture(t, s)
		path := filepath.Join(f.root, "bert", "config.pbtxt")
		require.NoError(t, os.WriteFile(path, []byte(tt.config), 0o600))
		require.Equal(t, 200, f.ask("POST", "/v2/repository/models/bert/load", nil).Code)
		before := f.models.Windows.Load()
		for range 2 {
			w := f.ask("POST", "/v1/answer", []byte(question(1)))
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			assert.Equal(t, "w1", body["answer"])
		}
		assert.Equal(t, before+tt.runs, f.models.Windows.Load(), tt.config)
		assert.Equal(t, tt.warn, strings.Contains(f.log.String(), "asks for the response cache"))
	}
}

// A stream has its lines as windows come, those of the cache at once, and the same answer at its end.
func TestCacheStream(t *testing.T) {
	s := cached(1 << 20)
	gate := newGate(&s.models)
	f := startServer(t, s)
	ask := func(key string) *bufio.Scanner {
		body := fmt.Sprintf(`{"question":"find %s","context":"%s%s","stream":true,"doc_stride":40,"max_query_length":8}`,
			key, strings.Repeat("x ", 1000), key)
		r, err := client(t).Post(f.url+"/v1/answer", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		t.Cleanup(func() { r.Body.Close() })
		return bufio.NewScanner(r.Body)
	}
	lines := func(scanner *bufio.Scanner) (last string, n int) {
		for scanner.Buffer(nil, 1<<20); scanner.Scan(); n++ {
			last = scanner.Text()
		}
		require.NoError(t, scanner.Err())
		return last, n
	}
	first, n := lines(ask("w1"))
	assert.Contains(t, first, `"answer":"w1"`)
	assert.Greater(t, n, 2)
	before := f.models.Windows.Load()
	again, more := lines(ask("w1"))
	assert.Equal(t, before, f.models.Windows.Load())
	assert.Equal(t, n, more)
	first, _, _ = strings.Cut(first, `"seconds"`)
	again, _, _ = strings.Cut(again, `"seconds"`)
	assert.Equal(t, first, again)

	gate.shut.Store(true)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			last, n := lines(ask("w2"))
			assert.Contains(t, last, `"answer":"w2"`)
			assert.Greater(t, n, 2)
		})
	}
	<-gate.stopped
	close(gate.opened)
	group.Wait()
}
