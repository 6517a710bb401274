package main

import (
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/tfbert/go/tf"
)

var verbose bool // --verbose

// libraryLoad is the time that loading the library took.
var libraryLoad time.Duration

// stopLogs ends the capture of TensorFlow's log.
var stopLogs func() error

// loadTensorFlow loads the library, with its log on our standard error: warnings, or with --verbose
// everything.
func loadTensorFlow() error {
	if tf.Loaded() {
		return nil
	}
	level := slog.LevelError // its warnings are for those who write graphs
	if verbose {
		level = slog.LevelInfo
	}
	var stderr forward
	stderr.to.Store(os.Stderr)
	log := slog.New(slog.NewTextHandler(&stderr, &slog.HandlerOptions{Level: level}))
	stop, err := tf.CaptureLogs(log)
	if err != nil {
		return err
	}
	stderr.to.Store(os.Stderr) // the real one, now that file descriptor 2 is the library's
	stopLogs = stop
	start := time.Now()
	defer func() { libraryLoad = time.Since(start) }()
	return tf.Load("")
}

// forward writes to a file that may change while lines are written.
type forward struct{ to atomic.Pointer[os.File] }

func (w *forward) Write(b []byte) (int, error) {
	clearBar()
	return w.to.Load().Write(b)
}

// releaseTensorFlow shows the last lines of TensorFlow's log.
func releaseTensorFlow() {
	if stopLogs != nil {
		_ = stopLogs() // the process ends
	}
}
