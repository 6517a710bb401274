package serve

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/page"
	"github.com/tfbert/go/serve/repository"
)

// A handler serves a request or says why not.
type handler func(w http.ResponseWriter, r *http.Request) error

// Handler gives all that the server speaks over HTTP.
//
// A request passes, in this order: tracing, the refusal of other sites' pages, counting and logging, the
// limits on its time and body, and its verb's handler.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h handler) { mux.Handle(pattern, s.serve(pattern, h)) }

	handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) error { return writeJSON(w, struct{}{}) })
	handle("GET /readyz", func(w http.ResponseWriter, _ *http.Request) error {
		if err := s.ready(); err != nil {
			return err
		}
		return writeJSON(w, struct{}{})
	})
	for _, path := range []string{"/metrics", "/monitoring/prometheus/metrics"} {
		mux.Handle("GET "+path, s.metrics.handler())
	}
	mux.Handle("GET /{$}", page.Handler())
	for _, file := range []string{"/page.css", "/page.js", "/favicon.svg"} {
		mux.Handle("GET "+file, page.Handler())
	}
	s.handleAnswers(handle)
	s.handleHuggingFace(handle)
	s.handleInference(handle)
	s.handleServing(handle)
	handle("/", func(w http.ResponseWriter, r *http.Request) error {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			return errMethod
		}
		return repository.Errorf(codes.NotFound, "there is no %s %s: see docs/serving.md for what there is", r.Method, r.URL.Path)
	})
	// A page of another site must not use a browser's way to a server on its own machine.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(s.serve("cross-origin", func(http.ResponseWriter, *http.Request) error {
		return repository.Errorf(codes.PermissionDenied, "a page of another site must not send requests here")
	}))
	return otelhttp.NewHandler(protection.Handler(mux), "http",
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return spanName(r) }))
}

func spanName(r *http.Request) string {
	if r.Pattern != "" {
		return r.Pattern
	}
	return r.Method
}

// serve makes a handler one of net/http's.
func (s *Server) serve(pattern string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), s.opts.RequestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, s.opts.MaxRequestBytes)
		answer := &response{ResponseWriter: w}
		err := recovering(func() error {
			if r.Method == http.MethodPost {
				leave, err := s.enter()
				if err != nil {
					return err
				}
				defer leave()
			}
			return h(answer, r)
		})
		if err != nil && !answer.begun {
			writeError(answer, err)
		}
		s.metrics.request(pattern, answer.status(), time.Since(began))
		s.logRequest(ctx, "http", pattern, answer.status(), began, err)
	})
}

// recovering makes a panic an error: it ends a request and not the server.
func recovering(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return f()
}

type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return "the server has a bug: see its log" }

func (s *Server) logRequest(ctx context.Context, protocol, verb string, status any, began time.Time, err error) {
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String("verb", verb), slog.Any("status", status), slog.Duration("took", time.Since(began)),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if repository.AsError(err).Code == codes.Internal {
			level = slog.LevelError
		}
	}
	var panicked *panicError
	if errors.As(err, &panicked) {
		attrs = append(attrs, slog.Any("panic", panicked.value), slog.String("stack", string(panicked.stack)))
	}
	var modelPanic *batch.PanicError
	if errors.As(err, &modelPanic) {
		attrs = append(attrs, slog.String("stack", string(modelPanic.Stack)))
	}
	s.log.LogAttrs(ctx, level, protocol+" request", attrs...)
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

// statuses are those of HTTP for the codes of gRPC.
var statuses = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.FailedPrecondition: http.StatusBadRequest,
	codes.NotFound:           http.StatusNotFound,
	codes.Unauthenticated:    http.StatusUnauthorized,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.Canceled:           499, // as proxies log it; nobody is there to read it
	codes.Unimplemented:      http.StatusNotImplemented,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
}

// errorJSON is the form of an error in every protocol here.
type errorJSON struct {
	Error string `json:"error"`
}

// errMethod is the error of a path that is there for another method, for which gRPC has no code.
var errMethod = repository.Errorf(codes.NotFound, "this takes another method: see the Allow header")

func writeError(w http.ResponseWriter, err error) {
	e := repository.AsError(err)
	status, ok := statuses[e.Code]
	switch {
	case e == errMethod:
		status = http.StatusMethodNotAllowed
	case !ok:
		status = http.StatusInternalServerError
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		status = http.StatusRequestEntityTooLarge
		e.Message = fmt.Sprintf("the request has more than %d bytes", large.Limit)
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = encodeJSON(w, errorJSON{e.Message}) // the client may have gone
}

func writeJSON(w http.ResponseWriter, v any) error {
	var b bytes.Buffer
	if err := encodeJSON(&b, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	_, _ = w.Write(b.Bytes()) // the client may have gone
	return nil
}

// readBody reads a body, unpacked, within the limit on both.
func (s *Server) readBody(r *http.Request) ([]byte, error) {
	var from io.Reader = r.Body
	var err error
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip":
		from, err = gzip.NewReader(r.Body)
	case "deflate":
		from, err = zlib.NewReader(r.Body)
	default:
		return nil, repository.Errorf(codes.InvalidArgument, "the Content-Encoding is %q: it may be gzip or deflate", encoding)
	}
	if err == nil && from == r.Body && r.ContentLength > s.opts.MaxRequestBytes {
		return nil, &http.MaxBytesError{Limit: s.opts.MaxRequestBytes}
	}
	var body bytes.Buffer
	if err == nil {
		body.Grow(int(min(max(r.ContentLength, 0), 64<<10)))
		_, err = io.Copy(&body, io.LimitReader(from, s.opts.MaxRequestBytes+1))
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, repository.Errorf(codes.DeadlineExceeded, "the body took longer than it may")
	case err != nil && r.Context().Err() != nil:
		return nil, r.Context().Err()
	case err != nil:
		return nil, repository.Errorf(codes.InvalidArgument, "the body cannot be read: %v", err)
	case int64(body.Len()) > s.opts.MaxRequestBytes:
		return nil, &http.MaxBytesError{Limit: s.opts.MaxRequestBytes}
	}
	return body.Bytes(), nil
}
