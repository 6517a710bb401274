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

// An Error is a failure of a request, as every protocol reports it. It keeps what a client may read apart
// from what only the log may have: a cause may name the server's files.
type Error struct {
	Code       codes.Code
	Message    string        // for the client
	RetryAfter time.Duration // 0 if trying again does not help
	Reason     string        // a word for metrics, if a request was refused that may be valid
	Cause      error         // for the log; nil if there is nothing to add to the message
}

// Error returns the text for the log: that of the cause, or without one the message.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// GRPCStatus returns the status for gRPC.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Errorf returns an Error without a cause.
func Errorf(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalidf returns an Error with the code InvalidArgument.
func Invalidf(format string, args ...any) *Error {
	return Errorf(codes.InvalidArgument, format, args...)
}

// unavailablef returns an Error after which the client should try again soon.
func unavailablef(format string, args ...any) *Error {
	e := Errorf(codes.Unavailable, format, args...)
	e.RetryAfter = time.Second
	return e
}

// AsError returns the Error in err's chain, or one that stands for err. Of an unknown error the client
// learns only that there was one.
func AsError(err error) *Error {
	var known *Error
	var full *batch.QueueFullError
	var late *batch.DeadlineError
	var windows *squad.TooManyWindowsError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &full):
		return &Error{Code: codes.ResourceExhausted, Message: full.Error(), RetryAfter: full.RetryAfter, Reason: "queue"}
	case errors.As(err, &late):
		e := &Error{Code: codes.ResourceExhausted, Message: late.Error(), RetryAfter: late.RetryAfter, Reason: "deadline"}
		if late.RetryAfter == 0 {
			e.Code = codes.DeadlineExceeded
			e.Message += ": ask about less text at once or raise doc_stride"
		}
		return e
	case errors.As(err, &windows):
		return Invalidf("the document makes %d windows, more than %d: shorten it or raise doc_stride",
			windows.Windows, windows.Limit)
	case errors.Is(err, batch.ErrPriority):
		return Invalidf("%v", err)
	case errors.Is(err, batch.ErrTimeout):
		return &Error{
			Code: codes.DeadlineExceeded, Message: batch.ErrTimeout.Error(), RetryAfter: time.Second, Reason: "queue_time",
		}
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
