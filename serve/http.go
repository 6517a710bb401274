package serve

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/internal/cloud"
	"github.com/tfbert/go/serve/internal/huggingface"
	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/internal/native"
	"github.com/tfbert/go/serve/internal/page"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// Handler returns the handler of everything that the server speaks over HTTP.
//
// A request passes, in this order: tracing, its id, the refusal of other hosts and of other sites' pages, counting and
// logging, the limits on its time and body, its client's key and limits, and its verb's handler. A server that does not
// run by Serve is not known
// to be this machine's alone: it checks hosts only if Options.AllowedHosts names some.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handlers := map[string]transport.Handler{}
	handle := func(pattern string, h transport.Handler) {
		handlers[pattern] = h
		mux.Handle(pattern, s.serve(pattern, h))
	}

	handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) error {
		return transport.WriteJSON(w, struct{}{})
	})
	handle("GET /readyz", func(w http.ResponseWriter, _ *http.Request) error {
		if err := s.host.Ready(); err != nil {
			return err
		}
		return transport.WriteJSON(w, struct{}{})
	})
	for _, path := range metricsPaths {
		mux.Handle("GET "+path, s.metrics.handler())
	}
	for _, path := range []string{"/{$}", "/page.css", "/page.js", "/favicon.svg"} {
		mux.Handle("GET "+path, page.Handler())
	}
	native.Handle(s.host, handle)
	huggingface.Handle(s.host, handle)
	s.oip.Handle(handle)
	s.tfServing.Handle(handle)
	cloud.Handle(s.host, handle, handlers)
	handle("/", func(w http.ResponseWriter, r *http.Request) error {
		if allowed := methods(mux, r); len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			return transport.ErrMethod
		}
		return repository.Errorf(codes.NotFound, "no such endpoint: %s %s: docs/serving.md lists them all",
			r.Method, r.URL.Path)
	})
	traced := otelhttp.NewHandler(identify(s.sites.protect(mux, s.deny)), "http",
		otelhttp.WithFilter(func(r *http.Request) bool {
			_, pattern := mux.Handler(r)
			return !probes[pattern] && s.host.Tracing.Sample()
		}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return cmp.Or(r.Pattern, r.Method) }))
	return cloud.Routes(traced, s.opts.HealthRoute, s.opts.PredictRoute)
}

// identify gives each request an id.
func identify(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := transport.WithRequestID(r.Context(), r.Header.Get(transport.RequestID))
		traceID(ctx)
		w.Header().Set(transport.RequestID, transport.RequestIDOf(ctx))
		with := r.WithContext(ctx)
		h.ServeHTTP(w, with)
		r.Pattern = with.Pattern // which names the span
	})
}

// traceID adds the id of a request to its span.
func traceID(ctx context.Context) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("tfbert.request_id", transport.RequestIDOf(ctx)))
}

// methods returns those that a request's path takes.
func methods(mux *http.ServeMux, r *http.Request) (allowed []string) {
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	return allowed
}

// serve makes a handler one of net/http's.
func (s *Server) serve(pattern string, h transport.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(repository.WithModel(r.Context()), s.opts.RequestTimeout)
		defer cancel()
		ctx, cancelCut := s.host.Within(ctx)
		defer cancelCut()
		call := s.newCall(ctx, pattern, w)
		ctx, denied := s.identify(ctx, pattern, call.Slots, r.Header.Get("Authorization"), r.RemoteAddr)
		r = r.WithContext(transport.WithCall(ctx, call))
		r.Body = http.MaxBytesReader(w, r.Body, s.opts.MaxRequestBytes)
		answer := &response{ResponseWriter: w}
		err := transport.Recover(func() error {
			defer call.End()
			leave, err := s.enter(ctx, denied)
			if err != nil {
				refuseBody(w, r)
				return err
			}
			defer leave()
			return h(answer, r)
		})
		err = s.host.Outcome(err)
		if err != nil && !answer.begun {
			transport.WriteError(answer, err)
		}
		s.metrics.request(ctx, pattern, strconv.Itoa(answer.status()), time.Since(began), err)
		s.host.LogRequest(ctx, pattern, answer.status(), began, err)
	})
}

// newCall returns the call of a request.
func (s *Server) newCall(ctx context.Context, pattern string, w http.ResponseWriter) *transport.Call {
	conn, ok := ctx.Value(connKey{}).(*intake.Conn)
	if !ok {
		conn = &intake.Conn{} // of another server, which has the handler
	}
	slots := &s.questions
	for _, verb := range []string{"repository/", "logging", "trace/", "systemsharedmemory/"} {
		if strings.HasPrefix(pattern, "POST /v2/"+verb) {
			slots = &s.admins
		}
	}
	return &transport.Call{Conn: conn, Slots: slots, Budget: s.budget, Writer: w}
}

// response keeps the status of a response.
type response struct {
	http.ResponseWriter
	begun bool
	code  int
}

func (r *response) WriteHeader(code int) {
	if !r.begun {
		r.begun, r.code = true, code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *response) Write(b []byte) (int, error) {
	if !r.begun {
		r.begun, r.code = true, http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *response) status() int {
	if !r.begun {
		return http.StatusOK
	}
	return r.code
}
