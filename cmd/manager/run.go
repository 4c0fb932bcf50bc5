package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/podnet/podnet/controllers"
	"github.com/podnet/podnet/internal/restored"
	"github.com/podnet/podnet/internal/version"
)

// runOptions are the flags of the manager itself.
type runOptions struct {
	leaderElect             bool
	leaderElectionNamespace string
	namespace               string
	metricsAddress          string
	probeAddress            string
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "manager",
		Short: "Runs podnet's controllers: blocks for nodes, and conditions for users",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("find the API server: %w", err)
			}
			return runManager(cmd.Context(), config, o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.leaderElect, "leader-elect", false, "work only while holding the lease, so that several managers can run")
	flags.StringVar(&o.leaderElectionNamespace, "leader-election-namespace", "", "namespace of the lease; empty means that of the pod")
	flags.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "podnet's own namespace, in which agents renew Leases (default $POD_NAMESPACE)")
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443", "address on which metrics are served by HTTPS to who may read them; 0 turns them off")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", "127.0.0.1:8081", "address of /healthz and /readyz; 0 turns them off")
	return cmd
}

func runManager(ctx context.Context, restConfig *rest.Config, o runOptions) error {
	warmup := true
	// Nobody here reads who wrote which field, and it is a large part of an object.
	cached := cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	if o.namespace != "" {
		cached.ByObject = map[client.Object]cache.ByObject{&coordinationv1.Lease{}: controllers.LeaseCache(o.namespace)}
	}
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: controllers.Scheme(),
		Client: client.Options{Cache: controllers.CacheOptions()},
		Cache:  cached,
		// A standby keeps its caches warm and can take over at once.
		Controller:                    config.Controller{EnableWarmup: &warmup},
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "podnet-manager",
		LeaderElectionNamespace:       o.leaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true,
		HealthProbeBindAddress:        o.probeAddress,
		Metrics: metricsserver.Options{
			BindAddress:    o.metricsAddress,
			SecureServing:  true,
			FilterProvider: filters.WithAuthenticationAndAuthorization,
			// HTTP/2 lets a client reset streams faster than a server can end them (CVE-2023-44487).
			TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
		},
	})
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	if err := controllers.Setup(ctx, mgr, o.namespace); err != nil {
		return fmt.Errorf("set up the controllers: %w", err)
	}
	if err := metrics.Registry.Register(version.Metric("manager")); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	// Its caches would never be right again: a new process has new ones.
	guard := &restored.Watcher{Live: mgr.GetAPIReader(), Cached: mgr.GetCache(), Interval: restoredInterval}
	if err := errors.Join(
		mgr.Add(always(guard.Run)),
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("caches", cachesSynced(mgr.GetCache())),
	); err != nil {
		return fmt.Errorf("add probes: %w", err)
	}
	ctrl.Log.Info("starting")
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	return nil
}

// restoredInterval is how often the manager looks whether the API server was restored from a backup.
const restoredInterval = 5 * time.Second

// always is run by standbys too.
type always func(ctx context.Context) error

// Start implements manager.Runnable.
func (a always) Start(ctx context.Context) error { return a(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (always) NeedLeaderElection() bool { return false }

// syncPatience is less than the second that a kubelet waits for the answer to a probe.
const syncPatience = 500 * time.Millisecond

// cachesSynced is ready once the caches hold what the API server has: a standby
// that is ready can take over at once.
func cachesSynced(c cache.Cache) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), syncPatience)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			return errors.New("the caches have not synced yet")
		}
		return nil
	}
}
