package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/testenv"
)

// testServer is 'tfbert serve' as a process.
type testServer struct {
	http, grpc string // addresses
	cmd        *exec.Cmd

	mu  sync.Mutex
	log strings.Builder
}

// startServer runs 'tfbert serve' with flags, on ports that are free, until the test ends, and waits
// for it to be ready. What it exports stays for the next server, but not in the user's cache.
func startServer(t *testing.T, flags ...string) *testServer {
	t.Helper()
	library := testenv.TensorFlow(t)
	testenv.Model(t)
	cache, err := shared.cache()
	require.NoError(t, err)
	s := &testServer{cmd: exec.Command("tfbert", append([]string{"serve", "--http_port", "0", "--grpc_port", "0"}, flags...)...)}
	s.cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache, libtf.EnvLibrary+"="+library)
	stderr, err := s.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	ready := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		address := regexp.MustCompile(`msg="serving (HTTP|gRPC)" address=(\S+)`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				*map[string]*string{"HTTP": &s.http, "gRPC": &s.grpc}[m[1]] = m[2]
			}
			if strings.Contains(lines.Text(), "ask questions at") {
				close(ready)
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.logged())
		}
	})
	select {
	case <-ready:
	case <-ended:
		require.Fail(t, "the server ended", s.logged())
	case <-time.After(2 * time.Minute):
		require.Fail(t, "the server is not ready", s.logged())
	}
	response, err := http.Get("http://" + s.http + "/readyz")
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	return s
}

func (s *testServer) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}
