package version

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric is podnet_build_info of one of podnet's programs: always 1, with the versions as labels.
func Metric(component string) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "podnet_build_info", Help: "1; the labels say which version of podnet this is, and of Go.",
		ConstLabels: prometheus.Labels{"component": component, "version": Version, "goversion": runtime.Version()},
	})
	info.Set(1)
	return info
}
