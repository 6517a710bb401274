package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tfbert/go/squad"
)

// batchMetrics count a run under the names of Apache Beam's RunInference, so that its dashboards show it.
type batchMetrics struct {
	loaded                                time.Duration
	inferences, batches, micros, failures atomic.Int64
}

func newBatchMetrics(loaded time.Duration) *batchMetrics { return &batchMetrics{loaded: loaded} }

func (m *batchMetrics) observe(p squad.Predictor) squad.Predictor { return &measured{p, m} }

type measured struct {
	squad.Predictor
	metrics *batchMetrics
}

func (p *measured) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	began := time.Now()
	results, err := p.Predictor.Predict(ctx, features)
	if err != nil {
		p.metrics.failures.Add(1)
		return nil, err
	}
	p.metrics.inferences.Add(int64(len(features)))
	p.metrics.batches.Add(1)
	p.metrics.micros.Add(time.Since(began).Microseconds())
	return results, nil
}

// values returns the metrics by name. Those of latency and size are averages.
func (m *batchMetrics) values() map[string]any {
	batches := max(1, m.batches.Load())
	return map[string]any{
		"num_inferences":                     m.inferences.Load(),
		"inference_request_batch_size":       float64(m.inferences.Load()) / float64(batches),
		"inference_batch_latency_micro_secs": m.micros.Load() / batches,
		"load_model_latency_milli_secs":      m.loaded.Milliseconds(),
		"failed_batches_counter":             m.failures.Load(),
	}
}

// serve serves the metrics until stop is called.
func (m *batchMetrics) serve(port int) (stop func() error, err error) {
	registry := prometheus.NewRegistry()
	for name := range m.values() {
		registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: name, Help: "As Apache Beam's RunInference counts it."},
			func() float64 {
				v, _ := strconv.ParseFloat(fmt.Sprint(m.values()[name]), 64)
				return v
			}))
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), ReadHeaderTimeout: 10 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	return func() error {
		err := server.Close()
		if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return err
	}, nil
}
