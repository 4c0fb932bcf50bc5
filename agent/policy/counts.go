package policy

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/model"
	compiler "github.com/podnet/podnet/internal/policy"
)

// counts adds up what the counters of the policy table say, one table after the other:
// they begin anew when the table is replaced.
type counts struct {
	tables Tables

	mu sync.Mutex
	// enforced says that there is a table which this agent has made.
	enforced bool
	// before is what the counters of former tables had counted, and last what those of
	// this one said when they were read last.
	before, last map[string]uint64
	// rules are those whose packets are counted.
	rules []compiler.CountedRule
}

func newCounts(tables Tables) *counts {
	return &counts{tables: tables, before: map[string]uint64{}, last: map[string]uint64{}}
}

// replace runs what replaces the table, so that nothing is counted twice or lost but what
// comes between reading the counters and replacing them.
func (c *counts) replace(ctx context.Context, run func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.enforced {
		c.read(ctx)
	}
	if err := run(); err != nil {
		return err
	}
	c.enforced = true
	for name := range c.last {
		c.begin(name)
	}
	return nil
}

// keep says which rules' packets are counted. Of others nothing is remembered.
func (c *counts) keep(rules []compiler.CountedRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = rules
	gone := func(name string, _ uint64) bool {
		return name != compiler.DeniedCounter && !slices.ContainsFunc(rules, func(r compiler.CountedRule) bool { return r.Counter == name })
	}
	maps.DeleteFunc(c.before, gone)
	maps.DeleteFunc(c.last, gone)
}

// read reads the counters. The caller holds mu.
func (c *counts) read(ctx context.Context) {
	now, err := c.tables.Counters(ctx, model.PolicyTable)
	if err != nil {
		log.FromContext(ctx).Error(err, "cannot read the counters of network policy: those of the last time are told")
		return
	}
	for name, packets := range now {
		if packets < c.last[name] {
			// Somebody else has reset it.
			c.begin(name)
		}
		c.last[name] = packets
	}
}

// begin lets a counter begin at zero.
func (c *counts) begin(name string) {
	c.before[name] += c.last[name]
	delete(c.last, name)
}

// total is what a counter has counted since the agent began.
func (c *counts) total(name string) float64 { return float64(c.before[name] + c.last[name]) }

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
	c := e.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.enforced {
		c.read(ctx)
	}
	metrics <- prometheus.MustNewConstMetric(deniedPackets, prometheus.CounterValue, c.total(compiler.DeniedCounter))
	for _, r := range c.rules {
		metrics <- prometheus.MustNewConstMetric(rulePackets, prometheus.CounterValue, c.total(r.Counter), r.Namespace, r.Policy, r.Rule)
	}
}
