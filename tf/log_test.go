package tf

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParseLog(t *testing.T) {
	for _, tc := range []struct {
		line            string
		level           slog.Level
		source, message string
		ok              bool
	}{
		{"I0000 00:00:1795409292.688686    4844 cpu_feature_guard.cc:227] This binary", slog.LevelInfo,
			"cpu_feature_guard.cc:227", "This binary", true},
		{"W0000 00:00:1795409292.688686    4844 a/b.cc:1] careful", slog.LevelWarn, "a/b.cc:1", "careful", true},
		{"E0101 10:11:12.131415 12 c.cc:7] ", slog.LevelError, "c.cc:7", "", true},
		{"2024-05-01 10:11:12.131415: F tensorflow/core/x.cc:9] fatal\nin two lines", levelFatal, "tensorflow/core/x.cc:9",
			"fatal\nin two lines", true},
		{abslWarning, slog.LevelInfo, "absl", abslWarning, true},
		{"tfbert: something else", 0, "", "", false},
		{"", 0, "", "", false},
	} {
		level, source, message, ok := parseLog(tc.line)
		assert.Equal(t, tc.ok, ok, tc.line)
		assert.Equal(t, tc.level, level, tc.line)
		assert.Equal(t, tc.source, source, tc.line)
		assert.Equal(t, tc.message, message, tc.line)
	}
}
