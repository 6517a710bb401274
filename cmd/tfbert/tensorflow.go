package main

import (
	"log/slog"
	"time"

	"github.com/tfbert/go/tf"
)

var verbose bool // --verbose

// libraryLoad is the time that loading the library took.
var libraryLoad time.Duration

// loadTensorFlow loads the library, with its log on our standard error: errors, or with --verbose
// everything.
func loadTensorFlow() error {
	if tf.Loaded() {
		return nil
	}
	level := slog.LevelError // its warnings are for those who write graphs
	if verbose {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(belowBar{}, &slog.HandlerOptions{Level: level}))
	if _, err := tf.CaptureLogs(log); err != nil {
		return err
	}
	start := time.Now()
	defer func() { libraryLoad = time.Since(start) }()
	return tf.Load("")
}
