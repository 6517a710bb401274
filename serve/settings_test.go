package serve

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
)

// The log's level is changed while the server runs; what is not followed is refused by name.
func TestLogSettings(t *testing.T) {
	level := &slog.LevelVar{}
	f := startServer(t, &setup{serve: Options{LogLevel: level}})
	const before = `{"log_error":true,"log_file":"","log_format":"default","log_info":true,"log_verbose_level":0,` +
		`"log_warning":true}` + "\n"
	w := f.ask("GET", "/v2/logging", nil)
	assert.Equal(t, before, w.Body.String())
	w = f.ask("POST", "/v2/logging", []byte(`{"log_verbose_level":1}`))
	assert.Contains(t, w.Body.String(), `"log_verbose_level":1`)
	assert.Equal(t, slog.LevelDebug, level.Level())
	w = f.ask("POST", "/v2/logging", []byte(`{"log_verbose_level":0,"log_info":false,"log_file":null}`))
	assert.Contains(t, w.Body.String(), `"log_info":false,"log_verbose_level":0,"log_warning":true`)
	assert.Equal(t, slog.LevelWarn, level.Level())

	c := pb.NewInferenceClient(f.dial(t))
	is := func(b bool) *pb.LogSettingsRequest_SettingValue {
		return &pb.LogSettingsRequest_SettingValue{
			ParameterChoice: &pb.LogSettingsRequest_SettingValue_BoolParam{BoolParam: b},
		}
	}
	r, err := c.LogSettings(t.Context(), &pb.LogSettingsRequest{Settings: map[string]*pb.LogSettingsRequest_SettingValue{
		"log_error": is(false), "log_warning": is(false), "log_format": {
			ParameterChoice: &pb.LogSettingsRequest_SettingValue_StringParam{StringParam: "default"},
		},
	}})
	require.NoError(t, err)
	assert.False(t, r.GetSettings()["log_error"].GetBoolParam())
	assert.Greater(t, level.Level(), slog.LevelError)
	_, err = c.LogSettings(t.Context(), &pb.LogSettingsRequest{Settings: map[string]*pb.LogSettingsRequest_SettingValue{
		"log_warning": is(true),
	}})
	requireCode(t, codes.InvalidArgument, "log_error cannot be off", err)

	require.Equal(t, 200, f.ask("POST", "/v2/logging",
		[]byte(`{"log_error":true,"log_warning":true,"log_info":true}`)).Code)
	for _, tt := range []struct {
		body    string
		status  int
		message string
	}{
		{`{"log_file":"/tmp/x"}`, 501, "log_file is not followed"},
		{`{"log_format":"ISO8601"}`, 501, "log_format is not followed"},
		{`{"log_warning":false}`, 400, "log_warning cannot be off while log_info is on"},
		{`{"log_info":false,"log_verbose_level":2}`, 400, "log_info cannot be off"},
		{`{"log_verbose_level":-1}`, 400, "log_verbose_level must be a whole number"},
		{`{"log_verbose_level":"1"}`, 400, "log_verbose_level must be a whole number"},
		{`{"log_info":1}`, 400, "log_info must be true or false"},
		{`{"log_everything":true}`, 400, `unknown log setting "log_everything"`},
		{`{"log_info":[]}`, 400, "log_info must be a string, a number"},
	} {
		requireError(t, tt.status, tt.message, f.ask("POST", "/v2/logging", []byte(tt.body)))
		assert.Equal(t, before, f.ask("GET", "/v2/logging", nil).Body.String(), tt.body)
	}

	f = newFixture(t, &setup{serve: Options{AdminToken: "x"}})
	assert.Equal(t, 200, f.ask("GET", "/v2/logging", nil).Code)
	requireError(t, 401, "admin token", f.ask("POST", "/v2/logging", []byte(`{"log_info":false}`)))
	requireError(t, 401, "admin token", f.ask("POST", "/v2/trace/setting", []byte(`{"trace_rate":"2"}`)))
	w = f.ask("POST", "/v2/logging", []byte(`{"log_info":false}`), "Authorization: Bearer x")
	requireError(t, 501, "cannot be changed", w)
}

