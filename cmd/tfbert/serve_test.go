package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

// ask asks /v1/answer and returns the answer.
func (s *testServer) ask(ctx context.Context, question, passage string) (string, error) {
	body, err := json.Marshal(map[string]string{"question": question, "context": passage})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/v1/answer", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Expect", "100-continue") // the server says when it reads the body
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	var answer struct{ Answer *string }
	if err := json.Unmarshal(text, &answer); err != nil || answer.Answer == nil {
		return "", fmt.Errorf("%s: %s", response.Status, text)
	}
	return *answer.Answer, nil
}

// resident returns the process's resident memory in MiB.
func (s *testServer) resident(t *testing.T) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	require.NoError(t, err)
	kilobytes, err := strconv.Atoi(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(status))[1])
	require.NoError(t, err)
	return kilobytes >> 10
}

// A repository in the layout of NVIDIA's export script is served as it is, and a model in it is loaded
// anew under load: no request fails, and memory stays where it was.
func TestServeRepository(t *testing.T) {
	testenv.Long(t, "loads a model seven times under load")
	testenv.TensorFlow(t)
	testenv.Model(t)
	root := t.TempDir()
	model, err := shared.model("--max_seq_length", "384")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "bert", "1"), 0o777))
	require.NoError(t, os.Symlink(model, filepath.Join(root, "bert", "1", "model.savedmodel")))
	require.NoError(t, os.WriteFile(filepath.Join(root, "bert", "config.pbtxt"), []byte(testenv.NVIDIAConfig), 0o666))
	token := filepath.Join(root, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))

	// With one arena glibc takes memory again that a model before has left. With its usual ones what the
	// process holds grows by 50 to 160 MiB all the same, which hides a model that stays.
	t.Setenv("MALLOC_ARENA_MAX", "1")
	s := startServer(t, "--model_repository", root, "--model_control_mode", "explicit", "--load_model", "bert", "--admin_token_file", token)
	assert.Contains(t, s.logged(), "the configuration asks for auto_mixed_precision, which is for GPUs")
	answer, err := s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	require.NoError(t, err)
	assert.Equal(t, "Ada Lovelace", answer)

	var asked, loads atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name := []string{"Ada", "Bob", "Eve", "Kim"}[i]
				answer, err := s.ask(t.Context(), "Who wrote it?", "It was written by "+name+" yesterday.")
				if !assert.NoError(t, err) || !assert.Equal(t, name, answer) {
					return
				}
				asked.Add(1)
			}
		})
	}
	load := func() {
		r, err := http.NewRequest(http.MethodPost, "http://"+s.http+"/v2/repository/models/bert/load", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer secret")
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		require.Equal(t, http.StatusOK, response.StatusCode, "%s", text)
		n := int(loads.Add(1))
		// The model before is released when its last request has ended, which may be after the load.
		require.Eventually(t, func() bool { return strings.Count(s.logged(), "model is released") == n },
			30*time.Second, 5*time.Millisecond, "the model before is released")
	}
	for range 2 { // until the allocators have what two models at once take
		load()
	}
	before := s.resident(t)
	for range 4 {
		load()
	}
	after := s.resident(t)
	close(stop)
	clients.Wait()
	assert.Positive(t, asked.Load())
	assert.Less(t, after-before, 60, "MiB more after 4 loads; a model has 90")
	t.Logf("%d answers during %d loads; %d MiB before, %d after the last four", asked.Load(), loads.Load(), before, after)

	// A load that fails leaves the model that serves in its place.
	require.NoError(t, os.WriteFile(filepath.Join(root, "bert", "config.pbtxt"), []byte(strings.ReplaceAll(testenv.NVIDIAConfig, "384", "128")), 0o666))
	r, err := http.NewRequest(http.MethodPost, "http://"+s.http+"/v2/repository/models/bert/load", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer secret")
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	assert.NotEqual(t, http.StatusOK, response.StatusCode)
	assert.Contains(t, string(text), "the model has [-1 384]")
	_, err = s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	assert.NoError(t, err)
}

// SIGTERM: what was accepted is answered, and the process ends with status 0.
func TestServeDrains(t *testing.T) {
	testenv.Long(t, "fills a server with work")
	s := startServer(t)
	passage := strings.Repeat("It was written by Ada Lovelace, who lived in London. ", 60) // a second of work, all three
	answers := make(chan error, 3)
	underWay := make(chan struct{}, cap(answers))
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { underWay <- struct{}{} }})
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
	assert.NoError(t, s.cmd.Wait())
	assert.Contains(t, s.logged(), "shutting down")
	_, err := s.ask(t.Context(), "Who wrote it?", "x")
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// bench --url measures a server over either protocol.
func TestBenchURL(t *testing.T) {
	testenv.Long(t, "measures for some seconds")
	s := startServer(t)
	for _, url := range []string{"http://" + s.http, "grpc://" + s.grpc} {
		var stderr bytes.Buffer
		cmd := exec.Command("tfbert", "bench", "--url", url, "--concurrency", "1,3", "--measurement_interval", "250ms", "--stability_percentage", "90", "--format", "json")
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
			assert.GreaterOrEqual(t, r.Throughput, float64(r.Requests)/0.75, "in three intervals of a quarter of a second")
			assert.Positive(t, r.Compute.P50)
			assert.Greater(t, r.Latency.P50, r.Compute.P50, "the model's time is in the client's")
		}
	}
}
