package serve

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

func apiKey(client, key string) APIKey {
	return APIKey{Client: client, SHA256: sha256.Sum256([]byte(key))}
}

// withKey returns a context of calls with a bearer token.
func withKey(ctx context.Context, key string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
}

func TestAPIKeys(t *testing.T) {
	f := newFixture(t, &setup{
		serve: Options{APIKeys: []APIKey{apiKey("alice", "one"), apiKey("bob", "two")}, AdminToken: "admin"},
		repo:  repository.Options{Control: repository.ControlExplicit},
	})
	for path, body := range bodies {
		for _, authorization := range []string{"", "Bearer three", "Basic one", "Bearer admin"} {
			w := f.ask("POST", path, []byte(body), "Authorization: "+authorization)
			requireError(t, 401, "API key", w)
			assert.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"))
			assert.NotContains(t, w.Body.String(), "three")
		}
		for _, key := range []string{"one", "two"} {
			assert.Equal(t, 200, f.ask("POST", path, []byte(body), "Authorization: Bearer "+key).Code, path)
		}
	}
	for _, path := range []string{
		"/v1/models", "/v1/models/bert", "/v1/models/bert/metadata", "/v2", "/v2/models/bert", "/v2/models/bert/config",
		"/v2/models/stats", "/v2/models/bert/stats", "/nowhere",
	} {
		requireError(t, 401, "this needs an API key", f.ask("GET", path, nil))
		assert.NotEqual(t, 401, f.ask("GET", path, nil, "Authorization: Bearer one").Code, path)
	}
	for _, path := range []string{
		"/", "/page.js", "/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/bert/ready",
		"/v2/models/bert/versions/1/ready",
	} {
		assert.Equal(t, 200, f.ask("GET", path, nil).Code, path)
	}
	// The admin's verbs take the admin token and no key.
	requireError(t, 401, "admin token", f.ask("POST", "/v2/repository/index", nil, "Authorization: Bearer one"))
	assert.Equal(t, 200, f.ask("POST", "/v2/repository/index", nil, "Authorization: Bearer admin").Code)
	assert.Contains(t, f.log.String(), "client=alice")
	for _, secret := range []string{"one", "three"} {
		assert.NotContains(t, f.log.String(), "Bearer "+secret)
	}

	f.SetAPIKeys([]APIKey{apiKey("bob", "three")})
	body := []byte(question(1))
	assert.Equal(t, 401, f.ask("POST", "/v1/answer", body, "Authorization: Bearer one").Code)
	assert.Equal(t, 200, f.ask("POST", "/v1/answer", body, "Authorization: Bearer three").Code)
}

// Without an admin token, the admin's verbs need a key as all others do.
func TestAPIKeysForAdmin(t *testing.T) {
	f := newFixture(t, &setup{
		serve: Options{APIKeys: []APIKey{apiKey("alice", "one")}},
		repo:  repository.Options{Control: repository.ControlExplicit},
	})
	requireError(t, 401, "this needs an API key", f.ask("POST", "/v2/repository/models/bert/unload", nil))
	assert.Equal(t, 200, f.ask("POST", "/v2/repository/index", nil, "Authorization: Bearer one").Code)
}

// A client without a key is refused before its body is read.
func TestAPIKeyComesFirst(t *testing.T) {
	f := startServer(t, &setup{serve: Options{APIKeys: []APIKey{apiKey("alice", "one")}}})
	body, write := io.Pipe()
	defer write.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/v1/answer", body)
	require.NoError(t, err)
	response, err := client(t).Do(r)
	require.NoError(t, err)
	assert.Equal(t, 401, response.StatusCode)
	require.NoError(t, response.Body.Close())

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := pb.NewInferenceClient(f.dial(t)).ModelStreamInfer(ctx)
	require.NoError(t, err)
	_, err = stream.Recv() // nothing was sent
	requireCode(t, codes.Unauthenticated, "this needs an API key", err)
}

func TestAPIKeysOverGRPC(t *testing.T) {
	f := startServer(t, &setup{serve: Options{APIKeys: []APIKey{apiKey("alice", "one")}}})
	conn := f.dial(t)
	c, ctx := pb.NewInferenceClient(conn), t.Context()
	_, err := c.ModelInfer(ctx, textRequest(1))
	requireCode(t, codes.Unauthenticated, "this needs an API key", err)
	_, err = c.ModelInfer(withKey(ctx, "two"), textRequest(1))
	requireCode(t, codes.Unauthenticated, "the API key is not valid", err)
	r, err := c.ModelInfer(withKey(ctx, "one"), textRequest(1))
	require.NoError(t, err)
	assert.Equal(t, "w1", textAnswer(t, r))

	// Whatever is added later needs a key unless it is open.
	for method, streams := range f.streaming {
		if !streams {
			err := conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
			assert.Equal(t, !open[method], status.Code(err) == codes.Unauthenticated, method)
		}
	}
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	assert.Contains(t, f.ask("GET", "/metrics", nil).Body.String(),
		`tfbert_requests_total{status="Unauthenticated",verb="/inference.GRPCInferenceService/ModelInfer"} 3`)
}

