package apply

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
	drift = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podnet_agent_drift_total",
		Help: "Objects in the node's kernel that others had changed and passes put right, by kind.",
	}, []string{"kind"})
	driftPasses = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "podnet_agent_drift_passes_total",
		Help: "Passes that notifications of the kernel asked for.",
	})
)

func init() {
	metrics.Registry.MustRegister(passSeconds, operations, drift, driftPasses)
}
