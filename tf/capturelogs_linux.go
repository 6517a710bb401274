package tf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// CaptureLogs sends TensorFlow's log lines to l until stop is called.
//
// The C API has no hook for them: TensorFlow writes to the process's standard error. CaptureLogs
// therefore puts a pipe in the place of file descriptor 2, turns the lines that are TensorFlow's
// into records (with the attribute "source") and passes all others on to the real standard error,
// which os.Stderr names meanwhile; a crash of the Go runtime reaches it too. What a program prints
// by way of print operations comes through TensorFlow's own log listener. This is for programs,
// which own their standard error, and not for libraries; call it before [Load] to have every line.
func CaptureLogs(l *slog.Logger) (stop func() error, err error) {
	fail := func(err error) (func() error, error) { return nil, fmt.Errorf("tf: capture logs: %w", err) }
	saved, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fail(err)
	}
	previous := os.Stderr
	real := os.NewFile(uintptr(saved), previous.Name())
	r, w, err := os.Pipe()
	if err != nil {
		return fail(errors.Join(err, real.Close()))
	}
	if err := debug.SetCrashOutput(real, debug.CrashOptions{}); err != nil {
		return fail(errors.Join(err, r.Close(), w.Close(), real.Close()))
	}
	if err := unix.Dup3(int(w.Fd()), 2, 0); err != nil {
		return fail(errors.Join(err, debug.SetCrashOutput(nil, debug.CrashOptions{}),
			r.Close(), w.Close(), real.Close()))
	}
	os.Stderr = real
	logger.Store(l)
	if Loaded() {
		capiLogRegister()
	}

	var wg sync.WaitGroup
	wg.Go(func() {
		lines := bufio.NewReader(r)
		level := levelNone // of the message that the line before belongs to
		for {
			line, err := lines.ReadString('\n')
			text := strings.TrimSuffix(line, "\n")
			if parsed, source, message, ok := parseLog(text); ok {
				level = parsed
				l.Log(context.Background(), level, message, "source", source)
			} else if level != levelNone && continues(text) {
				l.Log(context.Background(), level, text)
			} else if line != "" {
				level = levelNone
				_, _ = real.WriteString(line) // a broken standard error leaves nobody to tell
			}
			if err != nil {
				return
			}
		}
	})
	return sync.OnceValue(func() error {
		logger.Store(nil)
		os.Stderr = previous
		err := unix.Dup3(int(real.Fd()), 2, 0) // also closes the pipe's writing end at descriptor 2
		err = errors.Join(err, w.Close())
		wg.Wait()
		return errors.Join(err, r.Close(), debug.SetCrashOutput(nil, debug.CrashOptions{}), real.Close())
	}), nil
}
