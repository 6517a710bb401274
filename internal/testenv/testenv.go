// Package testenv finds what tests need on this machine. If a piece is missing, the test is skipped
// with the reason, or fails if TFBERT_REQUIRE names the piece, so that CI cannot pass by skipping.
package testenv

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tfbert/go/internal/libtf"
)

// Main is a package's TestMain. It runs the tests, calls last, and fails if something is still open: if
// alive, which counts open objects, does not return zero.
func Main[T comparable](m *testing.M, alive func() T, last ...func()) {
	code := m.Run()
	for _, f := range last {
		f()
	}
	var none T
	if left := alive(); code == 0 && left != none {
		fmt.Fprintf(os.Stderr, "left open at the end of the tests: %+v\n", left)
		code = 1
	}
	os.Exit(code)
}

// Root returns the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("testenv: no caller information")
	}
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Golden returns the path of an output of the reference scripts that is recorded in testdata/golden.
func Golden(t testing.TB, elem ...string) string {
	t.Helper()
	return filepath.Join(append([]string{Root(t), "testdata", "golden"}, elem...)...)
}

// Model returns the folder of the bundled checkpoint.
func Model(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Root(t), "testdata", "models", "minilm-squad")
	if _, err := os.Stat(dir); err != nil {
		Missing(t, "model", "this copy of the module does not contain the bundled model")
	}
	return dir
}

// Shared returns a path below the folder that TFBERT_SHARED names. That folder has the SQuAD sets and
// the recorded outputs over them, which are not part of the repository.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	dir := os.Getenv("TFBERT_SHARED")
	if dir == "" {
		Missing(t, "shared", "TFBERT_SHARED, which names the folder of the SQuAD data, is not set")
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(Root(t), dir) // go test runs in the package's folder
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

// Missing skips the test because piece is missing, or fails it if TFBERT_REQUIRE, a comma-separated
// list, names piece.
func Missing(t testing.TB, piece, reason string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("TFBERT_REQUIRE"), ","), piece) {
		t.Fatalf("TFBERT_REQUIRE=%s: %s", piece, reason)
	}
	t.Skip(reason)
}

// Long skips the test under -short. The reason says what takes so long.
func Long(t testing.TB, reason string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: " + reason)
	}
}

// NVIDIAConfig is the config.pbtxt that NVIDIA's export script writes for a model of length 384.
//
//go:embed testdata/nvidia.pbtxt
var NVIDIAConfig string

// TensorFlow returns the path of this machine's TensorFlow library.
func TensorFlow(t testing.TB) string {
	t.Helper()
	path, err := libtf.Path()
	if err != nil {
		Missing(t, "tensorflow", err.Error())
	}
	return path
}

// Python returns the Python with TensorFlow that TFBERT_PYTHON names.
func Python(t testing.TB) string {
	t.Helper()
	python := os.Getenv("TFBERT_PYTHON")
	if python == "" {
		Missing(t, "python", "TFBERT_PYTHON, which names a Python with TensorFlow, is not set")
	}
	return python
}

// Clients returns the Python that TFBERT_CLIENTS_PYTHON names, which has the packages of
// cmd/tfbert/clienttest/testdata/requirements.txt.
func Clients(t testing.TB) string {
	t.Helper()
	python := os.Getenv("TFBERT_CLIENTS_PYTHON")
	if python == "" {
		Missing(t, "clients", "TFBERT_CLIENTS_PYTHON, which names a Python with the clients of other servers, is not set")
	}
	return python
}

// PerfAnalyzer returns the path of Triton's perf_analyzer, bin/perf_analyzer in the folder that TFBERT_PERF_ANALYZER names,
// which has the packages of cmd/tfbert/clienttest/testdata/perf_analyzer.txt, and the folder of the libraries it needs.
func PerfAnalyzer(t testing.TB) (path, libraries string) {
	t.Helper()
	dir := os.Getenv("TFBERT_PERF_ANALYZER")
	if dir == "" {
		Missing(t, "perf_analyzer", "TFBERT_PERF_ANALYZER, which names a folder with Triton's perf_analyzer, is not set")
	}
	return filepath.Join(dir, "bin", "perf_analyzer"), filepath.Join(dir, "nvidia", "cuda_runtime", "lib")
}

// GRPCurl returns the path of grpcurl, at the version of tools/go.mod, in Go's build cache. 'make grpcurl'
// puts it there. Tests do not, because building downloads modules and takes minutes in an empty cache.
func GRPCurl(t testing.TB) string {
	t.Helper()
	path, err := grpcurl(Root(t))
	if err != nil {
		Missing(t, "grpcurl", "grpcurl is not in Go's build cache: run 'make grpcurl' ("+err.Error()+")")
	}
	return path
}

// grpcurl returns the path of the tool without downloading anything. It links the tool if its packages are built.
func grpcurl(root string) (string, error) {
	grpcurlOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools/go.mod", "-n", "grpcurl")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOPROXY=off")
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		grpcurlPath, grpcurlErr = strings.TrimSpace(string(out)), err
	})
	return grpcurlPath, grpcurlErr
}

var (
	grpcurlOnce sync.Once
	grpcurlPath string
	grpcurlErr  error
)

// Promtool returns the path of Prometheus's promtool, which 'make promtool' builds.
func Promtool(t testing.TB) string {
	t.Helper()
	path := filepath.Join(Root(t), "bin", "promtool")
	if _, err := os.Stat(path); err != nil {
		Missing(t, "promtool", "bin/promtool is missing: run 'make promtool'")
	}
	return path
}

// OutsideModule makes a module in dir that requires this one, as a user's module does, and so cannot import internal
// packages. It returns a function that makes go commands for that module, which do not need a network.
func OutsideModule(t testing.TB, dir string) func(args ...string) *exec.Cmd {
	t.Helper()
	root := Root(t)
	const module = "github.com/tfbert/go"
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "go.mod" {
			text = bytes.Replace(text, []byte("module "+module+"\n"), []byte("module outside\n"), 1)
			text = fmt.Appendf(text, "\nrequire %s v0.0.0\n\nreplace %[1]s => %s\n", module, root)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
		return cmd
	}
}

// Stdout runs f and returns what it wrote to standard output. Tests use it for an Example that cannot
// run everywhere.
func Stdout(t testing.TB, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer func(stdout *os.File) { os.Stdout = stdout }(os.Stdout)
	os.Stdout = file
	f()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
