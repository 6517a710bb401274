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

// An Error is a failure in the terms in which all protocols tell a client what went wrong.
type Error struct {
	Code       codes.Code
	Message    string
	RetryAfter time.Duration // 0: it does not help to try again
}

func (e *Error) Error() string { return e.Message }

// GRPCStatus makes it the status of a call where a gRPC method returns it.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Errorf makes an Error.
func Errorf(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *Error {
	return Errorf(codes.InvalidArgument, format, args...)
}

// AsError gives the Error in err or makes the one that tells of it.
func AsError(err error) *Error {
	var known *Error
	var full *batch.QueueFullError
	var windows *squad.TooManyWindowsError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &full):
		return &Error{codes.ResourceExhausted, trimPackage(full), full.RetryAfter}
	case errors.As(err, &windows):
		return invalid("the document makes %d windows, more than %d: shorten it or raise doc_stride", windows.Windows, windows.Limit)
	case errors.Is(err, batch.ErrPriority):
		return invalid("%s", trimPackage(err))
	case errors.Is(err, batch.ErrTimeout):
		return &Error{codes.DeadlineExceeded, trimPackage(batch.ErrTimeout), time.Second}
	case errors.Is(err, batch.ErrClosed):
		return &Error{codes.Unavailable, "the model is being unloaded", time.Second}
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(codes.DeadlineExceeded, "the request took longer than it may")
	case errors.Is(err, context.Canceled):
		return Errorf(codes.Canceled, "the client has gone")
	}
	if s, ok := status.FromError(err); ok { // gRPC's own, as of a stream whose client has gone
		return Errorf(s.Code(), "%s", s.Message())
	}
	return Errorf(codes.Internal, "%v", err)
}
