package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/dump"
	"github.com/podnet/podnet/agent/policy"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// knower is who knows what the agent knows.
type knower struct {
	applier  *apply.Applier
	enforcer *policy.Enforcer
	paths    apply.Paths
	book     *cni.Book
	demand   *attach.Demand
}

// attachments is the document of that name.
type attachments struct {
	// Pods have addresses of the node: they are attached, or are about to be, or were.
	Pods []model.Pod
	// Waiting is how many ADDs wait for an address of IPv4 and of IPv6.
	Waiting [2]int64
}

// enforced is the document on network policy.
type enforced struct {
	// Problems are what is not enforced as asked, a sentence each.
	Problems []model.Problem
	// Tables are those of nftables; where a change of them is under way, both forms.
	Tables []nft.Table
}

var (
	errNoPass     = errors.New("the agent has made no pass yet that had a PodNetwork: its log says what it waits for")
	errNotWritten = errors.New("the policy tables are about to be replaced, as it is unknown what the kernel has: try again in a second")
)

// documents returns what can be dumped.
func (k knower) documents() []dump.Document {
	return []dump.Document{
		{Name: "cluster", About: "what the agent knows: the network, blocks, RouteModes, the host, its pods", Read: k.cluster},
		{Name: "plan", About: "what the kernel shall be, which path leads where, and why", Read: k.plan},
		{Name: "have", About: "what the last pass found in the kernel, and what it did next", Read: k.have},
		{Name: "evidence", About: "what probes say of the paths to other nodes' blocks, now", Read: k.evidence},
		{Name: "policy", About: "the policy tables, and what of network policy is not enforced as asked", Read: k.policy},
		{Name: "attachments", About: "the pods that have addresses of this node, as recorded", Read: k.attachments},
	}
}

func (k knower) cluster(context.Context) (any, uint64, error) {
	is := k.applier.State()
	if is == nil {
		return nil, 0, errNoPass
	}
	cluster := is.Cluster
	cluster.Evidence = nil
	return cluster, is.Version, nil
}

func (k knower) plan(context.Context) (any, uint64, error) {
	is := k.applier.State()
	if is == nil {
		return nil, 0, errNoPass
	}
	return is.Plan, is.Version, nil
}

func (k knower) have(context.Context) (any, uint64, error) {
	found := k.applier.Found()
	if found == nil {
		return nil, 0, errNoPass
	}
	return found, 0, nil
}

func (k knower) evidence(ctx context.Context) (any, uint64, error) {
	evidence, err := k.paths.Evidence(ctx)
	return evidence, 0, err
}

func (k knower) policy(context.Context) (any, uint64, error) {
	tables, known := k.enforcer.Tables()
	if !known {
		return nil, 0, errNotWritten
	}
	return enforced{Problems: k.enforcer.Problems(), Tables: tables}, 0, nil
}

func (k knower) attachments(context.Context) (any, uint64, error) {
	return attachments{Pods: k.book.Recorded(), Waiting: k.demand.Waiting()}, 0, nil
}

// dumpTimeout is longer than a profile takes.
const dumpTimeout = time.Minute

// dumpCommand prints what the agent of this node knows.
func dumpCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "dump [WHAT]",
		Short: "Prints what the agent that runs on this node knows, or a list of what there is",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), dumpTimeout)
			defer cancel()
			return dump.Fetch(ctx, o.dumpSocket(), append(args, "")[0], cmd.OutOrStdout())
		},
	}
	o.defineStateDir(cmd)
	return cmd
}
