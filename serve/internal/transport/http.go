package transport

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/repository"
)

// A Handler serves a request, or returns an error for WriteError.
type Handler func(w http.ResponseWriter, r *http.Request) error

// A Handle adds the handler of a pattern of http.ServeMux.
type Handle func(pattern string, h Handler)

// statuses are HTTP's for the codes of gRPC.
var statuses = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.FailedPrecondition: http.StatusBadRequest,
	codes.NotFound:           http.StatusNotFound,
	codes.AlreadyExists:      http.StatusConflict,
	codes.Unauthenticated:    http.StatusUnauthorized,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.Canceled:           499, // as proxies log it; the client has gone
	codes.Unimplemented:      http.StatusNotImplemented,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
}

// ErrMethod is the error of a path that takes another method. gRPC does not have a code for it.
var ErrMethod = repository.Errorf(codes.NotFound, "this takes another method: see the Allow header")

// ErrorJSON is an error as every protocol here writes it.
type ErrorJSON struct {
	Error string `json:"error"`
}

// WriteError writes an error as the response.
func WriteError(w http.ResponseWriter, err error) {
	e := repository.AsError(err)
	status, ok := statuses[e.Code]
	message := e.Message
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		status = http.StatusRequestEntityTooLarge
		message = fmt.Sprintf("the request has more than %d bytes", large.Limit)
	case e == ErrMethod:
		status = http.StatusMethodNotAllowed
	case !ok:
		status = http.StatusInternalServerError
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = EncodeJSON(w, ErrorJSON{message}) // the client may have gone
}

// WriteJSON writes v on a line as the response.
func WriteJSON(w http.ResponseWriter, v any) error {
	var b bytes.Buffer
	if err := EncodeJSON(&b, v); err != nil {
		return err
	}
	Write(w, "application/json", b.Bytes())
	return nil
}

// Write writes a body as the response.
func Write(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may have gone
}

// SetTiming sets the header by which browsers show the times of the stages, in milliseconds.
func SetTiming(w http.ResponseWriter, s repository.Seconds) {
	w.Header().Set("Server-Timing", fmt.Sprintf(
		"tokenize;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, decode;dur=%.3f",
		1e3*s.Tokenize, 1e3*s.Queue, 1e3*s.Compute, 1e3*s.Decode))
}

// ReadBody returns the body of a request, unpacked. The request is complete then: ReadBody takes a slot for it, and
// waits for the memory that decoding the body takes. The limit holds for the packed and the unpacked body.
func (h *Host) ReadBody(r *http.Request) ([]byte, error) {
	call := callOf(r.Context())
	if body := call.body; body != nil {
		call.body = nil
		return body, nil
	}
	message := h.Gate.Begin(call.Conn, call.stopReading)
	defer context.AfterFunc(h.Late, call.stopReading)()
	body, err := h.readBody(r, message)
	message.End()
	if err == nil {
		err = call.enter(r.Context(), len(body))
	}
	return body, err
}

func (h *Host) readBody(r *http.Request, message *intake.Message) ([]byte, error) {
	var from io.Reader = r.Body
	var err error
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip":
		from, err = gzip.NewReader(r.Body)
	case "deflate":
		from, err = zlib.NewReader(r.Body)
	default:
		return nil, repository.Invalidf("the Content-Encoding is %q: it must be gzip or deflate", encoding)
	}
	if err == nil && from == r.Body && r.ContentLength > h.MaxRequestBytes {
		return nil, &http.MaxBytesError{Limit: h.MaxRequestBytes}
	}
	var body bytes.Buffer
	if err == nil {
		err = readAll(&body, &countedReader{io.LimitReader(from, h.MaxRequestBytes+1), message}, r.ContentLength)
	}
	var large *http.MaxBytesError
	var slow *intake.SlowError
	dropped := message.Err()
	switch {
	case errors.As(dropped, &slow):
		return nil, &repository.Error{Code: codes.DeadlineExceeded, Message: slow.Error(), Reason: "slow"}
	case dropped != nil:
		return nil, dropped
	case errors.As(err, &large):
		return nil, err
	case err != nil && h.Late.Err() != nil:
		return nil, ErrDraining
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, repository.Errorf(codes.DeadlineExceeded, "the body took longer than it may")
	case err != nil && r.Context().Err() != nil:
		return nil, r.Context().Err()
	case err != nil:
		return nil, repository.Invalidf("the body cannot be read: %v", err)
	case int64(body.Len()) > h.MaxRequestBytes:
		return nil, &http.MaxBytesError{Limit: h.MaxRequestBytes}
	}
	return body.Bytes(), nil
}

// readAll reads everything. If the size is known, no memory is left over; but what has not come gets memory
// only once a quarter of it has.
func readAll(to *bytes.Buffer, from io.Reader, size int64) error {
	size = max(size, 0)
	first := max(size/4, 64<<10)
	to.Grow(int(min(size, 64<<10)) + bytes.MinRead)
	if _, err := io.CopyN(to, from, first); err != nil {
		if err == io.EOF {
			return nil
		}
		return err
	}
	to.Grow(int(max(size-first, 0)) + bytes.MinRead)
	_, err := to.ReadFrom(from)
	return err
}

// countedReader counts what is read of a message.
type countedReader struct {
	io.Reader
	message *intake.Message
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if dropped := c.message.Add(n, n); dropped != nil {
		return 0, dropped
	}
	return n, err
}
