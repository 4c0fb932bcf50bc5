package cni

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var reclaimed = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "podnet_agent_addresses_reclaimed_total",
	Help: "Addresses that were taken back from pods that were gone without a CNI DEL.",
})

func init() {
	metrics.Registry.MustRegister(reclaimed)
}
