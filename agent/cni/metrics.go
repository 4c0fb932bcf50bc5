package cni

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/podnet/podnet/agent/cni/protocol"
)

var (
	reclaimed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "podnet_agent_addresses_reclaimed_total",
		Help: "Addresses that were taken back from pods that were gone without a CNI DEL.",
	})
	verbSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "podnet_agent_cni_seconds",
		Help:    "Time to serve a request of the container runtime, by verb, whether it succeeded or not. An ADD may wait for an address.",
		Buckets: prometheus.ExponentialBuckets(0.002, 2, 15),
	}, []string{"verb"})
	verbErrors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podnet_agent_cni_errors_total",
		Help: "Requests of the container runtime that failed, by verb. STATUS fails until the node can carry pods.",
	}, []string{"verb"})
)

func init() {
	metrics.Registry.MustRegister(reclaimed, verbSeconds, verbErrors)
	for _, verb := range []protocol.Verb{protocol.Add, protocol.Del, protocol.Check, protocol.GC, protocol.Status} {
		verbErrors.WithLabelValues(string(verb))
	}
}
