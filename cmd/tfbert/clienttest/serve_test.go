package clienttest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
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

	s := startServer(t, "--model_repository", root,
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

	// An unloaded model leaves nothing but the library, which has more than 200 MiB of its own.
	unload(t, s, "bert", "secret")
	require.Eventually(t, func() bool { return s.resident(t) < before-60 }, 30*time.Second, 50*time.Millisecond,
		"MiB less without a model, which has 90")
	t.Logf("%d MiB after unloading", s.resident(t))
	status, text := postLoad(t, s, "bert", "secret")
	require.Equal(t, http.StatusOK, status, "%s", text)

	// A load that fails leaves the model that serves in its place.
	require.NoError(t, os.WriteFile(config, configOf("128"), 0o666))
	status, text = postLoad(t, s, "bert", "secret")
	assert.NotEqual(t, http.StatusOK, status)
	assert.Contains(t, text, "the model has [-1 96]")
	_, err = s.ask(t.Context(), "Who wrote it?", "It was written by Ada Lovelace.")
	assert.NoError(t, err)
}

// postLoad asks the server to load a model, and returns the status and the body of the response.
func postLoad(t *testing.T, s *testServer, model, token string) (status int, body string) {
	t.Helper()
	return post(t, s, model+"/load", token)
}

func unload(t *testing.T, s *testServer, model, token string) {
	t.Helper()
	status, body := post(t, s, model+"/unload", token)
	require.Equal(t, http.StatusOK, status, body)
}

func post(t *testing.T, s *testServer, path, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+s.http+"/v2/repository/models/"+path, nil)
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

// SIGHUP takes up a new certificate, token, API key and configuration. A log that nobody reads any more does not end the server.
func TestServeReloads(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "loads a model twice")
	root := t.TempDir()
	cert, key, token := filepath.Join(root, "cert.pem"), filepath.Join(root, "key.pem"), filepath.Join(root, "token")
	writeCertificate := func(serial int64) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
		require.NoError(t, err)
		text, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(t, err)
		for path, block := range map[string]*pem.Block{
			cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: text},
		} {
			require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
		}
	}
	models := filepath.Join(root, "models")
	require.NoError(t, os.MkdirAll(filepath.Join(models, "bert", "1"), 0o777))
	require.NoError(t, os.Symlink(exportModel(t), filepath.Join(models, "bert", "1", "model.savedmodel")))
	writeCertificate(1)
	require.NoError(t, os.WriteFile(token, []byte("one"), 0o600))
	keys := filepath.Join(root, "keys")
	writeKey := func(key string) {
		line := fmt.Sprintf("%x  alice\n", sha256.Sum256([]byte(key)))
		require.NoError(t, os.WriteFile(keys, []byte(line), 0o600))
	}
	writeKey("first")
	s := startServer(t, "--model_repository", models, "--tls_cert_file", cert, "--tls_key_file", key,
		"--admin_token_file", token, "--api_key_file", keys)
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}}
	get := func(path, token string) (*http.Response, string) {
		r, err := http.NewRequest(http.MethodPost, "https://"+s.http+path, nil)
		if path == "/v2/models/bert/config" {
			r.Method = http.MethodGet
		}
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response, string(text)
	}
	response, _ := get("/v2/repository/index", "one")
	assert.Equal(t, 200, response.StatusCode)
	assert.Equal(t, "HTTP/2.0", response.Proto)
	assert.EqualValues(t, 1, response.TLS.PeerCertificates[0].SerialNumber.Int64())

	writeCertificate(2)
	require.NoError(t, os.WriteFile(token, []byte("two"), 0o600))
	response, _ = get("/v2/models/bert/config", "first")
	assert.Equal(t, 200, response.StatusCode)
	writeKey("second")
	config := filepath.Join(models, "bert", "config.pbtxt")
	require.NoError(t, os.WriteFile(config, []byte("max_batch_size: 3"), 0o600))
	s.stderr.Close() // the log's reader has gone
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool {
		_, text := get("/v2/models/bert/config", "second")
		return strings.Contains(text, `"max_batch_size":3`)
	}, 30*time.Second, 20*time.Millisecond)
	response, _ = get("/v2/repository/index", "two")
	assert.Equal(t, 200, response.StatusCode)
	assert.EqualValues(t, 2, response.TLS.PeerCertificates[0].SerialNumber.Int64())
	response, _ = get("/v2/repository/index", "one")
	assert.Equal(t, 401, response.StatusCode)
	response, _ = get("/v2/models/bert/config", "first")
	assert.Equal(t, 401, response.StatusCode)
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
