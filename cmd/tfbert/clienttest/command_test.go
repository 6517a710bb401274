// Package clienttest tests the command's server by its clients: those of Triton, TensorFlow Serving and
// Hugging Face, grpcurl, curl, the command's own bench, and clients that ask while a model is replaced and
// while the server ends.
package clienttest

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

const (
	command     = "github.com/tfbert/go/cmd/tfbert"
	bundledName = "minilm-squad" // the checkpoint that comes with the source
)

// folder holds the command and what it exports, for as long as the tests run.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "tfbert-clienttest-"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// buildCommand builds the command when it is first needed, with the race detector if the tests have it.
var buildCommand = sync.OnceValues(func() (program string, err error) {
	program = filepath.Join(folder, "tfbert")
	build := []string{"build", "-o", program}
	info, _ := debug.ReadBuildInfo()
	if slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build = append(build, "-race")
	}
	if out, err := exec.Command("go", append(build, command)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the command: %w\n%s", err, out)
	}
	return program, openSources()
})

// openSources opens the folders that the command is built from, and go.mod. 'go test' repeats a result that it has
// unless a file has changed that the test opened, and does not see those that the build reads.
func openSources() error {
	mainModule := "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}"
	dirs, err := exec.Command("go", "list", "-deps", "-f", mainModule, command).Output()
	if err != nil {
		return fmt.Errorf("list the command's packages: %w", err)
	}
	_, err = os.Stat(filepath.Join("..", "..", "..", "go.mod"))
	for dir := range strings.Lines(string(dirs)) {
		_, readErr := os.ReadDir(strings.TrimSuffix(dir, "\n"))
		err = errors.Join(err, readErr)
	}
	return err
}

// tfbert returns the command with arguments. It exports into a cache that the tests share, not into the
// user's.
func tfbert(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	library := testenv.TensorFlow(t)
	program, err := buildCommand()
	require.NoError(t, err)
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(folder, "cache"), "TFBERT_LIBTENSORFLOW="+library)
	return cmd
}

// runTFBERT runs the command to its end.
func runTFBERT(t *testing.T, args ...string) {
	t.Helper()
	out, err := tfbert(t, args...).CombinedOutput()
	require.NoError(t, err, "tfbert %s:\n%s", strings.Join(args, " "), out)
}

// exportModel exports the bundled checkpoint with flags and returns the model's folder.
func exportModel(t *testing.T, flags ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	runTFBERT(t, append([]string{"export", testenv.Model(t), dir}, flags...)...)
	return dir
}
