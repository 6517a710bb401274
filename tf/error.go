package tf

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Errors that callers branch on.
var (
	// ErrNotLoaded reports that Load has not succeeded yet.
	ErrNotLoaded = errors.New("no TensorFlow library is loaded: call tf.Load first")
	// ErrClosed reports that the value was closed before.
	ErrClosed = errors.New("already closed")
)

// Code is a status code of TensorFlow's C API.
type Code int

// The codes of TF_Code.
const (
	OK                 Code = 0
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

var codeNames = map[Code]string{
	OK: "OK", Canceled: "CANCELLED", Unknown: "UNKNOWN", InvalidArgument: "INVALID_ARGUMENT",
	DeadlineExceeded: "DEADLINE_EXCEEDED", NotFound: "NOT_FOUND", AlreadyExists: "ALREADY_EXISTS",
	PermissionDenied: "PERMISSION_DENIED", ResourceExhausted: "RESOURCE_EXHAUSTED",
	FailedPrecondition: "FAILED_PRECONDITION", Aborted: "ABORTED", OutOfRange: "OUT_OF_RANGE",
	Unimplemented: "UNIMPLEMENTED", Internal: "INTERNAL", Unavailable: "UNAVAILABLE",
	DataLoss: "DATA_LOSS", Unauthenticated: "UNAUTHENTICATED",
}

// String returns the name that TensorFlow's own messages use.
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("CODE_%d", int(c))
}

// Error is a status other than OK that TensorFlow returned.
type Error struct {
	Op      string // the operation that failed, such as "run session"
	Code    Code
	Message string // TensorFlow's own words
}

// Error returns the error on one line. TensorFlow's message may have several.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Op, e.Code, strings.Join(strings.Fields(e.Message), " "))
}

// ErrCode returns the code of the *Error in err's chain. Without one it returns OK for nil, Canceled or
// DeadlineExceeded for the error of a context, and Unknown for any other.
func ErrCode(err error) Code {
	e, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return OK
	case ok:
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}
