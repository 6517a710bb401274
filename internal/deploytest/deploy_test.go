// Package deploytest tests what users deploy: the installer, the unit of systemd and the image. The manifests of
// Kubernetes are tested in tools/manifests, where their types are.
package deploytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// tool returns the path of a program, or skips the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testenv.Missing(t, name, name+" is not installed: what it checks is not checked")
	}
	return path
}

// archive returns that of a release with a program that says its version.
func archive(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range []struct {
		name, text string
		mode       int64
	}{
		{"tfbert", "#!/bin/sh\necho \"tfbert $1\"\n", 0o755},
		{"man/tfbert.1", ".TH", 0o644},
		{"completions/tfbert.bash", "complete", 0o644},
	} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name + "/" + f.name, Mode: f.mode, Size: int64(len(f.text))}))
		_, err := w.Write([]byte(f.text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestInstallScript(t *testing.T) {
	tool(t, "sh")
	tool(t, "curl")
	name := "tfbert-v9.9.9-linux-" + runtime.GOARCH
	packed := archive(t, name)
	sum := fmt.Sprintf("%x", sha256.Sum256(packed))
	others := strings.Repeat("0", 64) + "  tfbert-v9.9.9-linux-other.tar.gz\n"
	files := map[string]string{name + ".tar.gz": string(packed)}
	var mu sync.Mutex // guards files, which the server reads
	folder := t.TempDir()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		text, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, text)
	}))
	defer server.Close()
	install := func(releases string) (prefix, output string, err error) {
		prefix = filepath.Join(t.TempDir(), "prefix")
		cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(testenv.Root(t), "deploy", "install.sh"))
		cmd.Env = append(os.Environ(), "PREFIX="+prefix, "TFBERT_RELEASES="+releases, "TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return prefix, string(out), err
	}

	files["SHA256SUMS"] = others + sum + "  " + name + ".tar.gz\n"
	for path, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(folder, path), []byte(text), 0o600))
	}
	for _, releases := range []string{server.URL, "file://" + folder} {
		prefix, output, err := install(releases)
		require.NoError(t, err, output)
		assert.Contains(t, output, "tfbert version\nNext: "+prefix+"/bin/tfbert lib install\n")
		for _, path := range []string{
			"bin/tfbert", "share/man/man1/tfbert.1", "share/bash-completion/completions/tfbert",
		} {
			assert.FileExists(t, filepath.Join(prefix, path))
		}
	}

	line := sum + "  " + name + ".tar.gz\n"
	publish := func(sums string) {
		mu.Lock()
		defer mu.Unlock()
		files["SHA256SUMS"] = sums
	}
	for sums, want := range map[string]string{
		others + strings.Repeat("0", 64) + line[64:]: "does not have the sum in SHA256SUMS: nothing is installed",
		others: "SHA256SUMS lists no archive for linux/" + runtime.GOARCH,
		strings.Replace(line, "9.9.9", "9.9.8", 1): "cannot download",
		line + line: "lists several archives",
		"<html>":    "SHA256SUMS lists no archive",
	} {
		publish(sums)
		prefix, output, err := install(server.URL)
		require.Error(t, err, sums)
		assert.Contains(t, output, want)
		assert.NoFileExists(t, filepath.Join(prefix, "bin", "tfbert"))
	}
	mu.Lock()
	delete(files, "SHA256SUMS")
	mu.Unlock()
	_, output, err := install(server.URL)
	require.Error(t, err)
	assert.Contains(t, output, "install.sh: cannot download "+server.URL+"/SHA256SUMS")
}

func TestShellcheck(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), tool(t, "shellcheck"),
		"deploy/install.sh", "scripts/release.sh", "scripts/reproducible.sh")
	cmd.Dir = testenv.Root(t)
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, string(out))
}

// The unit is valid, and gives the service few rights.
func TestUnit(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "deploy", "tfbert.service"))
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "tfbert") // verify asks whether the program is there
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	unit := filepath.Join(t.TempDir(), "tfbert.service")
	own := strings.ReplaceAll(string(text), "/usr/local/bin/tfbert", program)
	require.NoError(t, os.WriteFile(unit, []byte(own), 0o600))
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
	require.NoError(t, err, string(out))
	assert.NotContains(t, string(out), "tfbert.service:", "a warning")

	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", unit).
		CombinedOutput()
	assert.NoError(t, err, string(out))
}
