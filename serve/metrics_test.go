package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// figures returns the server's metrics by name.
func (f *fixture) figures(t testing.TB) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(f.ask("GET", "/metrics", nil).Body)
	require.NoError(t, err)
	return families
}

// find returns the metrics of a family that have labels, each as "name=value".
func find(f *dto.MetricFamily, labels ...string) (found []*dto.Metric) {
	for _, m := range f.GetMetric() {
		var have []string
		for _, l := range m.Label {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
			found = append(found, m)
		}
	}
	return found
}

// one returns the value of the only such metric, or the number of values of a histogram.
func one(t testing.TB, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	found := find(families[name], labels...)
	require.Len(t, found, 1, "%s %v", name, labels)
	m := found[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() +
		float64(m.GetHistogram().GetSampleCount())
}

func TestModelLabels(t *testing.T) {
	f := startServer(t, &setup{})
	for range 2 {
		require.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	}
	require.Equal(t, 200, f.ask("POST", "/v1/models/bert:predict", []byte(predictRows)).Code)
	require.Equal(t, 400, f.ask("POST", "/v1/answer", []byte(`{"question":"","context":"w1"}`)).Code)
	_, err := pb.NewInferenceClient(f.dial(t)).ModelInfer(t.Context(), textRequest(1))
	require.NoError(t, err)

	figures := f.figures(t)
	const seconds = "tfbert_request_duration_seconds"
	assert.EqualValues(t, 3, one(t, figures, seconds, "verb=POST /v1/answer", "model=bert_qa"))
	assert.EqualValues(t, 1, one(t, figures, seconds, "verb=POST /v1/models/{model}", "model=bert"))
	assert.EqualValues(t, 1, one(t, figures, seconds, "verb=/inference.GRPCInferenceService/ModelInfer", "model=bert_qa"))
	const tf = ":tensorflow:serving:"
	assert.EqualValues(t, 3, one(t, figures, tf+"request_count", "model_name=bert_qa", "status=OK"))
	assert.EqualValues(t, 1, one(t, figures, tf+"request_count", "model_name=bert_qa", "status=INVALID_ARGUMENT"))
	assert.EqualValues(t, 1, one(t, figures, tf+"request_count", "model_name=bert", "status=OK"))
	assert.EqualValues(t, 2, one(t, figures, tf+"request_latency", "model_name=bert_qa", "API=predict", "entrypoint=REST"))
	assert.EqualValues(t, 1, one(t, figures, tf+"request_latency", "model_name=bert_qa", "API=Predict", "entrypoint=GRPC"))
	assert.EqualValues(t, 4, one(t, figures, tf+"runtime_latency", "model_name=bert", "runtime=TF1"))
	assert.EqualValues(t, 4, one(t, figures, tf+"batching_session:queuing_latency"))
	assert.Len(t, find(figures[tf+"request_latency"])[0].GetHistogram().Bucket, 34, "as TensorFlow Serving has them")
}

// Whatever clients name, only what the server knows becomes a label.
func TestMetricsAreBounded(t *testing.T) {
	f := startServer(t, &setup{serve: Options{APIKeys: []APIKey{apiKey("alice", "one")}}})
	conn := f.dial(t)
	ask := func(from, to int) int {
		for i := from; i < to; i++ {
			name := fmt.Sprintf("unknown%d", i)
			body := []byte(`{"model":"` + name + `","question":"find w1","context":"w1","inputs":{"question":"","context":""}}`)
			for _, path := range []string{
				"/v1/answer", "/models/" + name, "/v2/models/" + name + "/infer", "/v1/models/" + name + ":predict",
				"/v1/models/bert:" + name, "/v1/models/bert/labels/" + name + ":predict", "/" + name,
				"/v2/models/" + name + "/config",
			} {
				f.ask("POST", path, body, "Authorization: Bearer one")
				f.ask("GET", path, nil, "Authorization: Bearer "+name)
			}
			f.ask("BREW", "/v1/answer", body)
			_, err := pb.NewInferenceClient(conn).ModelInfer(withKey(t.Context(), "one"), &pb.ModelInferRequest{ModelName: name})
			require.Error(t, err)
			for _, method := range []string{"/inference.GRPCInferenceService/" + name, "/" + name + "/x"} {
				for _, ctx := range []context.Context{t.Context(), withKey(t.Context(), "one")} {
					require.Error(t, conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}))
				}
			}
		}
		text := f.ask("GET", "/metrics", nil).Body.String()
		assert.NotContains(t, text, "unknown1")
		assert.NotContains(t, text, "BREW")
		return strings.Count(text, "\ntfbert_") + strings.Count(text, "\n:tensorflow") + strings.Count(text, "\nnv_")
	}
	first := ask(0, 3)
	assert.Equal(t, first, ask(3, 30))
}

