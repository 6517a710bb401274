// Package transport is what the protocols of the server share: the server as they see it, reading and
// writing HTTP, and how a request that fails or panics ends.
package transport

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
)

// A Host is the server as a protocol sees it.
type Host struct {
	Models  *repository.Repository
	Version string // of the server, as clients see it
	Log     *slog.Logger

	MaxRequestBytes int64 // of a body, also when it is unpacked
	RequestTimeout  time.Duration
	AdminToken      string // "": everybody may change the server

	Draining context.Context // ends when the server begins to end
}

// ErrDraining is the error of what comes when the server ends.
var ErrDraining = repository.Errorf(codes.Unavailable, "the server is shutting down")

// Ready returns an error unless the server can answer.
func (h *Host) Ready() error {
	if h.Draining.Err() != nil {
		return ErrDraining
	}
	return h.Models.Ready()
}

// Admin returns an error unless a request with these credentials, an Authorization header, may change the
// server.
func (h *Host) Admin(authorization string) error {
	if h.AdminToken == "" {
		return nil
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") ||
		subtle.ConstantTimeCompare([]byte(token), []byte(h.AdminToken)) != 1 {
		return repository.Errorf(codes.Unauthenticated,
			"this needs the server's admin token: send it as Authorization: Bearer TOKEN")
	}
	return nil
}

// Acquire finds a model by the name and version of a request, each of which may be "": then it is the only
// model, and its newest version.
func (h *Host) Acquire(name, version string) (*repository.Servable, error) {
	number, err := repository.ParseVersion(version)
	if err != nil {
		return nil, err
	}
	if name == "" {
		if name, err = h.Models.Default(); err != nil {
			return nil, err
		}
	}
	return h.Models.Acquire(name, number)
}

// Part runs one of the requests that came together, as by a stream, within the time of a request. A
// failure or panic ends it alone, and is logged.
func (h *Host) Part(ctx context.Context, verb string, f func(context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, h.RequestTimeout)
	defer cancel()
	err := Recover(func() error { return f(ctx) })
	if err != nil {
		h.LogRequest(ctx, verb, "part of a request", began, err)
	}
	return err
}

// Recover makes an error of a panic, which then ends a request and not the server.
func Recover(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &batch.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// LogRequest logs a request that has ended: a failure of the server as an error, everything else for those
// who look for it.
func (h *Host) LogRequest(ctx context.Context, verb string, status any, began time.Time, err error) {
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String("verb", verb), slog.Any("status", status), slog.Duration("took", time.Since(began)),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if repository.AsError(err).Code == codes.Internal {
			level = slog.LevelError
		}
	}
	if panicked := (*batch.PanicError)(nil); errors.As(err, &panicked) {
		attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
	}
	h.Log.LogAttrs(ctx, level, "request", attrs...)
}
