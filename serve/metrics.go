package serve

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// metrics are the server's figures for Prometheus: a family of its own, and the counters by which
// dashboards for Triton show a model's requests.
type metrics struct {
	registry *prometheus.Registry

	requests *prometheus.CounterVec   // verb, status
	seconds  *prometheus.HistogramVec // verb, model
	refused  *prometheus.CounterVec   // reason

	loadSeconds *prometheus.HistogramVec // model
	loadFailed  *prometheus.CounterVec   // model

	windows *prometheus.HistogramVec // of a batch; model, version
	tokens  *prometheus.CounterVec
	padded  *prometheus.CounterVec
	waited  *prometheus.HistogramVec
	ran     *prometheus.HistogramVec
	failed  *prometheus.CounterVec

	tfRequests *prometheus.CounterVec   // model_name, status
	tfLatency  *prometheus.HistogramVec // model_name, API, entrypoint
	tfRuntime  *prometheus.HistogramVec // model_name, API, runtime
	tfQueuing  prometheus.Histogram
}

func newMetrics(host *transport.Host) *metrics {
	latency := prometheus.ExponentialBuckets(0.0005, 2, 17) // to 33 s
	model := []string{"model", "version"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("tfbert_requests_total", "Requests by verb and by status, of HTTP or gRPC.", "verb", "status"),
		seconds: histogram("tfbert_request_duration_seconds",
			"Time from a request's header to the end of its answer; the model is empty if none was asked.",
			latency, "verb", "model"),
		refused: counter("tfbert_refused_requests_total", "Requests that were refused although they may be valid.", "reason"),
		loadSeconds: histogram("tfbert_model_load_seconds", "Time of a load that succeeded, of all versions of a model.",
			prometheus.ExponentialBuckets(0.05, 2, 14), "model"), // to 410 s
		loadFailed: counter("tfbert_model_load_failures_total", "Loads that failed.", "model"),
		windows:    histogram("tfbert_batch_windows", "Windows of a batch.", []float64{1, 2, 4, 8, 16, 32, 64}, model...),
		tokens:     counter("tfbert_tokens_total", "Word pieces that were run, without padding.", model...),
		padded:     counter("tfbert_padded_tokens_total", "Word pieces that were run, with padding.", model...),
		waited: histogram("tfbert_batch_queue_seconds",
			"Time that the longest waiting window of a batch waited.", latency, model...),
		ran:    histogram("tfbert_batch_compute_seconds", "Time of a batch in the model.", latency, model...),
		failed: counter("tfbert_batch_failures_total", "Batches at which the model failed.", model...),

		tfRequests: counter(tfServing+"request_count", "Requests that asked a model.", "model_name", "status"),
		tfLatency: histogram(tfServing+"request_latency", "Time of requests that succeeded, in microseconds.",
			tfBuckets, "model_name", "API", "entrypoint"),
		tfRuntime: histogram(tfServing+"runtime_latency", "Time of batches in the model, in microseconds.",
			tfBuckets, "model_name", "API", "runtime"),
		tfQueuing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: tfServing + "batching_session:queuing_latency",
			Help: "Time that the longest waiting window of a batch waited, in microseconds.", Buckets: tfBuckets,
		}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.refused, m.loadSeconds, m.loadFailed,
		m.tfRequests, m.tfLatency, m.tfRuntime, m.tfQueuing, m.windows, m.tokens, m.padded, m.waited, m.ran, m.failed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), modelCollector{host})
	return m
}

// tfServing begins the names of TensorFlow Serving's metrics.
const tfServing = ":tensorflow:serving:"

// tfBuckets are TensorFlow Serving's.
var tfBuckets = prometheus.ExponentialBuckets(10, 1.8, 33)

func (m *metrics) handler() http.Handler { return exposition(m.registry) }

// ended counts a request, or one of several that came together.
func (m *metrics) ended(ctx context.Context, verb, status string, took time.Duration) {
	m.requests.WithLabelValues(verb, status).Inc()
	observe(ctx, m.seconds.WithLabelValues(verb, repository.ModelOf(ctx)), took.Seconds())
}

// request counts a request that has ended.
func (m *metrics) request(ctx context.Context, verb, status string, took time.Duration, err error) {
	m.ended(ctx, verb, status, took)
	m.refusal(err)
	model := repository.ModelOf(ctx)
	if model == "" {
		return
	}
	api, entrypoint := "predict", "REST" // as TensorFlow Serving spells them
	if strings.HasPrefix(verb, "/") {
		api, entrypoint = "Predict", "GRPC"
	}
	code := codes.OK
	if err != nil {
		code = repository.AsError(err).Code
	} else {
		m.tfLatency.WithLabelValues(model, api, entrypoint).Observe(1e6 * took.Seconds())
	}
	m.tfRequests.WithLabelValues(model, codeNames[code]).Inc()
}

