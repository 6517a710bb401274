package transport

import (
	"context"
	"crypto/rand"
	"strings"
)

// RequestID is the header with the id of a request, by which it is found in logs and traces. gRPC has it in lower case.
const RequestID = "X-Request-Id"

const mostID = 128 // bytes

type requestIDKey struct{}

// WithRequestID returns a context with the id that a client has given its request, or with a new one if it has not
// given one that can stand in a log.
func WithRequestID(ctx context.Context, given string) context.Context {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if given == "" || len(given) > mostID || strings.ContainsFunc(given, odd) {
		given = rand.Text()
	}
	return context.WithValue(ctx, requestIDKey{}, given)
}

// RequestIDOf returns the id of a request, or "".
func RequestIDOf(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
