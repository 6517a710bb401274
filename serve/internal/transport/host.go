// Package transport has what the protocols of the server share: the server as they see it, how they read
// and write HTTP, and how a request that fails or panics ends.
package transport

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/internal/access"
	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/internal/shm"
	"github.com/tfbert/go/serve/repository"
)

// A Host is the server as a protocol sees it.
type Host struct {
	Models  *repository.Repository
	Version string // of the server, as clients see it
	Log     *slog.Logger

	MaxRequestBytes int64 // of a body, packed and unpacked
	RequestTimeout  time.Duration
	adminToken      atomic.Pointer[string]

	LogLevel *slog.LevelVar // of Log; nil if it cannot be changed
	Tracing  *Tracing

	SharedMemory *shm.Regions // nil if clients may not use any

	Gate      *intake.Gate  // of requests that are being received
	Guard     *access.Guard // of the clients
	Questions *intake.Slots // of requests that ask a model
	// Ended counts a request that has ended, by its verb and status.
	Ended func(ctx context.Context, verb, status string, took time.Duration)

	// Refused is called with each error of one of several requests that came together.
	Refused func(error)

	// The stages of a shutdown, each done when it begins.
	Leaving  context.Context // the server is no longer ready, but answers
	Draining context.Context // it takes no more requests
	Late     context.Context // it waits no longer for requests that are not complete
	Cutting  context.Context // nor for answers
}

// ErrDraining is the error of requests that come while the server shuts down.
var ErrDraining = repository.Errorf(codes.Unavailable, "the server is shutting down")

// Ready returns an error unless the server can answer.
func (h *Host) Ready() error {
	if h.Leaving.Err() != nil {
		return ErrDraining
	}
	return h.Models.Ready()
}

// Within returns a context that also ends when the server cuts what has not ended. Outcome then says so.
func (h *Host) Within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.Cutting, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// Outcome returns the error of a request, which is ErrDraining if the server has cut the request.
func (h *Host) Outcome(err error) error {
	if err != nil && h.Cutting.Err() != nil {
		return ErrDraining
	}
	return err
}

// SetAdminToken sets the token that verbs which change the server ask for; "" lets everybody use them.
func (h *Host) SetAdminToken(token string) { h.adminToken.Store(&token) }

// HasAdminToken reports whether verbs which change the server ask for a token.
func (h *Host) HasAdminToken() bool { return *h.adminToken.Load() != "" }

// Admin returns an error unless a request with this Authorization header may change the server.
func (h *Host) Admin(authorization string) error {
	want := *h.adminToken.Load()
	if want == "" {
		return nil
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") ||
		subtle.ConstantTimeCompare([]byte(token), []byte(want)) != 1 {
		return repository.Errorf(codes.Unauthenticated,
			"this needs the server's admin token: send it as Authorization: Bearer TOKEN")
	}
	return nil
}

// Count counts one of several requests that came together, such as those of a stream, in the rate of their client. It
// returns an error if they come too fast.
func (h *Host) Count(ctx context.Context) error { return h.Guard.Count(access.ClientOf(ctx)) }

// AdminCall is Admin for a call of gRPC. The handlers of HTTP put the Authorization header where gRPC has it.
func (h *Host) AdminCall(ctx context.Context) error {
	authorization := ""
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
		authorization = values[0]
	}
	return h.Admin(authorization)
}

// Acquire returns the model with a name and a version. The version "" is the newest.
func (h *Host) Acquire(name, version string) (*repository.Servable, error) {
	number := int64(0)
	if version != "" {
		var err error
		if number, err = strconv.ParseInt(version, 10, 64); err != nil || number < 1 {
			return nil, InvalidVersion(version)
		}
	}
	return h.Models.Acquire(name, number)
}

// InvalidVersion returns the error of a version that cannot be one.
func InvalidVersion(version string) error {
	return repository.Invalidf("%q is not a valid version: use a number such as 1", version)
}

// AcquireOrDefault is Acquire where the name "" is the only model.
func (h *Host) AcquireOrDefault(name, version string) (*repository.Servable, error) {
	if name == "" {
		var err error
		if name, err = h.Models.Default(); err != nil {
			return nil, err
		}
	}
	return h.Acquire(name, version)
}

// Part runs one of several requests that came together, such as those of a stream, within the time of a
// request. If it fails or panics, it ends alone, and its error is logged.
func (h *Host) Part(ctx context.Context, verb string, f func(context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, h.RequestTimeout)
	defer cancel()
	err := h.Outcome(Recover(func() error { return f(ctx) }))
	if err != nil {
		h.Refused(err)
		h.LogRequest(ctx, verb, "part of a request", began, err)
	}
	return err
}

// Recover returns the error of f, or a panic of f as an error, which ends a request and not the server.
func Recover(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &batch.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// LogRequest logs a request that has ended: a failure of the server as an error, any other request for
// debugging.
func (h *Host) LogRequest(ctx context.Context, verb string, status any, began time.Time, err error) {
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String("verb", verb), slog.Any("status", status), slog.Duration("took", time.Since(began)),
		slog.String("id", RequestIDOf(ctx)),
	}
	if client := access.ClientOf(ctx); client != "" {
		attrs = append(attrs, slog.String("client", client))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		var large *http.MaxBytesError // it is the client's
		if repository.AsError(err).Code == codes.Internal && !errors.As(err, &large) {
			level = slog.LevelError
		}
	}
	if panicked := (*batch.PanicError)(nil); errors.As(err, &panicked) {
		attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
	}
	h.Log.LogAttrs(ctx, level, "request", attrs...)
}