// codeNames are the names of gRPC's codes in protobuf, which TensorFlow Serving has in its metrics.
var codeNames = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE",
	codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

// observe adds a value of a request to a histogram, with the id of its trace if there is one.
func observe(ctx context.Context, o prometheus.Observer, value float64) {
	span := trace.SpanContextFromContext(ctx)
	if with, ok := o.(prometheus.ExemplarObserver); ok && span.IsSampled() {
		with.ObserveWithExemplar(value, prometheus.Labels{"trace_id": span.TraceID().String()})
		return
	}
	o.Observe(value)
}

// refusal counts an error of a request, or of one of several that came together, if it is a refusal.
func (m *metrics) refusal(err error) {
	if err == nil {
		return
	}
	e := repository.AsError(err)
	reason := e.Reason
	if reason == "" {
		reason = map[codes.Code]string{
			codes.Unauthenticated: "credentials", codes.PermissionDenied: "site", codes.Unavailable: "not_ready",
		}[e.Code]
	}
	if reason != "" {
		m.refused.WithLabelValues(reason).Inc()
	}
}

// load counts a load of a model.
func (m *metrics) load(model string, took time.Duration, err error) {
	if err != nil {
		m.loadFailed.WithLabelValues(model).Inc()
		return
	}
	m.loadFailed.WithLabelValues(model) // so that its first failure is an increase
	m.loadSeconds.WithLabelValues(model).Observe(took.Seconds())
}

// batch counts a batch of a model.
func (m *metrics) batch(model *repository.Model, b batch.Batch) {
	labels := []string{model.Name(), strconv.FormatInt(model.Version(), 10)}
	m.windows.WithLabelValues(labels...).Observe(float64(b.Windows))
	m.tokens.WithLabelValues(labels...).Add(float64(b.Tokens))
	m.padded.WithLabelValues(labels...).Add(float64(b.Padded))
	m.waited.WithLabelValues(labels...).Observe(b.Queue.Seconds())
	m.ran.WithLabelValues(labels...).Observe(b.Compute.Seconds())
	m.tfQueuing.Observe(1e6 * b.Queue.Seconds())
	m.tfRuntime.WithLabelValues(model.Name(), "Predict", "TF1").Observe(1e6 * b.Compute.Seconds())
	if b.Err != nil {
		m.failed.WithLabelValues(labels...).Inc()
	}
}

// modelCollector reads what the models count of themselves.
type modelCollector struct{ host *transport.Host }

// received registers what the server counts of requests that are not complete, of the memory of those that are, and of
// connections.
func (m *metrics) received(gate *intake.Gate, budget *intake.Budget, conns *intake.Conns) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.registry.MustRegister(
		gauge("tfbert_connections", "Open connections.", func() float64 { return float64(conns.Len()) }),
		gauge("tfbert_unfinished_requests", "Requests that are being received.",
			func() float64 { return float64(gate.State().Messages) }),
		gauge("tfbert_unfinished_bytes", "Memory of the requests that are being received.",
			func() float64 { return float64(gate.State().Bytes) }),
		gauge("tfbert_request_memory_bytes", "Memory that complete requests have taken.",
			func() float64 { return float64(budget.Used()) }),
		gauge("tfbert_waiting_request_bytes", "Complete requests that wait for memory.",
			func() float64 { return float64(budget.Waiting()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tfbert_unfinished_dropped_total", Help: "Requests that came too slowly or held too much.",
		}, func() float64 { return float64(gate.State().Dropped) }),
	)
}

// figure is one of them; those of the queue are of the model itself.
type figure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*repository.Model, repository.Snapshot) float64
}

func newFigure(
	name, help string, kind prometheus.ValueType, value func(*repository.Model, repository.Snapshot) float64,
) figure {
	return figure{prometheus.NewDesc(name, help, []string{"model", "version"}, nil), kind, value}
}

func total(name, help string, of func(repository.Snapshot) repository.Total) figure {
	return count(name, help, func(s repository.Snapshot) int { return int(of(s).Time.Microseconds()) })
}

func count(name, help string, of func(repository.Snapshot) int) figure {
	return newFigure(name, help, prometheus.CounterValue, func(_ *repository.Model, s repository.Snapshot) float64 {
		return float64(of(s))
	})
}

