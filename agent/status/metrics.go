package status

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var addressesGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "podnet_agent_addresses",
	Help: "The node's pod addresses of each family: those that pods have, those of its Active blocks in total, those that lie in none of its blocks, and the pods that wait for one.",
}, []string{"family", "state"})

func init() {
	metrics.Registry.MustRegister(addressesGauge)
}

// record sets the metrics to what a status says.
func record(st *podnetv1alpha1.NodeNetworkStatus) {
	addressesGauge.Reset()
	for _, a := range st.Addresses {
		addressesGauge.WithLabelValues(string(a.Family), "total").Set(float64(*a.Total))
		addressesGauge.WithLabelValues(string(a.Family), "used").Set(float64(*a.Used))
		addressesGauge.WithLabelValues(string(a.Family), "waiting").Set(float64(*a.Waiting))
		addressesGauge.WithLabelValues(string(a.Family), "unserved").Set(float64(*a.Unserved))
	}
}
