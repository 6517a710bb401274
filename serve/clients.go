package serve

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/internal/access"
	"github.com/tfbert/go/serve/internal/cloud"
	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/internal/transport"
)

// An APIKey is a key by which a client may ask, and the client's name.
type APIKey = access.Key

// ReadAPIKeys reads keys from lines in the form of sha256sum: the SHA-256 of a key and a client's name. It skips empty
// lines and those that begin with #. It returns an error if there are no keys.
func ReadAPIKeys(r io.Reader) ([]APIKey, error) { return access.ReadKeys(r) }

// SetAPIKeys replaces the keys of Options.APIKeys. It may be called while the server runs. Without any keys everybody
// may ask.
func (s *Server) SetAPIKeys(keys []APIKey) { s.host.Guard.SetKeys(slices.Clone(keys)) }

// open are the verbs that need no API key and count against no client: an orchestrator asks them, and what they tell is
// not worth a secret.
var open = map[string]bool{
	"GET /healthz": true, "GET /readyz": true, "GET /v2/health/live": true, "GET /v2/health/ready": true,
	"GET /v2/models/{model}/ready": true, "GET /v2/models/{model}/versions/{version}/ready": true,
	cloud.Health: true, refusedVerb: true,

	"/grpc.health.v1.Health/Check": true, "/grpc.health.v1.Health/Watch": true,
	"/inference.GRPCInferenceService/ServerLive": true, "/inference.GRPCInferenceService/ServerReady": true,
	"/inference.GRPCInferenceService/ModelReady": true,
}

// probes are the verbs that are asked every few seconds, of which there are no traces. They begin with those that are
// open.
var probes = func() map[string]bool {
	all := maps.Clone(open)
	delete(all, refusedVerb)
	for _, path := range metricsPaths {
		all["GET "+path] = true
	}
	return all
}()

// metricsPaths are those of Prometheus and of TensorFlow Serving.
var metricsPaths = []string{"/metrics", "/monitoring/prometheus/metrics"}

// identify returns a context with the client of a request, and an error unless the client may use a verb, a pattern of
// HTTP or a method of gRPC. The verbs that change the server, which take slots of their own, have the admin token in
// place of a key.
func (s *Server) identify(
	ctx context.Context, verb string, slots *intake.Slots, authorization, address string,
) (context.Context, error) {
	if open[verb] || slots == &s.admins && s.host.HasAdminToken() {
		return ctx, nil
	}
	client, err := s.host.Guard.Identify(authorization, address)
	if err != nil {
		return ctx, err
	}
	return batch.WithClient(access.WithClient(ctx, client), client), nil // who takes turns at the model by that name
}

// enter counts a request against its client until leave is called. It returns denied, the error of identify, or an
// error if the client has too many requests.
func (s *Server) enter(ctx context.Context, denied error) (leave func(), err error) {
	client := access.ClientOf(ctx)
	if denied != nil || client == "" {
		return func() {}, denied
	}
	return s.host.Guard.Enter(client)
}

// refuseBody lets the response to a request go out before a body whose end is unknown. Otherwise net/http reads the
// body first, for as long as the client likes.
func refuseBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength < 0 {
		w.Header().Set("Connection", "close")
	}
}

// begin refuses a call of gRPC before its message is received, unless its client may make it.
func (s *Server) begin(ctx context.Context, info *tap.Info) (context.Context, error) {
	began := time.Now()
	given := ""
	if values := metadata.MD(info.Header).Get(transport.RequestID); len(values) > 0 {
		given = values[0]
	}
	ctx = transport.WithRequestID(ctx, given)
	var authorization, address string
	if values := metadata.MD(info.Header).Get("authorization"); len(values) > 0 {
		authorization = values[0]
	}
	if p, ok := peer.FromContext(ctx); ok {
		address = p.Addr.String()
	}
	ctx, denied := s.identify(ctx, info.FullMethodName, s.slots(info.FullMethodName), authorization, address)
	leave, err := s.enter(ctx, denied)
	if err != nil {
		s.called(ctx, info.FullMethodName, began, err)
		return ctx, statusOf(err)
	}
	context.AfterFunc(ctx, leave)
	return s.limitTime(ctx, info)
}