func TestRefusals(t *testing.T) {
	release, begun := make(chan struct{}), make(chan struct{}, 100)
	s := &setup{
		serve: Options{ClientRequests: 4},
		repo:  repository.Options{Batching: batch.Options{MaxQueue: 1, MaxSize: 1}},
	}
	ready := false
	s.models.OnBatch = func(context.Context, repository.Source, []squad.Feature) error {
		if ready {
			begun <- struct{}{}
			<-release
		}
		return nil
	}
	f := newFixture(t, s)
	ready = true
	done := make(chan int)
	for range 2 { // one runs, one waits
		go func() { done <- f.ask("POST", "/v1/answer", []byte(question(1))).Code }()
	}
	<-begun
	bert := f.figures(t)
	assert.LessOrEqual(t, one(t, bert, "tfbert_running_requests", "model=bert_qa"), 2.0)
	assert.Zero(t, one(t, bert, "tfbert_running_requests", "model=bert"))
	eventually(t, "one waits", func() bool { return one(t, f.figures(t), "tfbert_queue_windows", "model=bert") == 1 })
	assert.EqualValues(t, 2, one(t, f.figures(t), "tfbert_running_requests", "model=bert_qa"))
	require.Equal(t, 429, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	f.ask("POST", "/v1/answer", []byte(`{"requests":[`+question(1)+`,`+question(2)+`]}`)) // refused as a whole
	f.questions.Most = 2
	require.Equal(t, 429, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	f.host.Guard.SetKeys([]APIKey{apiKey("alice", "one")})
	require.Equal(t, 401, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	f.host.Guard.SetKeys(nil)
	close(release)
	for range 2 {
		require.Equal(t, 200, <-done)
	}
	figures := f.figures(t)
	assert.EqualValues(t, 2, one(t, figures, "tfbert_refused_requests_total", "reason=queue"))
	assert.EqualValues(t, 1, one(t, figures, "tfbert_refused_requests_total", "reason=requests"))
	assert.EqualValues(t, 1, one(t, figures, "tfbert_refused_requests_total", "reason=credentials"))
	assert.Zero(t, one(t, figures, "tfbert_running_requests", "model=bert_qa"))

	other := f.ask("POST", "/v1/answer", nil, "Origin: https://other.example", "Sec-Fetch-Site: cross-site")
	require.Equal(t, 403, other.Code)
	f.stages.leave()
	require.Equal(t, 503, f.ask("GET", "/readyz", nil).Code)
	figures = f.figures(t)
	assert.EqualValues(t, 1, one(t, figures, "tfbert_refused_requests_total", "reason=site"))
	assert.EqualValues(t, 1, one(t, figures, "tfbert_refused_requests_total", "reason=not_ready"))
}

func TestLoadMetrics(t *testing.T) {
	s := &setup{repo: repository.Options{Control: repository.ControlExplicit}}
	var fail error
	s.models.OnLoad = func(context.Context, repository.Source) error { return fail }
	f := newFixture(t, s)
	figures := f.figures(t)
	assert.EqualValues(t, 1, one(t, figures, "tfbert_model_load_seconds", "model=bert"))
	assert.Zero(t, one(t, figures, "tfbert_model_load_failures_total", "model=bert"))
	assert.Positive(t, one(t, figures, "nv_model_load_duration_secs", "model=bert", "version=1"))
	fail = errors.New("told to")
	require.Equal(t, 500, f.ask("POST", "/v2/repository/models/bert/load", nil).Code)
	require.Equal(t, 404, f.ask("POST", "/v2/repository/models/unknown/load", nil).Code)
	figures = f.figures(t)
	assert.EqualValues(t, 1, one(t, figures, "tfbert_model_load_failures_total", "model=bert"))
	assert.Empty(t, find(figures["tfbert_model_load_failures_total"], "model=unknown"))
}

// recordSpans makes the tests' server record its traces.
func recordSpans(t *testing.T) *tracetest.SpanRecorder {
	recorder := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(recorder)))
	t.Cleanup(func() { otel.SetTracerProvider(noop.NewTracerProvider()) })
	return recorder
}

// A request has a span with one below it for each stage, and probes have none.
func TestSpans(t *testing.T) {
	recorder := recordSpans(t)
	f := startServer(t, &setup{serve: Options{HealthRoute: "/health"}})
	c := pb.NewInferenceClient(f.dial(t))
	for _, path := range []string{
		"/healthz", "/readyz", "/ping", "/health", "/metrics", "/monitoring/prometheus/metrics", "/v2/health/live",
		"/v2/health/ready", "/v2/models/bert/ready", "/v2/models/bert/versions/1/ready",
	} {
		require.Equal(t, 200, f.ask("GET", path, nil).Code, path)
	}
	_, err := c.ServerReady(t.Context(), &pb.ServerReadyRequest{})
	require.NoError(t, err)
	_, err = healthpb.NewHealthClient(f.dial(t)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Empty(t, recorder.Ended(), "probes have no spans")

	require.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	_, err = c.ModelInfer(t.Context(), tensorRequest(false, 1, 2))
	require.NoError(t, err)
	eventually(t, "both spans end", func() bool { return len(recorder.Ended()) == 10 })
	spans := map[string]trace.ReadOnlySpan{}
	children := map[string][]string{}
	for _, s := range recorder.Ended() {
		spans[s.SpanContext().SpanID().String()] = s
	}
	for _, s := range recorder.Ended() {
		if parent := spans[s.Parent().SpanID().String()]; parent != nil {
			children[parent.Name()] = append(children[parent.Name()], s.Name())
			assert.False(t, s.StartTime().Before(parent.StartTime()), s.Name())
			assert.False(t, s.EndTime().After(parent.EndTime()), s.Name())
			assert.False(t, s.EndTime().Before(s.StartTime()), s.Name())
		}
	}
	stages := []string{"tokenize", "queue", "batch", "decode"}
	assert.Equal(t, map[string][]string{
		"POST /v1/answer": stages, "inference.GRPCInferenceService/ModelInfer": stages,
	}, children)
}

// A scraper that asks for OpenMetrics gets the ids of traces, and the names that dashboards know.
func TestOpenMetrics(t *testing.T) {
	recorder := recordSpans(t)
	f := newFixture(t, &setup{})
	require.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	const accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
	w := f.ask("GET", "/metrics", nil, accept)
	require.Equal(t, 200, w.Code)
	assert.Contains(t, w.Header().Get("Content-Type"), "application/openmetrics-text")
	text := w.Body.String()
	assert.True(t, strings.HasSuffix(text, "# EOF\n"))
	require.NotEmpty(t, recorder.Ended())
	id := recorder.Ended()[0].SpanContext().TraceID().String()
	assert.Regexp(t, `tfbert_request_duration_seconds_bucket\{model="bert_qa",verb="POST /v1/answer",le="[^"]*"\} 1 `+
		`# \{trace_id="`+id+`"\} `, text)
	for _, name := range []string{
		`nv_inference_request_success{model="bert_qa",version="1"} 1.0`, `nv_inference_count{model="bert",version="1"} 0.0`,
		`:tensorflow:serving:request_count{model_name="bert_qa",status="OK"} 1.0`,
		`tfbert_requests_total{status="200",verb="POST /v1/answer"} 1.0`,
	} {
		assert.Contains(t, text, "\n"+name+"\n")
	}
	plain := f.ask("GET", "/metrics", nil)
	assert.Contains(t, plain.Header().Get("Content-Type"), "text/plain")
	assert.Contains(t, plain.Body.String(), "# TYPE nv_inference_request_success counter")
	assert.NotContains(t, plain.Body.String(), "trace_id")
}
