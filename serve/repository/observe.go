package repository

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// modelKey is the key of an *atomic.Pointer[string] in the context of a request.
type modelKey struct{}

// WithModel returns a context of a request of which ModelOf tells the model.
func WithModel(ctx context.Context) context.Context {
	return context.WithValue(ctx, modelKey{}, new(atomic.Pointer[string]))
}

// ModelOf returns the name of the model or text model that a request asked first, or "" if it did not get so far. It is
// never a name that only the request knows.
func ModelOf(ctx context.Context) string {
	if p, ok := ctx.Value(modelKey{}).(*atomic.Pointer[string]); ok && p.Load() != nil {
		return *p.Load()
	}
	return ""
}

// asked notes that a request asks a servable.
func (s *Servable) asked(ctx context.Context) {
	if p, ok := ctx.Value(modelKey{}).(*atomic.Pointer[string]); ok {
		p.CompareAndSwap(nil, &s.name)
	}
}

// begin counts a request until end.
func (s *Servable) begin(ctx context.Context) (began time.Time) {
	s.asked(ctx)
	s.statistics.running.Add(1)
	return time.Now()
}

// end counts a request that began, and traces its stages.
func (s *Servable) end(ctx context.Context, began time.Time, rows int, seconds Seconds, err error) {
	s.statistics.running.Add(-1)
	s.statistics.countRequest(began, rows, seconds, err)
	seconds.trace(ctx, began)
}

// scope names the spans of this package.
const scope = "github.com/tfbert/go/serve/repository"

// trace adds the times to the span of a request, and a span below it for each stage.
func (s Seconds) trace(ctx context.Context, began time.Time) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	tracer := span.TracerProvider().Tracer(scope)
	for _, stage := range []struct {
		name, attribute string
		seconds         float64
	}{
		{"tokenize", "tokenize", s.Tokenize}, {"queue", "queue", s.Queue}, {"batch", "compute", s.Compute},
		{"decode", "decode", s.Decode},
	} {
		span.SetAttributes(attribute.Float64("tfbert."+stage.attribute+"_seconds", stage.seconds))
		if stage.seconds == 0 { // the request did not get so far
			continue
		}
		if stage.name == "decode" { // of the last windows; others may be decoded while these wait
			began = time.Now().Add(-duration(stage.seconds))
		}
		_, child := tracer.Start(ctx, stage.name, trace.WithTimestamp(began))
		began = began.Add(duration(stage.seconds))
		child.End(trace.WithTimestamp(began))
	}
}
