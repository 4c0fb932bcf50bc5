package policy

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"

	compiler "github.com/podnet/podnet/internal/policy"
)

// readTimeout bounds a look at the counters.
const readTimeout = 5 * time.Second

var (
	deniedPackets = prometheus.NewDesc("podnet_agent_policy_denied_packets_total",
		"Packets from and to the node's pods that network policy has denied.", nil, nil)
	rulePackets = prometheus.NewDesc("podnet_agent_policy_rule_packets_total",
		"Packets from and to the node's pods that a rule matches, of policies with the annotation podnet.dev/count. "+
			"Those of ClusterNetworkPolicies have no namespace.", []string{"namespace", "policy", "rule"}, nil)
)

// Describe implements prometheus.Collector.
func (e *Enforcer) Describe(descs chan<- *prometheus.Desc) {
	descs <- deniedPackets
	descs <- rulePackets
}

// Collect implements prometheus.Collector: the kernel is asked when the metrics are.
func (e *Enforcer) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	counted, err := e.tables.Counters(ctx)
	if err != nil {
		log.FromContext(ctx).Error(err, "failed to read the counters of network policy: reporting those of the last time")
	}
	metrics <- prometheus.MustNewConstMetric(deniedPackets, prometheus.CounterValue, float64(counted[compiler.DeniedCounter]))
	if rules := e.counted.Load(); rules != nil {
		for _, r := range *rules {
			metrics <- prometheus.MustNewConstMetric(rulePackets, prometheus.CounterValue, float64(counted[r.Counter]), r.Namespace, r.Policy, r.Rule)
		}
	}
}
