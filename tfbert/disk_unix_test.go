//go:build unix

package tfbert_test

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// A limit on the size of files stands for a full disk. It holds for a whole process, so the test
// runs itself in one of its own.
func TestExportDiskFull(t *testing.T) {
	testenv.TensorFlow(t)
	const child = "TFBERT_TEST_DISK_FULL"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestExportDiskFull$")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	ckpt := newToyOf("gelu", 20000).write(t, "model.ckpt")
	zip := zipFolder(t, ckpt, "")
	const graph, data = 64 << 10, 512 << 10 // too little for saved_model.pb, or only for the variables
	for _, c := range []struct {
		limit uint64
		path  string
		file  string
	}{{graph, ckpt, "saved_model.pb"}, {data, ckpt, "variables.data-00000-of-00001"}, {data, zip,
		"model.ckpt.data-00000-of-00001"}} {
		var old syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: c.limit, Max: old.Max}))
		checkNothingLeft(t, t.Context(), c.path, nil, c.file, "file too large")
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
	}
}
