package clienttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// A repository in the layout of NVIDIA's export script is served as it is, and a model in it is replaced
// under load: no request fails, and memory stays where it was.
func TestServeRepository(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "loads a model seven times under load")
	root := t.TempDir()
	config := filepath.Join(root, "bert", "config.pbtxt")
	configOf := func(length string) []byte { // 384 takes so long to answer that few requests meet a load
		return []byte(strings.ReplaceAll(testenv.NVIDIAConfig, "384", length))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(root, "bert", "1"), 0o777))
	require.NoError(t, os.Symlink(exportModel(t, "--max_seq_length", "96"),
		filepath.Join(root, "bert", "1", "model.savedmodel")))
	require.NoError(t, os.WriteFile(config, configOf("96"), 0o666))
	token := filepath.Join(root, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))

	// With one arena glibc takes memory again that a model before has left. With its usual ones what the
	// process holds grows by 50 to 160 MiB all the same, which hides a model that stays.
	s := startServerWith(t, []string{"MALLOC_ARENA_MAX=1"}, "--model_repository", root,
		"--model_control_mode", "explicit", "--load_model", "bert", "--admin_token_file", token)
	assert.Contains(t, s.logged(), "the configuration asks for auto_mixed_precision, which is for GPUs")
	answer, err := s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	require.NoError(t, err)
	assert.Equal(t, "Ada Lovelace", answer)

	var asked atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, name := range []string{"Ada", "Bob", "Eve", "Kim"} {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				answer, err := s.ask(t.Context(), "Who wrote it?", "It was written by "+name+" yesterday.")
				if !assert.NoError(t, err) || !assert.Equal(t, name, answer) {
					return
				}
				asked.Add(1)
			}
		})
	}
	var loads int
	replaceModel := func() {
		status, text := postLoad(t, s, "bert", "secret")
		require.Equal(t, http.StatusOK, status, "%s", text)
		loads++
		// The model before is released when its last request has ended, which may be after the load.
		require.Eventually(t, func() bool { return strings.Count(s.logged(), "model is released") == loads },
			30*time.Second, 5*time.Millisecond, "the model before is released")
	}
	for range 2 { // until the allocators have what two models at once take
		replaceModel()
	}
	before := s.resident(t)
	for range 4 {
		replaceModel()
	}
	after := s.resident(t)
	close(stop)
	clients.Wait()
	assert.Positive(t, asked.Load())
	assert.Less(t, after-before, 60, "MiB more after 4 loads; a model has 90")
	t.Logf("%d answers during %d loads; %d MiB before, %d after the last four", asked.Load(), loads, before, after)

	// A load that fails leaves the model that serves in its place.
	require.NoError(t, os.WriteFile(config, configOf("128"), 0o666))
	status, text := postLoad(t, s, "bert", "secret")
	assert.NotEqual(t, http.StatusOK, status)
	assert.Contains(t, text, "the model has [-1 96]")
	_, err = s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	assert.NoError(t, err)
}

// postLoad asks the server to load a model, and returns the status and the body of the response.
func postLoad(t *testing.T, s *testServer, model, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+s.http+"/v2/repository/models/"+model+"/load", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// With --log_format json every line on standard error is JSON: those for a person, the log and the error at the end.
func TestJSONLog(t *testing.T) {
	t.Parallel()
	check := func(text string) {
		t.Helper()
		for line := range strings.Lines(text) {
			assert.True(t, json.Valid([]byte(line)), line)
		}
	}
	s := startServer(t, "--log_format", "json", "--verbose")
	_, err := s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	require.NoError(t, err)
	cmd := tfbert(t, "serve", "--log_format", "json", "--http_port", s.http[strings.LastIndex(s.http, ":")+1:])
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.Error(t, cmd.Run(), "the port is in use")
	assert.Contains(t, stderr.String(), "address already in use")
	check(stderr.String())
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, s.wait())
	assert.Contains(t, s.logged(), "shutting down")
	check(s.logged())
}

// After SIGTERM the server answers the requests that it has accepted, and ends with status 0.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "fills a server with work")
	s := startServer(t)
	passage := strings.Repeat("It was written by Ada Lovelace, who lived in London. ", 60) // three take a second
	answers := make(chan error, 3)
	underWay := make(chan struct{}, cap(answers))
	trace := &httptrace.ClientTrace{Got100Continue: func() { underWay <- struct{}{} }}
	ctx := httptrace.WithClientTrace(t.Context(), trace)
	for range cap(answers) {
		go func() {
			answer, err := s.ask(ctx, "Who wrote it?", passage)
			if err == nil && !strings.HasPrefix(answer, "Ada Lovelace") {
				err = fmt.Errorf("the answer is %q", answer)
			}
			answers <- err
		}()
	}
	for range cap(answers) {
		select {
		case <-underWay:
		case err := <-answers:
			require.FailNow(t, "a request ended before the others were under way", "%v", err)
		}
	}
	require.Eventually(t, func() bool {
		response, err := http.Get("http://" + s.http + "/metrics")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return regexp.MustCompile(`tfbert_running_batches{model="minilm-squad",version="1"} [1-9]`).Match(text)
	}, 20*time.Second, 10*time.Millisecond, "a batch runs")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	for range cap(answers) {
		assert.NoError(t, <-answers)
	}
	assert.NoError(t, s.wait())
	assert.Contains(t, s.logged(), "shutting down")
	_, err := s.ask(t.Context(), "Who wrote it?", "x")
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// bench --url measures a server over either protocol. It has the machine to itself, which makes it end soon:
// it repeats what varies.
func TestBenchURL(t *testing.T) {
	testenv.Long(t, "measures for some seconds")
	s := startServer(t)
	for _, url := range []string{"http://" + s.http, "grpc://" + s.grpc} {
		var stderr bytes.Buffer
		cmd := tfbert(t, "bench", "--url", url, "--concurrency", "1,3", "--measurement_interval", "250ms",
			"--stability_percentage", "90", "--format", "json")
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%s", stderr.String())
		var results []struct {
			Concurrency, Requests, Refused int
			Throughput                     float64
			Latency                        struct{ P50 float64 } `json:"latency_ms"`
			Compute                        struct{ P50 float64 } `json:"compute_ms"`
		}
		require.NoError(t, json.Unmarshal(out, &results))
		require.Len(t, results, 2)
		for i, r := range results {
			assert.Equal(t, []int{1, 3}[i], r.Concurrency)
			assert.Zero(t, r.Refused)
			assert.Positive(t, r.Requests)
			assert.GreaterOrEqual(t, r.Throughput, float64(r.Requests)/0.75,
				"in three intervals of a quarter of a second")
			assert.Positive(t, r.Compute.P50)
			assert.Greater(t, r.Latency.P50, r.Compute.P50, "the model's time is in the client's")
		}
	}
}
