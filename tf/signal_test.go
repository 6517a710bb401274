//go:build cgo && linux

package tf_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/faketf"
	"github.com/tfbert/go/internal/testenv"
)

// embedded is testdata/embed, running.
type embedded struct {
	*exec.Cmd
	stdout bytes.Buffer
	stderr *bufio.Reader
}

// startEmbedded starts the program over a library and waits until it runs its session.
func startEmbedded(t *testing.T, library string, callers int, env string) *embedded {
	t.Helper()
	e := startProgram(t, library, env, "-callers", strconv.Itoa(callers))
	for said := ""; ; {
		line, err := e.stderr.ReadString('\n')
		said += line
		require.NoError(t, err, said)
		if line == "ready\n" {
			return e
		}
	}
}

// startProgram starts the program.
func startProgram(t *testing.T, library, env string, args ...string) *embedded {
	t.Helper()
	program := filepath.Join(t.TempDir(), "embed")
	build := []string{"build", "-o", program}
	if faketf.Sanitized {
		build = append(build, "-asan")
	}
	out, err := exec.Command("go", append(build, "./testdata/embed")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	e := &embedded{Cmd: exec.Command(program, args...)}
	e.Env = append(os.Environ(), "TFBERT_LIBTENSORFLOW="+library, "TF_CPP_MIN_LOG_LEVEL=3", env)
	e.Stdout = &e.stdout
	pipe, err := e.StderrPipe()
	require.NoError(t, err)
	e.stderr = bufio.NewReader(pipe)
	require.NoError(t, e.Start())
	t.Cleanup(func() { _ = e.Process.Kill() })
	return e
}

// end waits for the end of the program and returns what it wrote on its standard error since.
func (e *embedded) end() (stderr string, err error) {
	rest, _ := io.ReadAll(e.stderr)
	return string(rest), e.Wait()
}

// signals reads a set of signals from /proc (proc(5), status).
func (e *embedded) signals(t *testing.T, set string) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(e.Process.Pid) + "/status")
	require.NoError(t, err)
	n, err := strconv.ParseUint(string(regexp.MustCompile(set + `:\s+(\w+)`).FindSubmatch(b)[1]), 16, 64)
	require.NoError(t, err)
	return n
}

func buildFake(t *testing.T) string {
	t.Helper()
	library, err := faketf.Build(t.TempDir())
	require.NoError(t, err)
	return library
}

// A program keeps its flags, its signals and its standard output, and ends at Ctrl-C and SIGTERM as it
// means to: over TensorFlow, and over a library whose first run installs handlers as CUDA does.
func TestEmbedded(t *testing.T) {
	for name, library := range map[string]func(t *testing.T) (path, env string){
		"TensorFlow": func(t *testing.T) (string, string) {
			realLibrary(t, "more to show than the other case does")
			return testenv.TensorFlow(t), ""
		},
		"handlers without SA_ONSTACK": func(t *testing.T) (string, string) {
			return buildFake(t), "FAKETF_SIGNALS=TF_SessionRun"
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, env := library(t)
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				t.Run(sig.String(), func(t *testing.T) {
					e := startEmbedded(t, path, 4, env)
					const hup = 1 << (syscall.SIGHUP - 1)
					assert.NotZero(t, e.signals(t, "SigIgn")&hup, "the program ignores SIGHUP")
					assert.NotZero(t, e.signals(t, "SigCgt")&(1<<(sig-1)))
					require.NoError(t, e.Process.Signal(syscall.SIGHUP))
					require.NoError(t, e.Process.Signal(syscall.SIGURG)) // the Go scheduler's own
					require.NoError(t, e.Process.Signal(sig))
					stderr, err := e.end()
					require.NoError(t, err, stderr)
					assert.Equal(t, "drained, {Tensors:0 Graphs:0 Sessions:0} alive\n", e.stdout.String())
				})
			}
		})
	}
}

// Without the flag such a handler is the end of a Go program: so the test above tests something.
func TestHandlersWithoutOnStackAreFatal(t *testing.T) {
	// A signal that finds its thread in C, or in the scheduler, does no harm: one of many does.
	for range 20 {
		// Installed by a call that fixSignals does not come after.
		e := startEmbedded(t, buildFake(t), 1, "FAKETF_SIGNALS=TF_SessionRun:2")
		require.NoError(t, e.Process.Signal(syscall.SIGTERM))
		if stderr, err := e.end(); err != nil {
			assert.NotContains(t, e.stdout.String(), "drained")
			assert.Regexp(t, "SA_ONSTACK|fatal|SIGSEGV", stderr)
			return
		}
	}
	assert.Fail(t, "every signal was handled")
}

// The last words of a library that ends the process are a record and, as the handler may not have
// written it yet, on the standard error as well.
func TestLastWords(t *testing.T) {
	stderr, err := startProgram(t, buildFake(t), "FAKETF_ABORT=TF_SessionRun", "-capture").end()
	require.Error(t, err)
	assert.Contains(t, stderr, `"level":"ERROR+4","msg":"Check failed: TF_SessionRun","source":"faketf.cc:1"}`)
	assert.Regexp(t, `(?m)^F0000 .* faketf.cc:1\] Check failed: TF_SessionRun$`, stderr)
}
