package transport

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"

	"go.opentelemetry.io/otel"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// Tracing decides which requests have a span, as Triton's trace settings say. The zero value is none of them.
type Tracing struct {
	mu          sync.Mutex
	on          bool
	rate, count int64 // one of rate requests; count spans are left, or -1 for no limit
	seen        int64
}

// NewTracing returns a Tracing by which every request has a span.
func NewTracing() *Tracing { return &Tracing{on: true, rate: 1, count: -1} }

// Sample reports whether the next request has a span.
func (t *Tracing) Sample() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on || t.count == 0 {
		return false
	}
	t.seen++
	if (t.seen-1)%t.rate != 0 {
		return false
	}
	if t.count > 0 {
		t.count--
	}
	return true
}

// exporting reports whether spans go anywhere.
func exporting() bool {
	_, span := otel.Tracer("tfbert").Start(context.Background(), "none") // never ended, and so never exported
	return span.SpanContext().IsValid()
}

const (
	traceLevel = "trace_level"
	traceRate  = "trace_rate"
	traceCount = "trace_count"
	traceMode  = "trace_mode"

	levelOff, levelTimes, modeOTel = "OFF", "TIMESTAMPS", "opentelemetry"
)

// Settings returns the settings by their names.
func (t *Tracing) Settings() map[string][]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	level := levelOff
	if t.on && exporting() {
		level = levelTimes
	}
	return map[string][]string{
		traceLevel: {level}, traceRate: {strconv.FormatInt(t.rate, 10)}, traceCount: {strconv.FormatInt(t.count, 10)},
		traceMode: {modeOTel},
	}
}

// Set changes settings, all or none. One without a value gets its default.
func (t *Tracing) Set(settings map[string][]string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	on, rate, count := t.on, t.rate, t.count
	for name, values := range settings {
		value := ""
		if len(values) > 0 {
			value = values[0]
		}
		var err error
		switch name {
		case traceLevel:
			on, err = setLevel(values)
		case traceRate:
			rate, err = setNumber(name, value, 1, 1)
		case traceCount:
			count, err = setNumber(name, value, -1, -1)
		case traceMode:
			if value != "" && value != modeOTel {
				err = repository.Errorf(codes.Unimplemented, "trace_mode must be %s, as this server exports traces", modeOTel)
			}
		case "trace_file", "log_frequency":
			err = repository.Errorf(codes.Unimplemented,
				"%s is not followed: traces go to a collector of OpenTelemetry, not to a file", name)
		default:
			err = repository.Invalidf("unknown trace setting %.100q", name)
		}
		if err != nil {
			return err
		}
	}
	if rate != t.rate || on && !t.on {
		t.seen = 0
	}
	t.on, t.rate, t.count = on, rate, count
	return nil
}

func setLevel(values []string) (on bool, err error) {
	switch {
	case len(values) == 0:
		return true, nil
	case slices.Equal(values, []string{levelOff}):
		return false, nil
	case !slices.Equal(values, []string{levelTimes}):
		return false, repository.Errorf(codes.Unimplemented, "trace_level must be %s or %s", levelOff, levelTimes)
	case !exporting():
		return false, repository.Errorf(codes.FailedPrecondition,
			"the server does not export traces: its environment variables of OpenTelemetry say where to")
	}
	return true, nil
}

func setNumber(name, value string, least, byDefault int64) (int64, error) {
	if value == "" {
		return byDefault, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least {
		return 0, repository.Invalidf("%s must be a whole number from %d on", name, least)
	}
	return n, nil
}

// LogSettings are Triton's settings of the log.
type LogSettings struct {
	Info, Warning, Error bool
	Verbose              uint32
}

// levelNone is above all levels that are logged.
const levelNone = slog.LevelError + 4

// LogSettings returns the settings of the log.
func (h *Host) LogSettings() LogSettings {
	enabled := func(l slog.Level) bool { return h.Log.Enabled(context.Background(), l) }
	s := LogSettings{Info: enabled(slog.LevelInfo), Warning: enabled(slog.LevelWarn), Error: enabled(slog.LevelError)}
	if enabled(slog.LevelDebug) {
		s.Verbose = 1
	}
	return s
}

// SetLog changes the settings of the log, which has levels: it cannot have one without those above.
func (h *Host) SetLog(s LogSettings) error {
	if h.LogLevel == nil {
		return repository.Errorf(codes.Unimplemented, "the level of the server's log cannot be changed")
	}
	switch {
	case s.Warning && !s.Error:
		return repository.Invalidf("log_error cannot be off while log_warning is on")
	case s.Info && !s.Warning:
		return repository.Invalidf("log_warning cannot be off while log_info is on")
	case s.Verbose > 0 && !s.Info:
		return repository.Invalidf("log_info cannot be off while log_verbose_level is not 0")
	case s.Verbose > 0:
		h.LogLevel.Set(slog.LevelDebug)
	case s.Info:
		h.LogLevel.Set(slog.LevelInfo)
	case s.Warning:
		h.LogLevel.Set(slog.LevelWarn)
	case s.Error:
		h.LogLevel.Set(slog.LevelError)
	default:
		h.LogLevel.Set(levelNone)
	}
	return nil
}
