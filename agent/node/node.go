// Package node says what the node is that the agent runs on, and takes podnet off
// it: it joins what agent/host found with the rule by which internal/plan
// chooses endpoints, and follows the addresses by which Kubernetes knows the node. When
// that is done is left to agent/apply, and how the API is read to agent/source.
package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// Inspector looks at the node.
type Inspector interface {
	// Facts returns what was found on the node, without podnet's own.
	Facts(ctx context.Context) (host.Facts, error)
	// Findings returns what is in the network's way.
	Findings(ctx context.Context, s host.Search) ([]model.Finding, error)
}

// Network is what podnet made of the node's kernel.
type Network interface {
	// Remove takes all of it off the node.
	Remove(ctx context.Context) error
}

// Local is the node that the agent runs on. It implements apply.Node.
type Local struct {
	// Name is the name of the Node object.
	Name string
	// Options say which of the node's addresses others shall send to. NodeIPs is of no
	// account: Known says it.
	Options   model.EndpointOptions
	Known     *Known
	Inspector Inspector
	Network   Network
	// ConfDir is the runtime's folder for CNI configuration, Conflist the name of
	// podnet's file in it.
	ConfDir  string
	Conflist string
	// Uninstall takes the CNI configuration and binaries off the node.
	Uninstall func(ctx context.Context) error

	// chosen are the addresses that were chosen last. Host is for one caller at a time.
	chosen []netip.Addr
}

// Host returns what the node is, and what of it does not fit the options.
func (n *Local) Host(ctx context.Context) (model.Host, []model.Problem, error) {
	facts, err := n.Inspector.Facts(ctx)
	if err != nil {
		return model.Host{}, nil, fmt.Errorf("read the node's interfaces and routes: %w", err)
	}
	options := n.Options
	addresses := plan.Addresses(facts.Links, facts.Routes)
	options.NodeIPs = n.Known.addresses(addresses)
	options.Last = n.chosen
	endpoints, problems := plan.ChooseEndpoints(facts.Links, facts.Routes, options)
	n.chosen = nil
	for _, e := range endpoints {
		n.chosen = append(n.chosen, e.Addr)
	}
	return model.Host{
		Node:            n.Name,
		Endpoints:       endpoints,
		Addresses:       addresses,
		Routes:          facts.Routes,
		VXLAN:           facts.VXLAN,
		Missing:         facts.Missing,
		BridgeNetfilter: facts.BridgeNetfilter,
		IPv6:            facts.IPv6,
		AcceptRA:        facts.AcceptRA,
	}, problems, nil
}

// Findings returns what is in the network's way on the node.
func (n *Local) Findings(ctx context.Context, ranges []netip.Prefix, own []model.Block, probe *model.Pod) ([]model.Finding, error) {
	blocks := make([]netip.Prefix, 0, len(own))
	for _, b := range own {
		blocks = append(blocks, b.CIDR)
	}
	return n.Inspector.Findings(ctx, host.Search{
		Ranges: ranges, Blocks: blocks, ConfDir: n.ConfDir, Conflist: n.Conflist, Probe: probe,
	})
}

// Remove takes everything that podnet made off the node: first what brings new
// pods, then the network.
func (n *Local) Remove(ctx context.Context) error {
	return errors.Join(n.Uninstall(ctx), n.Network.Remove(ctx))
}
