package controllers

import (
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var (
	blocksGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_blocks", Help: "Blocks of each range, by whether they are allocated or free.",
	}, []string{"range", "state"})
	addressesGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_addresses", Help: "Pod addresses of each range, by whether pods have them or can still get them.",
	}, []string{"range", "state"})
	conditionGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_network_condition", Help: "1 for each condition of the PodNetwork that is True, 0 for the others.",
	}, []string{"type"})
	nodesGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_nodes", Help: "Nodes of the cluster, by whether their agent has programmed the network, and responds.",
	}, []string{"ready"})
)

func init() {
	metrics.Registry.MustRegister(blocksGauge, addressesGauge, conditionGauge, nodesGauge)
}

// record sets the metrics to what a PodNetwork's status says.
func record(status *podnetv1alpha1.PodNetworkStatus) {
	blocksGauge.Reset()
	addressesGauge.Reset()
	for _, r := range status.Ranges {
		blocksGauge.WithLabelValues(r.CIDR, "allocated").Set(float64(*r.BlocksAllocated))
		blocksGauge.WithLabelValues(r.CIDR, "free").Set(float64(*r.BlocksFree))
		addressesGauge.WithLabelValues(r.CIDR, "allocated").Set(float64(*r.AddressesAllocated))
		addressesGauge.WithLabelValues(r.CIDR, "free").Set(float64(*r.AddressesFree))
	}
	for _, c := range status.Conditions {
		value := 0.0
		if c.Status == metav1.ConditionTrue {
			value = 1
		}
		conditionGauge.WithLabelValues(c.Type).Set(value)
	}
	nodesGauge.WithLabelValues("true").Set(float64(*status.NodesReady))
	nodesGauge.WithLabelValues("false").Set(float64(*status.NodesTotal - *status.NodesReady))
}
