package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/podnet/podnet/agent/admission"
	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/dump"
	"github.com/podnet/podnet/agent/heartbeat"
	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/agent/node"
	"github.com/podnet/podnet/agent/policy"
	"github.com/podnet/podnet/agent/prober"
	"github.com/podnet/podnet/agent/source"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/agent/status"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
	compiler "github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/version"
)

// agent is the rooms of the agent, wired together.
type agent struct {
	options
	manager.Manager
	dialer *connrotation.Dialer
	kernel *kernel.Kernel
	tables *nft.Conn
	book   *cni.Book
	src    *source.Source
	events *notes

	// passes and policyPasses ask for passes, and news for a look at paths.
	passes, policyPasses, news loop.Signal
	objects                    *state.Keeper
	offers                     *attach.Offers
	demand                     *attach.Demand

	writer   *status.Writer
	drifts   *status.Digest[diff.Repair]
	changes  *status.Digest[status.PathChange]
	known    *node.Known
	paths    *prober.Prober
	guard    *admission.Guard
	enforcer *policy.Enforcer
	applier  *apply.Applier
	server   *cni.Server
}

// serve wires the rooms of the agent together and runs them until ctx ends.
func serve(ctx context.Context, o options, endpoints model.EndpointOptions) error {
	a, err := newAgent(ctx, o)
	if err != nil {
		return err
	}
	a.known = node.NewKnown(endpoints.NodeIPs, source.InternalIPs(a.GetAPIReader(), o.node))
	a.known.Lost = a.dialer.CloseAll
	if a.paths, err = prober.New(prober.Config{Changed: a.news.Raise, Taken: a.kernel.Taken, Talking: a.kernel.Talking}); err != nil {
		return err
	}
	a.guard = &admission.Guard{Client: a.GetClient(), Node: o.node, Nodes: a.src.Nodes, Changed: a.passes.Raise}
	// Nobody waits for the policy tables, which take long.
	policyTables, err := nft.Open()
	if err != nil {
		return err
	}
	a.enforcer = policy.New(policy.Config{
		Passes: a.policyPasses, Source: a.objects, NFT: policyTables, Log: netfilter.Log{NFT: policyTables},
		Pods: a.book.Recorded, FullInterval: o.fullInterval,
		Denied: func(d compiler.Denial) { a.events.add(packetDenied(d)) },
	})
	if err := errors.Join(metrics.Registry.Register(a.enforcer), metrics.Registry.Register(version.Metric("agent"))); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	a.applier = a.newApplier(endpoints)
	if a.server, err = a.newServer(); err != nil {
		return err
	}
	if err := a.start(ctx); err != nil {
		return err
	}
	if a.applier.Removed() {
		return empty(o.stateDir)
	}
	return nil
}

// newAgent makes what needs nothing but the node and the API server.
func newAgent(ctx context.Context, o options) (*agent, error) {
	a := &agent{
		options: o, offers: attach.NewOffers(), demand: &attach.Demand{},
		passes: loop.NewSignal(), policyPasses: loop.NewSignal(), news: loop.NewSignal(),
	}
	var err error
	if a.Manager, a.dialer, err = newManager(o); err != nil {
		return nil, err
	}
	if a.tables, err = nft.Open(); err != nil {
		return nil, err
	}
	if a.kernel, err = kernel.New(kernel.Config{
		StateDir: o.stateDir, Tables: nft.NewWriter(a.tables, model.FirewallTable, func() {}), NFT: a.tables,
	}); err != nil {
		return nil, err
	}
	if a.book, err = cni.OpenBook(ctx, o.attachments(), time.Now); err != nil {
		return nil, err
	}
	recorder, err := newRecorder(ctx, a.Manager, o.node)
	if err != nil {
		return nil, err
	}
	a.src = newSource(a.Manager)
	a.src.WatchPolicies(a.policyPasses.Raise)
	a.objects = state.NewKeeper(state.KeeperConfig{
		Source: a.src, Clock: clock.RealClock{}, FullInterval: o.fullInterval,
		Changed: func() { a.passes.Raise(); a.policyPasses.Raise() },
	})
	a.writer = status.NewWriter(status.Writer{
		Reader: a.GetAPIReader(), Client: a.GetClient(), Recorder: recorder,
		Node: o.node, Version: version.Version, Restored: a.src.Renew,
	})
	a.events = newNotes(a.GetAPIReader(), recorder, o.node)
	a.drifts = status.NewDrifts(func(text string, _ []diff.Repair) { a.events.add(a.events.driftRepaired(text)) })
	a.changes = status.NewPathChanges(func(text string, first []status.PathChange) { a.events.add(a.events.pathChanged(text, first)) })
	return a, nil
}

// present returns the pods whose links exist on the node.
func (a *agent) present(ctx context.Context) ([]model.Pod, error) {
	return a.kernel.Present(ctx, a.book.Pods())
}

func (a *agent) newApplier(endpoints model.EndpointOptions) *apply.Applier {
	installer := cni.InstallConfig{SourceDir: a.pluginDir, BinDir: a.cniBinDir, ConfDir: a.cniConfDir, Socket: a.socket()}
	return apply.New(apply.Config{
		Passes: a.passes, Source: a.objects, Kernel: a.kernel, Links: a.kernel, Offers: a.offers, Watcher: a.kernel,
		Paths: a.paths, PathsNews: a.news, Policy: a.enforcer.Problems, Rights: a.guard.Findings,
		Node: &node.Local{
			Name: a.node, Options: endpoints, Known: a.known, Network: a.kernel,
			Inspector: host.New(host.Config{Kernel: a.kernel, NFT: a.tables, StateDir: a.stateDir}), ConfDir: a.cniConfDir, Conflist: cni.ConflistName,
			Uninstall: func(ctx context.Context) error { return cni.Uninstall(ctx, installer) },
		},
		Pods: a.present, Usage: a.book.UsageByBlock, Waiting: a.demand.Waiting,
		Report: a.writer.Report, Repaired: a.drifts.Add, PathsChanged: a.changes.Add,
		Install:      func(ctx context.Context) error { return cni.Install(ctx, installer) },
		FullInterval: a.fullInterval,
	})
}