// The settings of traces say which requests have spans.
func TestTraceSettings(t *testing.T) {
	f := startServer(t, &setup{})
	c := pb.NewInferenceClient(f.dial(t))
	w := f.ask("GET", "/v2/trace/setting", nil)
	assert.Equal(t, `{"trace_count":"-1","trace_level":["OFF"],"trace_mode":"opentelemetry","trace_rate":"1"}`+"\n",
		w.Body.String(), "nothing is exported")
	requireError(t, 400, "does not export traces", f.ask("POST", "/v2/trace/setting", []byte(`{"trace_level":["TIMESTAMPS"]}`)))

	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	otel.SetTracerProvider(provider)
	t.Cleanup(func() { otel.SetTracerProvider(noop.NewTracerProvider()) })
	traced := newFixture(t, &setup{})
	count := func(requests int) int {
		spans.Reset()
		for range requests {
			traced.ask("GET", "/v2/models/bert", nil)
		}
		return len(spans.GetSpans())
	}
	set := func(body string) string {
		w := traced.ask("POST", "/v2/trace/setting", []byte(body))
		require.Equal(t, 200, w.Code, w.Body.String())
		return w.Body.String()
	}
	assert.Equal(t, 6, count(6))
	assert.Contains(t, set(`{"trace_rate":"3"}`), `"trace_level":["TIMESTAMPS"],"trace_mode":"opentelemetry","trace_rate":"3"`)
	assert.Equal(t, 2, count(6))
	set(`{"trace_count":2,"trace_rate":null}`)
	assert.Equal(t, 2, count(6))
	assert.Contains(t, traced.ask("GET", "/v2/models/bert/trace/setting", nil).Body.String(), `"trace_count":"0"`)
	set(`{"trace_count":"-1","trace_level":"OFF"}`)
	assert.Zero(t, count(6))
	set(`{"trace_level":["TIMESTAMPS"]}`)
	assert.Equal(t, 6, count(6))

	r, err := c.TraceSetting(t.Context(), &pb.TraceSettingRequest{
		ModelName: "bert", Settings: map[string]*pb.TraceSettingRequest_SettingValue{},
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"1"}, r.GetSettings()["trace_rate"].GetValue())
	one := func(name string, values ...string) *pb.TraceSettingRequest {
		return &pb.TraceSettingRequest{Settings: map[string]*pb.TraceSettingRequest_SettingValue{name: {Value: values}}}
	}
	model := one("trace_rate", "2")
	model.ModelName = "bert"
	for _, tt := range []struct {
		request *pb.TraceSettingRequest
		code    codes.Code
		message string
	}{
		{one("trace_file", "x"), codes.Unimplemented, "trace_file is not followed"},
		{one("log_frequency", "1"), codes.Unimplemented, "log_frequency is not followed"},
		{one("trace_mode", "triton"), codes.Unimplemented, "trace_mode must be opentelemetry"},
		{one("trace_level", "TENSORS"), codes.Unimplemented, "trace_level must be OFF or TIMESTAMPS"},
		{one("trace_rate", "0"), codes.InvalidArgument, "trace_rate must be a whole number from 1 on"},
		{one("trace_count", "x"), codes.InvalidArgument, "trace_count must be a whole number from -1 on"},
		{one("x", "x"), codes.InvalidArgument, `unknown trace setting "x"`},
		{model, codes.Unimplemented, "a model does not have trace settings of its own"},
		{&pb.TraceSettingRequest{ModelName: "nobody"}, codes.NotFound, "there is no model"},
	} {
		_, err := c.TraceSetting(t.Context(), tt.request)
		requireCode(t, tt.code, tt.message, err)
	}
}
