//go:build cgo

package tf

/*
#include <stddef.h>

// tfb_stderr puts a stream that calls tfbLogMessage in the place of the C library's stderr, or that
// back; it returns 0 or an errno.
int tfb_stderr(int capture);
*/
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"unsafe"
)

// CaptureLogs sends TensorFlow's log to l until stop is called.
//
// TensorFlow logs to the stream stderr of the C library, which the whole process shares. CaptureLogs puts
// another stream in its place, which only glibc allows. TensorFlow's messages become records with the
// attribute "source", and everything else is passed on. File descriptor 2 and os.Stderr do not change.
//
// Call CaptureLogs before [Load]: TensorFlow already logs while it loads, and up to version 2.20 keeps the
// stream that it has first written to. The handler of l runs on TensorFlow's threads, inside its calls. It
// must not wait for a call of this package, and a slow handler makes TensorFlow slow. A second CaptureLogs
// before stop returns an error.
func CaptureLogs(l *slog.Logger) (stop func() error, err error) {
	if !logger.CompareAndSwap(nil, l) {
		return nil, errors.New("capture logs: a logger has them already")
	}
	if errno := C.tfb_stderr(1); errno != 0 {
		logger.Store(nil)
		return nil, fmt.Errorf("capture logs: %w", syscall.Errno(errno))
	}
	if Loaded() {
		capiLogRegister()
	}
	return sync.OnceValue(func() error {
		C.tfb_stderr(0)
		logger.Store(nil)
		return nil
	}), nil
}

//export tfbLogMessage
func tfbLogMessage(data *C.char, size C.size_t) C.int {
	if logMessage(string(unsafe.Slice((*byte)(unsafe.Pointer(data)), int(size)))) {
		return 1
	}
	return 0
}
