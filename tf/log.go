package tf

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
)

// logger receives TensorFlow's log.
var logger atomic.Pointer[slog.Logger]

// logLine is called by C, on any thread, with what a print operation prints.
func logLine(line string) {
	defer panicOutside()
	if l := logger.Load(); l != nil {
		l.Info(strings.TrimSuffix(line, "\n"))
		return
	}
	// TensorFlow cannot remove a listener, and passes to it also what would go to the standard output.
	_, _ = os.Stderr.WriteString(line)
}

// logMessage is called by C, on any thread, with a message that may be one of TensorFlow's log. It returns false
// if the text belongs on the standard error.
func logMessage(text string) (taken bool) {
	defer panicOutside()
	l := logger.Load()
	if l == nil {
		return false
	}
	level, source, message, ok := parseLog(strings.TrimSuffix(text, "\n"))
	if !ok {
		return false
	}
	l.Log(context.Background(), level, message, "source", source)
	// The process ends now, and nobody knows whether the handler has written the record yet.
	return level != levelFatal
}

// panicOutside is deferred. A panic of the program's handler must not unwind TensorFlow's frames and be
// recovered above them.
func panicOutside() {
	if p := recover(); p != nil {
		go panic(p)
	}
}

// levelFatal is the level of the message with which TensorFlow ends the process.
const levelFatal = slog.LevelError + 4

// logPrefix takes a message of TensorFlow's log apart: a letter for the severity, the time, the
// thread, and the source, in the form of Abseil's log or of the older one of TensorFlow, and one line
// or several:
//
//	I0000 00:00:1795409292.688686    4844 cpu_feature_guard.cc:227] text
//	2024-05-01 10:11:12.131415: I tensorflow/core/platform/cpu_feature_guard.cc:210] text
var logPrefix = regexp.MustCompile(
	`^(?:([IWEF])\d{4} \S+ +\d+ |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([IWEF]) )(\S+:\d+)\] ((?s:.*))$`)

// abslWarning stands before the first message of Abseil's log, where its flags are not set up.
const abslWarning = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"

// parseLog takes a message apart. ok reports whether it is of TensorFlow's log.
func parseLog(text string) (level slog.Level, source, message string, ok bool) {
	if text == abslWarning {
		return slog.LevelInfo, "absl", text, true
	}
	m := logPrefix.FindStringSubmatch(text)
	if m == nil {
		return 0, "", "", false
	}
	levels := map[string]slog.Level{"I": slog.LevelInfo, "W": slog.LevelWarn, "E": slog.LevelError, "F": levelFatal}
	return levels[m[1]+m[2]], m[3], m[4], true
}
