package serve

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfbert/go/serve/repository"
)

// cached registers what the response cache holds, if there is one.
func (m *metrics) cached(models *repository.Repository) {
	if _, ok := models.Cache(); !ok {
		return
	}
	gauge := func(name, help string, value func(repository.CacheState) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s, _ := models.Cache()
			return value(s)
		}))
	}
	gauge("tfbert_cache_windows", "Windows in the response cache.",
		func(s repository.CacheState) float64 { return float64(s.Entries) })
	gauge("tfbert_cache_bytes", "Memory of the response cache that is in use.",
		func(s repository.CacheState) float64 { return float64(s.Bytes) })
	gauge("tfbert_cache_limit_bytes", "Memory that the response cache may use.",
		func(s repository.CacheState) float64 { return float64(s.Most) })
}
