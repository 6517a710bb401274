package repository

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// An Error is a failure in the terms in which all protocols tell a client what went wrong. What a client
// may read and what only the log may hold are apart: a cause can name the server's files.
type Error struct {
	Code       codes.Code
	Message    string        // for the client
	RetryAfter time.Duration // 0: trying again does not help
	Cause      error         // for the log; nil where the message says everything
}

// Error returns what the log should say: the cause, or else the message.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// GRPCStatus returns the status that a gRPC method which returns the error ends with.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Errorf makes an Error whose message says everything.
func Errorf(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalidf makes the Error of a request that cannot be answered as it is.
func Invalidf(format string, args ...any) *Error {
	return Errorf(codes.InvalidArgument, format, args...)
}

// unavailablef makes the error of what will soon be there.
func unavailablef(format string, args ...any) *Error {
	e := Errorf(codes.Unavailable, format, args...)
	e.RetryAfter = time.Second
	return e
}

// AsError returns the Error in err's chain, or makes one for err. An error that is not known here is the
// server's own affair: the client learns that there was one.
func AsError(err error) *Error {
	var known *Error
	var full *batch.QueueFullError
	var windows *squad.TooManyWindowsError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &full):
		return &Error{Code: codes.ResourceExhausted, Message: full.Error(), RetryAfter: full.RetryAfter}
	case errors.As(err, &windows):
		return Invalidf("the document makes %d windows, more than %d: shorten it or raise doc_stride",
			windows.Windows, windows.Limit)
	case errors.Is(err, batch.ErrPriority):
		return Invalidf("%v", err)
	case errors.Is(err, batch.ErrTimeout):
		return &Error{Code: codes.DeadlineExceeded, Message: batch.ErrTimeout.Error(), RetryAfter: time.Second}
	case errors.Is(err, batch.ErrClosed):
		return unavailablef("the model is being unloaded")
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(codes.DeadlineExceeded, "the request took longer than it may")
	case errors.Is(err, context.Canceled):
		return Errorf(codes.Canceled, "the client has gone")
	}
	if s, ok := status.FromError(err); ok { // gRPC's own, as of a stream whose client has gone
		return Errorf(s.Code(), "%s", s.Message())
	}
	return &Error{Code: codes.Internal, Message: "the server failed to answer: its log says why", Cause: err}
}