// requireRetry fails a test unless a response refuses a client that asks too much, and says when to ask again.
func requireRetry(t testing.TB, message string, code int, header http.Header, body string) {
	t.Helper()
	require.Equal(t, 429, code, body)
	require.Contains(t, body, message)
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, seconds)
}

func TestClientRate(t *testing.T) {
	keys := []APIKey{apiKey("alice", "one"), apiKey("alice", "other"), apiKey("bob", "two")}
	f := startServer(t, &setup{serve: Options{APIKeys: keys, ClientRate: 1.0 / 3600, ClientBurst: 3}})
	ask := func(key string) (int, http.Header, string) {
		w := f.ask("POST", "/v1/answer", []byte(question(1)), "Authorization: Bearer "+key)
		return w.Code, w.Header(), w.Body.String()
	}
	for _, key := range []string{"one", "other", "one"} {
		code, _, body := ask(key)
		require.Equal(t, 200, code, body)
	}
	code, header, body := ask("other") // both keys are one client's
	requireRetry(t, "requests per second", code, header, body)
	code, _, _ = ask("two")
	require.Equal(t, 200, code, "another client has its own rate")

	c := pb.NewInferenceClient(f.dial(t))
	_, err := c.ModelInfer(withKey(t.Context(), "one"), textRequest(1))
	requireCode(t, codes.ResourceExhausted, "requests per second", err)
	details := status.Convert(err).Details()
	require.Len(t, details, 1)
	assert.Positive(t, details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration())
	stream, err := c.ModelStreamInfer(withKey(t.Context(), "two"))
	require.NoError(t, err)
	for i := range 3 { // after the question and the stream, one of them is left
		require.NoError(t, stream.Send(textRequest(i)))
		r, err := stream.Recv()
		require.NoError(t, err)
		assert.Equal(t, i > 0, strings.Contains(r.GetErrorMessage(), "requests per second"), r)
	}
	for range 10 {
		require.Equal(t, 200, f.ask("GET", "/readyz", nil).Code, "probes do not count")
		ready, err := c.ServerReady(t.Context(), &pb.ServerReadyRequest{})
		require.NoError(t, err)
		require.True(t, ready.GetReady())
	}
}

// Without keys a client is its address, over HTTP and gRPC together.
func TestClientRequests(t *testing.T) {
	release, begun := make(chan struct{}), make(chan struct{}, 8)
	s := &setup{serve: Options{ClientRequests: 2}}
	var started bool
	s.models.OnBatch = func(context.Context, repository.Source, []squad.Feature) error {
		if started {
			begun <- struct{}{}
			<-release
		}
		return nil
	}
	f := startServer(t, s)
	started = true
	var clients sync.WaitGroup
	answered := func() {
		r, err := client(t).Post(f.url+"/v1/answer", "application/json", strings.NewReader(question(1)))
		if assert.NoError(t, err) {
			assert.Equal(t, 200, r.StatusCode)
			assert.NoError(t, r.Body.Close())
		}
	}
	clients.Go(answered)
	<-begun
	c := pb.NewInferenceClient(f.dial(t))
	stream, err := c.ModelStreamInfer(t.Context()) // a stream is one request under way
	require.NoError(t, err)
	eventually(t, "a third request is refused", func() bool {
		r, err := client(t).Get(f.url + "/v2")
		require.NoError(t, err)
		body := readAll(t, r)
		if r.StatusCode == 200 {
			return false
		}
		requireRetry(t, "has 2 requests under way", r.StatusCode, r.Header, body)
		return true
	})
	_, err = c.ServerMetadata(t.Context(), &pb.ServerMetadataRequest{})
	requireCode(t, codes.ResourceExhausted, "has 2 requests under way", err)

	w := f.ask("GET", "/v2", nil) // httptest's address is another one
	require.Equal(t, 200, w.Code)

	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	close(release)
	clients.Wait()
	eventually(t, "both places are free", func() bool {
		for range 2 {
			if _, err := c.ServerMetadata(t.Context(), &pb.ServerMetadataRequest{}); err != nil {
				return false
			}
		}
		return true
	})
}