func (a *agent) newServer() (*cni.Server, error) {
	attacher := attach.New(attach.Config{
		Offers: a.offers, Kernel: a.applier, Links: a.kernel, Flows: netfilter.Conntrack{}, Policy: a.enforcer, Pods: a.present, Passes: a.passes,
	})
	return cni.NewServer(cni.ServerConfig{
		Socket: a.socket(), Book: a.book, Network: attacher, Checker: attacher, Demand: a.demand, Wanted: a.applier.Recount,
		Present: a.kernel.Present, Runtime: a.runtime(), Reclaimed: func(pod model.Pod, why string) { a.events.add(addressReclaimed(pod, why)) },
	})
}

// parts are what runs until the agent ends. The CNI server does not wait for the API server:
// pods must be able to leave while it is away.
func (a *agent) parts() []manager.RunnableFunc {
	synced, built := a.src.Synced(), a.objects.Built()
	knows := knower{applier: a.applier, enforcer: a.enforcer, paths: a.paths, book: a.book, demand: a.demand}
	return []manager.RunnableFunc{
		a.server.Run, a.writer.Run, a.events.Start, a.drifts.Run, a.changes.Run, a.paths.Run,
		a.applier.Watch, a.applier.Reroute, after(built, a.applier.Run),
		after(synced, a.enforcer.Watch), a.enforcer.ReportDenied, after(built, a.enforcer.Run),
		after(synced, a.objects.Run), after(synced, a.guard.Run),
		beating(a.Manager, a.options, a.applier), sweep(a.server, a.fullInterval),
		func(ctx context.Context) error { return a.known.Run(ctx, a.passes.Raise) },
		func(ctx context.Context) error {
			return dump.Run(ctx, dump.Config{Socket: a.dumpSocket(), Node: a.node, Documents: knows.documents()})
		},
		func(ctx context.Context) error { return hear(ctx, a.src, a.objects) },
	}
}

// beating renews the Lease that shows that the agent is alive.
func beating(mgr manager.Manager, o options, applier *apply.Applier) manager.RunnableFunc {
	if o.namespace == "" {
		return func(ctx context.Context) error {
			log.FromContext(ctx).Info("renewing no Lease, as --namespace does not say where: the manager goes by the node's kubelet")
			return nil
		}
	}
	return heartbeat.New(heartbeat.Config{
		Reader: mgr.GetAPIReader(), Client: mgr.GetClient(), Clock: clock.RealClock{},
		Namespace: o.namespace, Node: o.node, Removed: applier.Removed,
	}).Run
}

// hear keeps the source up to date until ctx ends.
func hear(ctx context.Context, src *source.Source, objects *state.Keeper) error {
	if err := src.Run(ctx, objects.Trigger); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// after runs a part of the agent when the caches are complete.
func after(synced <-chan struct{}, run manager.RunnableFunc) manager.RunnableFunc {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-synced:
			return run(ctx)
		}
	}
}

// sweep reclaims stale attachments now and then.
func sweep(server *cni.Server, interval time.Duration) manager.RunnableFunc {
	return func(ctx context.Context) error {
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			if err := server.Sweep(ctx); err != nil {
				log.FromContext(ctx).Error(err, "failed to reclaim some stale attachments, trying again")
			}
		}, interval)
		return nil
	}
}

// start runs the parts of the agent until ctx ends, and reports by its checks whether they do well.
func (a *agent) start(ctx context.Context) error {
	for _, p := range a.parts() {
		if err := a.Add(p); err != nil {
			return fmt.Errorf("add a part of the agent: %w", err)
		}
	}
	if err := a.AddReadyzCheck("pass", func(*http.Request) error { return a.applier.Ready() }); err != nil {
		return fmt.Errorf("add the readiness check: %w", err)
	}
	if err := a.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add the health check: %w", err)
	}
	if err := a.Start(ctx); err != nil {
		return fmt.Errorf("run the agent: %w", err)
	}
	return nil
}

// empty removes what is in a folder. The folder itself is a mount in the agent's
// container.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove what is in %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// newSource returns what reads the objects, with a cache of its own.
func newSource(mgr manager.Manager) *source.Source {
	return source.New(func() (cache.Cache, error) {
		return cache.New(mgr.GetConfig(), cache.Options{
			HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
			// Nobody here reads who wrote which field, and it is a large part of an object.
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         source.CacheOptions(),
		})
	}, mgr.GetAPIReader())
}

// dialTimeout is client-go's.
const dialTimeout = 30 * time.Second

// newManager also returns what makes, and can close, the connections to the API
// server: one from an address that the node has no longer would be taken for alive for
// most of a minute.
func newManager(o options) (manager.Manager, *connrotation.Dialer, error) {
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("find the API server: %w", err)
	}
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext)
	cfg.Dial = dialer.DialContext
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, podnetv1alpha1.AddToScheme, policyv1alpha2.Install} {
		if err := add(scheme); err != nil {
			return nil, nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme,
		Metrics: metricsserver.Options{
			BindAddress:    o.metrics,
			SecureServing:  true,
			FilterProvider: filters.WithAuthenticationAndAuthorization,
			// HTTP/2 lets a client reset streams faster than a server can end them (CVE-2023-44487).
			TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
		},
		HealthProbeBindAddress: o.probes,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("set up the agent: %w", err)
	}
	return mgr, dialer, nil
}
