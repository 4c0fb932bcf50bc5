package controllers

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var (
	blocksGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_blocks", Help: "Blocks of each range, by whether they are allocated or free.",
	}, []string{"range", "state"})
	nodesGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_nodes", Help: "Nodes of the cluster, by whether their agent has programmed the network.",
	}, []string{"ready"})
)

func init() {
	metrics.Registry.MustRegister(blocksGauge, nodesGauge)
}

// record sets the metrics to what a PodNetwork's status says.
func record(status *podnetv1alpha1.PodNetworkStatus) {
	blocksGauge.Reset()
	for _, r := range status.Ranges {
		blocksGauge.WithLabelValues(r.CIDR, "allocated").Set(float64(*r.BlocksAllocated))
		blocksGauge.WithLabelValues(r.CIDR, "free").Set(float64(*r.BlocksFree))
	}
	nodesGauge.WithLabelValues("true").Set(float64(*status.NodesReady))
	nodesGauge.WithLabelValues("false").Set(float64(*status.NodesTotal - *status.NodesReady))
}
