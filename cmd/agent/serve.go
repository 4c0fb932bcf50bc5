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

// serve wires the rooms of the agent together and runs them until ctx ends.
func serve(ctx context.Context, o options, endpoints model.EndpointOptions) error {
	mgr, dialer, err := newManager(o)
	if err != nil {
		return err
	}
	tables, err := nft.Open()
	if err != nil {
		return err
	}
	k, err := kernel.New(kernel.Config{StateDir: o.stateDir, NFT: tables})
	if err != nil {
		return err
	}
	book, err := cni.OpenBook(ctx, o.attachments(), time.Now)
	if err != nil {
		return err
	}
	installer := cni.InstallConfig{SourceDir: o.pluginDir, BinDir: o.cniBinDir, ConfDir: o.cniConfDir, Socket: o.socket()}
	src := newSource(mgr)
	recorder, err := newRecorder(ctx, mgr, o.node)
	if err != nil {
		return err
	}
	writer := status.NewWriter(status.Writer{
		Reader: mgr.GetAPIReader(), Client: mgr.GetClient(), Recorder: recorder,
		Node: o.node, Version: version.Version, Restored: src.Renew,
	})
	events := newNotes(mgr.GetAPIReader(), recorder, o.node)
	drifts := status.NewDrifts(func(text string, _ []diff.Repair) { events.add(events.driftRepaired(text)) })
	changes := status.NewPathChanges(func(text string, first []status.PathChange) { events.add(events.pathChanged(text, first)) })
	known := node.NewKnown(endpoints.NodeIPs, source.InternalIPs(mgr.GetAPIReader(), o.node))
	known.Lost = dialer.CloseAll
	offers, demand, passes, policyPasses, news := attach.NewOffers(), &attach.Demand{}, loop.NewSignal(), loop.NewSignal(), loop.NewSignal()
	paths, err := prober.New(prober.Config{Changed: news.Raise, Taken: k.Taken, Talking: k.Talking})
	if err != nil {
		return err
	}
	src.WatchPolicies(policyPasses.Raise)
	objects := state.NewKeeper(state.KeeperConfig{Source: src, Clock: clock.RealClock{}, Changed: func() { passes.Raise(); policyPasses.Raise() }, FullInterval: o.fullInterval})
	enforcer, err := newEnforcer(o, policyPasses, objects, k, tables, book, events)
	if err != nil {
		return err
	}
	guard := &admission.Guard{Client: mgr.GetClient(), Node: o.node, Nodes: src.Nodes, Changed: passes.Raise}
	pods := func(ctx context.Context) ([]model.Pod, error) { return k.Present(ctx, book.Pods()) }
	applier := apply.New(apply.Config{
		Passes: passes,
		Source: objects,
		Kernel: k,
		Links:  k,
		Offers: offers,
		Paths:  paths, PathsNews: news,
		Policy:  enforcer.Problems,
		Rights:  guard.Findings,
		Watcher: k,
		Node: &node.Local{
			Name: o.node, Options: endpoints, Known: known, Network: k,
			Inspector: host.New(host.Config{Kernel: k, NFT: tables, StateDir: o.stateDir}), ConfDir: o.cniConfDir, Conflist: cni.ConflistName,
			Uninstall: func(ctx context.Context) error { return cni.Uninstall(ctx, installer) },
		},
		Pods:         pods,
		Usage:        book.UsageByBlock,
		Waiting:      demand.Waiting,
		Report:       writer.Report,
		Serve:        func(ctx context.Context) error { return cni.Install(ctx, installer) },
		Repaired:     drifts.Add,
		PathsChanged: changes.Add,
		FullInterval: o.fullInterval,
	})
	attacher := attach.New(attach.Config{Offers: offers, Kernel: applier, Links: k, Flows: netfilter.Conntrack{}, Policy: enforcer, Pods: pods, Passes: passes})
	server, err := cni.NewServer(cni.ServerConfig{
		Socket: o.socket(), Book: book, Network: attacher, Checker: attacher, Demand: demand, Wanted: applier.Recount,
		Present: k.Present, Runtime: o.runtime(), Reclaimed: func(pod model.Pod, why string) { events.add(addressReclaimed(pod, why)) },
	})
	if err != nil {
		return err
	}
	knows := knower{applier: applier, enforcer: enforcer, paths: paths, book: book, demand: demand}
	// The CNI server does not wait for the API server: pods must be able to leave
	// while it is away.
	if err := start(ctx, mgr, applier, server.Run, writer.Run, events.Start, drifts.Run, changes.Run, applier.Watch, paths.Run, beating(mgr, o, applier),
		sweep(server, o.fullInterval), after(src.Synced(), objects.Run), after(objects.Built(), enforcer.Run), after(src.Synced(), enforcer.Watch), enforcer.Tell, after(objects.Built(), applier.Run), applier.Reroute, after(src.Synced(), guard.Run),
		func(ctx context.Context) error { return known.Run(ctx, passes.Raise) },
		func(ctx context.Context) error {
			return dump.Run(ctx, dump.Config{Socket: o.dumpSocket(), Node: o.node, Documents: knows.documents()})
		},
		func(ctx context.Context) error { return hear(ctx, src, objects) },
	); err != nil {
		return err
	}
	if applier.Removed() {
		return empty(o.stateDir)
	}
	return nil
}

// newEnforcer returns what enforces network policy.
func newEnforcer(o options, passes loop.Signal, objects *state.Keeper, k *kernel.Kernel, tables *nft.Conn, book *cni.Book, events *notes) (*policy.Enforcer, error) {
	enforcer := policy.New(policy.Config{
		Passes: passes, Source: objects, Kernel: k, Tables: tables, Log: netfilter.Log{NFT: tables}, Pods: book.Recorded, FullInterval: o.fullInterval,
		Denied: func(d compiler.Denial) { events.add(packetDenied(d)) },
	})
	if err := errors.Join(metrics.Registry.Register(enforcer), metrics.Registry.Register(version.Metric("agent"))); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return enforcer, nil
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

// sweep lets go of attachments that nobody has, now and then.
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

// start runs the parts of the agent until ctx ends, and tells whether they do well.
func start(ctx context.Context, mgr manager.Manager, applier *apply.Applier, parts ...manager.RunnableFunc) error {
	for _, p := range parts {
		if err := mgr.Add(p); err != nil {
			return fmt.Errorf("add a part of the agent: %w", err)
		}
	}
	if err := mgr.AddReadyzCheck("pass", func(*http.Request) error { return applier.Ready() }); err != nil {
		return fmt.Errorf("add the readiness check: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add the health check: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
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