func gauge(name, help string, of func(*batch.Batcher) int) figure {
	return newFigure(name, help, prometheus.GaugeValue, func(m *repository.Model, _ repository.Snapshot) float64 {
		return float64(of(m.Batcher()))
	})
}

func instanceGauge(name, help string, of func(all, working int) int) figure {
	return newFigure(name, help, prometheus.GaugeValue, func(m *repository.Model, _ repository.Snapshot) float64 {
		return float64(of(m.Instances()))
	})
}

// figures of models and of their text models. The names that begin with nv_ are Triton's.
var figures = []figure{
	count("nv_inference_request_success", "Requests that succeeded.",
		func(s repository.Snapshot) int { return s.Success.Count }),
	count("nv_inference_request_failure", "Requests that failed.",
		func(s repository.Snapshot) int { return s.Fail.Count }),
	newFigure("tfbert_running_requests", "Requests that a model answers now; each question of a request is one.",
		prometheus.GaugeValue, func(_ *repository.Model, s repository.Snapshot) float64 { return float64(s.Running) }),
	count("nv_inference_count", "Rows of the requests that succeeded.",
		func(s repository.Snapshot) int { return s.Rows }),
	count("nv_inference_exec_count", "Batches that the model ran.",
		func(s repository.Snapshot) int { return s.Executions() }),
	total("nv_inference_request_duration_us", "Time of the requests that succeeded.",
		func(s repository.Snapshot) repository.Total { return s.Success }),
	total("nv_inference_queue_duration_us", "Time that requests waited.",
		func(s repository.Snapshot) repository.Total { return s.Queue }),
	total("nv_inference_compute_input_duration_us", "Time to make inputs.",
		func(s repository.Snapshot) repository.Total { return s.Input }),
	total("nv_inference_compute_infer_duration_us", "Time in the model.",
		func(s repository.Snapshot) repository.Total { return s.Compute }),
	total("nv_inference_compute_output_duration_us", "Time to make outputs.",
		func(s repository.Snapshot) repository.Total { return s.Outputs }),
	count("nv_cache_num_hits_per_model", "Requests whose windows were all in the response cache.",
		func(s repository.Snapshot) int { return s.CacheHit.Count }),
	count("nv_cache_num_misses_per_model", "Other requests that used the response cache.",
		func(s repository.Snapshot) int { return s.CacheMiss.Count }),
	total("nv_cache_hit_duration_per_model", "Time of the response cache for its hits, in microseconds.",
		func(s repository.Snapshot) repository.Total { return s.CacheHit }),
	total("nv_cache_miss_duration_per_model", "Time of the response cache for its misses, in microseconds.",
		func(s repository.Snapshot) repository.Total { return s.CacheMiss }),
}

// queueFigures are of models alone, whose batcher their text models share.
var queueFigures = []figure{
	newFigure("nv_model_load_duration_secs", "Time of the load.", prometheus.GaugeValue,
		func(m *repository.Model, _ repository.Snapshot) float64 { return m.LoadTime().Seconds() }),
	gauge("tfbert_queue_windows", "Windows that wait.", (*batch.Batcher).Waiting),
	gauge("tfbert_running_batches", "Batches that the model runs now.", (*batch.Batcher).Running),
	instanceGauge("tfbert_instances", "Instances of the model, each on a device of its own.",
		func(all, _ int) int { return all }),
	instanceGauge("tfbert_failed_instances", "Instances that failed and were taken out.",
		func(all, working int) int { return all - working }),
}

// readyDesc is of the server.
var readyDesc = prometheus.NewDesc("tfbert_ready", "1 if the server is ready to answer.", nil, nil)

func (modelCollector) Describe(to chan<- *prometheus.Desc) {
	to <- readyDesc
	for _, f := range figures {
		to <- f.desc
	}
	for _, f := range queueFigures {
		to <- f.desc
	}
}

func (c modelCollector) Collect(to chan<- prometheus.Metric) {
	ready := 0.0
	if c.host.Ready() == nil {
		ready = 1
	}
	to <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, ready)
	for _, m := range c.host.Models.Models() {
		version := strconv.FormatInt(m.Version(), 10)
		for _, servable := range m.Servables() {
			snapshot := servable.Statistics()
			for _, f := range figures {
				to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(m, snapshot), servable.Name(), version)
			}
		}
		for _, f := range queueFigures {
			to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(m, repository.Snapshot{}), m.Name(), version)
		}
		m.Release()
	}
}
