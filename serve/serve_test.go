package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/repository"
)

// A logBuffer keeps a log that many goroutines write.
type logBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	drop bool
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drop {
		return len(p), nil
	}
	return l.b.Write(p)
}

func (l *logBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// headerLength is the header with the length of the JSON in front of binary tensors.
const headerLength = "Inference-Header-Content-Length"

// A setup has the options of a test's server; those that are not set have defaults.
type setup struct {
	models fakemodel.Models
	serve  Options
	repo   repository.Options
	names  []string       // of the models; "bert"
	config string         // of TensorFlow Serving, in the file models.config beside the models; "" is none
	more   func(*fixture) // makes more models
}

// A fixture is a server of fake models with its log.
type fixture struct {
	*Server
	models *fakemodel.Models
	log    *logBuffer
	root   string
	ended  chan error // of Serve
	stop   context.CancelFunc
	url    string
	rpc    net.Addr

	handler func() http.Handler
}

// newFixture returns a server that has loaded its models and does not listen.
func newFixture(t testing.TB, s *setup) *fixture {
	t.Helper()
	f := &fixture{models: &s.models, log: &logBuffer{}, root: t.TempDir()}
	if s.names == nil {
		s.names = []string{"bert"}
	}
	for _, name := range s.names {
		f.addVersion(t, name, 1)
	}
	if s.more != nil {
		s.more(f)
	}
	var level slog.Leveler = slog.LevelDebug
	if s.serve.LogLevel != nil {
		level = s.serve.LogLevel
	}
	s.serve.Logger = slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: level}))
	s.serve.Version = "1.2.3"
	s.repo.Load, s.repo.Logger = f.models.Load, s.serve.Logger
	models, err := repository.OpenDir(f.root, s.repo)
	start := s.names
	if s.config != "" {
		f.writeConfig(t, s.config)
		models, err = repository.OpenConfig(filepath.Join(f.root, "models.config"), s.repo)
		start = nil
	}
	require.NoError(t, err)
	f.Server, err = New(models, s.serve)
	require.NoError(t, err)
	f.handler = sync.OnceValue(f.Handler)
	require.NoError(t, f.host.Models.Start(t.Context(), start...))
	t.Cleanup(func() {
		f.host.Models.Close()
		f.models.Check(t)
	})
	return f
}

// addVersion makes the folder of a version of a model.
func (f *fixture) addVersion(t testing.TB, name string, version int) {
	t.Helper()
	dir := filepath.Join(f.root, name, fmt.Sprint(version), "model.savedmodel")
	require.NoError(t, os.MkdirAll(dir, 0o755))
}

// writeConfig writes the configuration of TensorFlow Serving.
func (f *fixture) writeConfig(t testing.TB, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(f.root, "models.config"), []byte(text), 0o600))
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// startServer starts a server that listens until the test ends, and checks that it shuts down then.
func startServer(t testing.TB, s *setup) *fixture {
	t.Helper()
	f := newFixture(t, s)
	web, rpc := listen(t), listen(t)
	f.url, f.rpc = "http://"+web.Addr().String(), rpc.Addr()
	if f.opts.TLS != nil {
		f.url = "https" + f.url[4:]
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop, f.ended = stop, make(chan error, 1)
	go func() { f.ended <- f.Serve(ctx, web, rpc) }()
	if f.opts.TLS == nil { // both listen from here on
		r, err := client(t).Get(f.url + "/healthz")
		require.NoError(t, err)
		readAll(t, r)
		conn := newClient(t, f.rpc, insecure.NewCredentials())
		_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	t.Cleanup(func() {
		stop()
		select {
		case err := <-f.ended:
			assert.NoError(t, err)
		case <-time.After(20 * time.Second):
			t.Error("the server does not shut down")
		}
	})
	return f
}

// newClient returns a gRPC client of an address, which the caller closes.
func newClient(t testing.TB, address net.Addr, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address.String(), grpc.WithTransportCredentials(c))
	require.NoError(t, err)
	return conn
}

// dial returns a gRPC client of the server, which is closed at the test's end.
func (f *fixture) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn := newClient(t, f.rpc, insecure.NewCredentials())
	t.Cleanup(func() { conn.Close() })
	return conn
}

// client returns an HTTP client whose connections are closed at the test's end.
func client(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// ask sends a request straight to the handler. Headers are "Name: value".
func (f *fixture) ask(method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	f.handler().ServeHTTP(w, r)
	return w
}

// requireError fails a test unless a response is an error as all protocols have it over HTTP.
func requireError(t testing.TB, status int, message string, w *httptest.ResponseRecorder) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var body map[string]string
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	require.Len(t, body, 1)
	require.Contains(t, body["error"], message)
	require.NotContains(t, body["error"], "\n")
	require.NotContains(t, body["error"], ".go:", "no stack")
}

// question returns the body of a question for the nth key.
func question(n int) string {
	return fmt.Sprintf(`{"question":"find %s","context":"a b %[1]s. c d"}`, fakemodel.Key(n))
}

func readAll(t testing.TB, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

// eventually waits until other goroutines have done what the test waits for.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// watchGoroutines returns a check that there are no more goroutines than at the call.
func watchGoroutines(t testing.TB) func() {
	before := runtime.NumGoroutine()
	return func() {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, of %d before:\n%s",
					runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
		}
	}
}
