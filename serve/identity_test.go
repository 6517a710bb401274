package serve

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// A request keeps the id that its client has given it, or gets one.
func TestRequestID(t *testing.T) {
	f := startServer(t, &setup{})
	ask := func(given string) string {
		w := f.ask("POST", "/v1/answer", []byte(question(1)), transport.RequestID+": "+given)
		require.Equal(t, 200, w.Code)
		return w.Header().Get(transport.RequestID)
	}
	assert.Equal(t, "a-1", ask("a-1"))
	assert.Contains(t, f.log.String(), "id=a-1")
	made := ask("")
	assert.NotEqual(t, made, ask(""))
	for _, bad := range []string{"a b", "a\x7f", strings.Repeat("a", 129)} {
		assert.Len(t, ask(bad), len(made))
	}
	w := f.ask("POST", "/nowhere", nil, transport.RequestID+": a-2")
	assert.Equal(t, "a-2", w.Header().Get(transport.RequestID), "of an error too")

	c := pb.NewInferenceClient(f.dial(t))
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), transport.RequestID, "a-3")
	_, err := c.ModelInfer(ctx, textRequest(1), grpc.Header(&header))
	require.NoError(t, err)
	assert.Equal(t, []string{"a-3"}, header.Get(transport.RequestID))
	assert.Contains(t, f.log.String(), "id=a-3")
	stream, err := c.ModelStreamInfer(metadata.AppendToOutgoingContext(t.Context(), transport.RequestID, "a-4"))
	require.NoError(t, err)
	require.NoError(t, stream.Send(textRequest(1)))
	header, err = stream.Header()
	require.NoError(t, err)
	assert.Equal(t, []string{"a-4"}, header.Get(transport.RequestID))
}

// What a client does wrong is not an error of the server.
func TestLogLevels(t *testing.T) {
	f := newFixture(t, &setup{serve: Options{MaxRequestBytes: 1000}})
	w := f.ask("POST", "/v1/answer", make([]byte, 2000))
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	assert.NotContains(t, f.log.String(), "level=ERROR")
}

// Clients are not told where the server's files are.
func TestErrorsHaveNoPaths(t *testing.T) {
	f := newFixture(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	check := func(method, path string, status int) {
		t.Helper()
		w := f.ask(method, path, nil)
		assert.Equal(t, status, w.Code, w.Body.String())
		assert.NotContains(t, w.Body.String(), f.root)
	}
	config := filepath.Join(f.root, "bert", "config.pbtxt")
	require.NoError(t, os.Mkdir(config, 0o755))
	check("POST", "/v2/repository/models/bert/load", 500)
	check("POST", "/v2/repository/index", 200)
	check("GET", "/v1/models/bert", 200)
	require.NoError(t, os.Remove(config))
	require.NoError(t, os.WriteFile(config, []byte("what: 1"), 0o644))
	check("POST", "/v2/repository/models/bert/load", 500)
	require.NoError(t, os.RemoveAll(f.root))
	check("POST", "/v2/repository/index", 500)
	check("POST", "/v2/repository/models/bert/load", 404)
	check("GET", "/v1/models/bert", 200)
}
