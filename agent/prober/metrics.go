package prober

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	probesSent = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podnet_agent_probes_sent_total",
		Help: "Probes that were sent, by path (routed or overlay).",
	}, []string{"path"})
	probesAnswered = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podnet_agent_probes_answered_total",
		Help: "Probes that came back, by path (routed or overlay).",
	}, []string{"path"})
)

func init() {
	metrics.Registry.MustRegister(probesSent, probesAnswered)
}
