package serve

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// exposition returns the handler of metrics. A scraper that asks for OpenMetrics, as Prometheus does, gets exemplars.
func exposition(g prometheus.Gatherer) http.Handler {
	text := promhttp.HandlerFor(g, promhttp.HandlerOpts{})
	open := promhttp.HandlerFor(keptNames{g}, promhttp.HandlerOpts{EnableOpenMetrics: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
		if format.FormatType() == expfmt.TypeOpenMetrics {
			open.ServeHTTP(w, r)
			return
		}
		text.ServeHTTP(w, r)
	})
}

// keptNames gathers counters for OpenMetrics, where a counter's name ends with _total: client_golang would add that to
// names of Triton and TensorFlow Serving, by which dashboards find them. They have no type there.
type keptNames struct{ prometheus.Gatherer }

func (k keptNames) Gather() ([]*dto.MetricFamily, error) {
	families, err := k.Gatherer.Gather()
	for _, f := range families {
		if f.GetType() != dto.MetricType_COUNTER || strings.HasSuffix(f.GetName(), "_total") {
			continue
		}
		f.Type = dto.MetricType_UNTYPED.Enum()
		for _, m := range f.Metric {
			m.Untyped, m.Counter = &dto.Untyped{Value: m.GetCounter().Value}, nil
		}
	}
	return families, err
}
