package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/agent/kernel"
	agentloop "github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// agentVariable makes this program an agent instead of tests: one that the crash
// test can kill. Its value is a crashAgent in JSON.
const agentVariable = "PODNET_TEST_AGENT"

func init() {
	text := os.Getenv(agentVariable)
	if text == "" {
		return
	}
	var a crashAgent
	err := json.Unmarshal([]byte(text), &a)
	if err == nil {
		err = a.run()
	}
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(1)
}

// crashAgent is an agent without an API server: what the API holds never changes.
type crashAgent struct {
	StateDir string
	Blocks   []netip.Prefix
	Network  model.Network
	kernel   *kernel.Kernel
	host     *host.Host
}

// crashNode is the name of the agent's node.
const crashNode = "node1"

// run works until the process is killed, or the test that started it is gone.
func (a *crashAgent) run() error {
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // it ends either way
		os.RemoveAll(a.StateDir)
		os.Exit(1)
	}()
	ctrl.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	ctx := context.Background()
	var err error
	if _, a.kernel, a.host, err = rooms(a.StateDir); err != nil {
		return err
	}
	book, err := cni.OpenBook(ctx, a.attachments(), time.Now)
	if err != nil {
		return err
	}
	pods := func(ctx context.Context) ([]model.Pod, error) { return a.kernel.Present(ctx, book.Pods()) }
	offers, demand, passes := attach.NewOffers(), &attach.Demand{}, agentloop.NewSignal()
	applier := apply.New(apply.Config{
		Passes: passes, Source: a, Kernel: a.kernel, Links: a.kernel, Offers: offers, Node: a,
		Pods:         pods,
		Usage:        book.UsageByBlock,
		Waiting:      demand.Waiting,
		Report:       func(status.Report) {},
		Install:      func(context.Context) error { return nil },
		FullInterval: time.Second,
	})
	attacher := attach.New(attach.Config{Offers: offers, Kernel: applier, Links: a.kernel, Flows: netfilter.Conntrack{}, Pods: pods, Passes: passes})
	server, err := cni.NewServer(cni.ServerConfig{
		Socket: a.socket(), Book: book, Network: attacher, Checker: attacher, Present: a.kernel.Present, Demand: demand, Wanted: applier.Recount,
	})
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- server.Run(ctx) }()
	go func() { failed <- applier.Run(ctx) }()
	go wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := server.Sweep(ctx); err != nil {
			log.FromContext(ctx).Error(err, "sweep failed")
		}
	}, time.Second)
	return <-failed
}

func (a *crashAgent) socket() string      { return filepath.Join(a.StateDir, "cni.sock") }
func (a *crashAgent) attachments() string { return filepath.Join(a.StateDir, "attachments") }

// Objects implements apply.Source.
func (a *crashAgent) Objects() (state.Objects, error) {
	return state.Objects{Network: &a.Network, Blocks: a.blocks()}, nil
}

func (a *crashAgent) blocks() []model.Block {
	var blocks []model.Block
	for _, b := range a.Blocks {
		blocks = append(blocks, model.Block{Name: b.String(), CIDR: b, Node: crashNode, State: model.BlockActive, Created: time.Unix(1, 0)})
	}
	return blocks
}

// Host implements apply.Node.
func (a *crashAgent) Host(ctx context.Context) (model.Host, []model.Problem, error) {
	facts, err := a.host.Facts(ctx)
	if err != nil {
		return model.Host{}, nil, err
	}
	endpoints, problems := plan.ChooseEndpoints(facts.Links, facts.Routes, model.EndpointOptions{})
	return model.Host{
		Node: crashNode, Endpoints: endpoints, Routes: facts.Routes, IPv6: facts.IPv6, AcceptRA: facts.AcceptRA,
		VXLAN: facts.VXLAN, BridgeNetfilter: facts.BridgeNetfilter,
	}, problems, nil
}

// Findings implements apply.Node.
func (*crashAgent) Findings(context.Context, []netip.Prefix, []model.Block, *model.Pod) ([]model.Finding, error) {
	return nil, nil
}

// Remove implements apply.Node.
func (*crashAgent) Remove(context.Context) error { return errors.New("nobody asked for that") }
