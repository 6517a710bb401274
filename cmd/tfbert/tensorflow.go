package main

import (
	"log/slog"
	"sync"
	"time"

	"github.com/tfbert/go/tf"
)

var verbose bool // --verbose

// libraryLoad is the time that loading the library took.
var libraryLoad time.Duration

// captureLogs sends the library's log to our standard error: errors, or with --verbose everything. It
// comes before the library is loaded.
var captureLogs = sync.OnceValue(func() error {
	level := slog.LevelError // its warnings are for those who write graphs
	if verbose {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(belowBar{}, options)
	if jsonLog != nil {
		handler = slog.NewJSONHandler(belowBar{}, options)
	}
	_, err := tf.CaptureLogs(slog.New(handler))
	return err
})

// loadTensorFlow loads the library.
func loadTensorFlow() error {
	if tf.Loaded() {
		return nil
	}
	if err := captureLogs(); err != nil {
		return err
	}
	start := time.Now()
	defer func() { libraryLoad = time.Since(start) }()
	return tf.Load("")
}
