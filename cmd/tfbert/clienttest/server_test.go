package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// testServer is 'tfbert serve' as a process.
type testServer struct {
	http, grpc string // addresses
	cmd        *exec.Cmd
	stderr     io.Closer     // its log as this process reads it
	ended      chan struct{} // closed when the process has closed its standard error

	mu  sync.Mutex
	log strings.Builder
}

// startServer runs 'tfbert serve' with flags, on ports that are free, until the test ends, and waits for it
// to be ready.
func startServer(t *testing.T, flags ...string) *testServer {
	t.Helper()
	testenv.Model(t)
	cmd := tfbert(t, append([]string{"serve", "--http_port", "0", "--grpc_port", "0"}, flags...)...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := &testServer{cmd: cmd, stderr: stderr, ended: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(s.ended)
		address := regexp.MustCompile(`"serving (HTTP|gRPC)",? ?"?address"?[=:]"?([^" ]+)`)
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
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = s.wait()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.logged())
		}
	})
	select {
	case <-ready:
	case <-s.ended:
		require.Fail(t, "the server ended", s.logged())
	case <-time.After(2 * time.Minute):
		require.Fail(t, "the server is not ready", s.logged())
	}
	if slices.Contains(flags, "--tls_cert_file") {
		return s
	}
	response, err := http.Get("http://" + s.http + "/readyz")
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	return s
}

// wait waits for the process to end.
func (s *testServer) wait() error {
	<-s.ended // Wait closes the pipe that the log comes from
	return s.cmd.Wait()
}

// logged returns what the server has logged so far.
func (s *testServer) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

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
