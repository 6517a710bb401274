package clienttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// The examples of docs/serving.md print what the document says. Each is a block with a command and its
// output, in which … stands for anything.
func TestServingExamples(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "serving.md"))
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```console\n\\$ (.*?)\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(blocks), 10)
	for _, block := range blocks {
		command := strings.ReplaceAll(block[1], "localhost:8501", server.http)
		output, err := exec.CommandContext(t.Context(), "bash", "-c", command).Output()
		require.NoError(t, err, command)
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(block[2])), "…", "(?s:.*)")
		assert.Regexp(t, "^"+pattern+"$", strings.TrimSpace(string(output)), block[1])
	}
}
