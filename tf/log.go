package tf

import (
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
)

// logger receives what TensorFlow's log listener hands over.
var logger atomic.Pointer[slog.Logger]

// logLine is called by C, on any thread.
func logLine(line string) {
	if l := logger.Load(); l != nil {
		l.Info(strings.TrimSuffix(line, "\n"))
	}
}

// logPrefix matches the head of a line of TensorFlow's log: a letter for the severity, the time,
// the thread, and the source, in the form of Abseil's log or of the older one of TensorFlow:
//
//	I0000 00:00:1795409292.688686    4844 cpu_feature_guard.cc:227] text
//	2024-05-01 10:11:12.131415: I tensorflow/core/platform/cpu_feature_guard.cc:210] text
var logPrefix = regexp.MustCompile(
	`^(?:([IWEF])\d{4} \S+ +\d+ |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([IWEF]) )(\S+:\d+)\] (.*)$`)

// parseLog takes a line of TensorFlow's log apart.
func parseLog(line string) (level slog.Level, source, message string, ok bool) {
	m := logPrefix.FindStringSubmatch(line)
	if m == nil {
		return 0, "", "", false
	}
	switch m[1] + m[2] {
	case "I":
		level = slog.LevelInfo
	case "W":
		level = slog.LevelWarn
	default:
		level = slog.LevelError
	}
	return level, m[3], m[4], true
}
