package sync

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	passSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "podnet_agent_pass_seconds",
		Help:    "Duration of a pass over the node's kernel, in seconds.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
	})
	operations = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "podnet_agent_operations_total",
		Help: "Operations executed on the node's kernel by passes.",
	})
)

func init() {
	metrics.Registry.MustRegister(passSeconds, operations)
}
