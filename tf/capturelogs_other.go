//go:build !linux || !cgo

package tf

import (
	"errors"
	"log/slog"
)

// CaptureLogs sends TensorFlow's log to l; this system cannot.
func CaptureLogs(*slog.Logger) (stop func() error, err error) {
	return nil, errors.New("capture logs: only Linux can, with cgo")
}
