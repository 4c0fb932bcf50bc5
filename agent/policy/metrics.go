package policy

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	passSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "podnet_agent_policy_pass_seconds",
		Help:    "Time to recompute network policy and to change the node's tables, in seconds.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	propagationSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "podnet_agent_policy_propagation_seconds",
		Help:    "Time from hearing of a change that network policy goes by until the kernel enforces it, in seconds.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	drift = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "podnet_agent_policy_drift_total",
		Help: "Replacements of the node's policy tables because others had changed them.",
	})
	failures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "podnet_agent_policy_failures_total",
		Help: "Changes of the node's policy tables that the kernel refused. All of the tables are replaced after one.",
	})
)

func init() {
	metrics.Registry.MustRegister(passSeconds, propagationSeconds, drift, failures)
}
