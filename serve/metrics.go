package serve

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

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
	seconds  *prometheus.HistogramVec // verb

	windows *prometheus.HistogramVec // of a batch; model, version
	tokens  *prometheus.CounterVec
	padded  *prometheus.CounterVec
	waited  *prometheus.HistogramVec
	ran     *prometheus.HistogramVec
	failed  *prometheus.CounterVec
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
			"Time from a request's header to the end of its answer.", latency, "verb"),
		windows: histogram("tfbert_batch_windows", "Windows of a batch.", []float64{1, 2, 4, 8, 16, 32, 64}, model...),
		tokens:  counter("tfbert_tokens_total", "Word pieces that were run, without padding.", model...),
		padded:  counter("tfbert_padded_tokens_total", "Word pieces that were run, with padding.", model...),
		waited: histogram("tfbert_batch_queue_seconds",
			"Time that the longest waiting window of a batch waited.", latency, model...),
		ran:    histogram("tfbert_batch_compute_seconds", "Time of a batch in the model.", latency, model...),
		failed: counter("tfbert_batch_failures_total", "Batches at which the model failed.", model...),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.windows, m.tokens, m.padded, m.waited, m.ran, m.failed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), modelCollector{host})
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) request(verb, status string, took time.Duration) {
	m.requests.WithLabelValues(verb, status).Inc()
	m.seconds.WithLabelValues(verb).Observe(took.Seconds())
}

// batch counts a batch of a model.
func (m *metrics) batch(model *repository.Model, b batch.Batch) {
	labels := []string{model.Name(), strconv.FormatInt(model.Version(), 10)}
	m.windows.WithLabelValues(labels...).Observe(float64(b.Windows))
	m.tokens.WithLabelValues(labels...).Add(float64(b.Tokens))
	m.padded.WithLabelValues(labels...).Add(float64(b.Padded))
	m.waited.WithLabelValues(labels...).Observe(b.Queue.Seconds())
	m.ran.WithLabelValues(labels...).Observe(b.Compute.Seconds())
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
