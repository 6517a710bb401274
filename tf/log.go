package tf

import (
	"log/slog"
	"math"
	"regexp"
	"strings"
	"sync/atomic"
)

// logger receives what TensorFlow's log listener hands over.
var logger atomic.Pointer[slog.Logger]

// logLine is called by C, on any thread.
func logLine(line string) {
	defer func() {
		// A panic of the program's handler must not unwind TensorFlow's frames, into whatever recovers
		// above them.
		if p := recover(); p != nil {
			go panic(p)
		}
	}()
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

// abslWarning stands before the first line of Abseil's log, where its flags are not set up.
const abslWarning = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"

// parseLog takes a line of TensorFlow's log apart.
func parseLog(line string) (level slog.Level, source, message string, ok bool) {
	if line == abslWarning {
		return slog.LevelInfo, "absl", line, true
	}
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

// levelNone says that a line of standard error is none of TensorFlow's.
const levelNone = slog.Level(math.MaxInt)

// continues says whether a line that follows one of TensorFlow's belongs to its message. Messages
// of several lines are rare; their further lines are indented, but for this one.
func continues(line string) bool {
	return strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "  ") ||
		strings.HasPrefix(line, "To enable the following instructions:")
}
