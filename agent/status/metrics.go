package status

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

var (
	addressesGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_agent_addresses",
		Help: "The node's pod addresses of each family: those that pods have, those of its Active blocks in total, those that lie in none of its blocks, and the pods that wait for one.",
	}, []string{"family", "state"})
	pathsGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_agent_paths",
		Help: "Blocks of other nodes, by the path that is asked for (Auto, Routed or Overlay) and the one that is taken (routed, overlay or down).",
	}, []string{"wanted", "actual"})
	unreachableGauge = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "podnet_agent_paths_unreachable",
		Help: "Blocks of other nodes to which there is no path, or by none of which probes have come back for some seconds.",
	})
	mtuGauge = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "podnet_agent_mtu_bytes",
		Help: "The largest IP packet that new pods of the node send, in bytes.",
	})
	findingsGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "podnet_agent_findings",
		Help: "What is on the node in the network's way, by type.",
	}, []string{"type"})
	programmedGauge = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "podnet_agent_programmed",
		Help: "1 where the node's kernel is as the objects ask, or carries pods though something else could not be done; 0 where not.",
	})
)

func init() {
	metrics.Registry.MustRegister(addressesGauge, pathsGauge, unreachableGauge, mtuGauge, findingsGauge, programmedGauge)
}

// recordReport sets the metrics to what a pass found. They do not wait for the API server.
func recordReport(r Report) {
	type kind struct{ wanted, actual string }
	counts := map[kind]int{}
	unreachable := 0
	for _, p := range r.Plan.Paths {
		wanted := p.Want
		if wanted == "" {
			wanted = model.ModeAuto
		}
		counts[kind{string(wanted), string(p.Path)}]++
		if isUnreachable(p) {
			unreachable++
		}
	}
	for _, wanted := range []model.Mode{model.ModeAuto, model.ModeRouted, model.ModeOverlay} {
		for _, actual := range []model.Path{model.PathRouted, model.PathOverlay, model.PathDown} {
			pathsGauge.WithLabelValues(string(wanted), string(actual)).Set(float64(counts[kind{string(wanted), string(actual)}]))
		}
	}
	unreachableGauge.Set(float64(unreachable))
	mtuGauge.Set(float64(r.Plan.MTU))
	findingsGauge.Reset()
	for _, f := range r.Findings {
		findingsGauge.WithLabelValues(f.Type).Inc()
	}
	for _, f := range corrupted(r.Plan.Paths) {
		findingsGauge.WithLabelValues(f.Type).Inc()
	}
	value := 0.0
	if programmed(r).Status == "True" {
		value = 1
	}
	programmedGauge.Set(value)
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
