// Command agent runs on every node and makes its kernel carry the pod network.
package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/cri"
	"github.com/podnet/podnet/internal/logs"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/version"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run() error {
	return command().ExecuteContext(ctrl.SetupSignalHandler())
}

// options are the agent's flags.
type options struct {
	node          string
	namespace     string
	nodeIPs       []string
	nodeInterface string
	nodeCIDRs     []string
	stateDir      string
	pluginDir     string
	cniBinDir     string
	cniConfDir    string
	criEndpoint   string
	metrics       string
	probes        string
	fullInterval  time.Duration
	logs          logs.Options
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "agent",
		Short:         "Makes a node's kernel carry podnet's pod network",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Version,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := o.logs.New()
			if err != nil {
				return err
			}
			ctrl.SetLogger(logger)
			endpoints, err := o.endpoints()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), o, endpoints)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "name of this node's Node object (default $NODE_NAME)")
	f.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "podnet's own namespace, in which the agent renews a Lease; empty: it renews none (default $POD_NAMESPACE)")
	f.StringSliceVar(&o.nodeIPs, "node-ips", split(os.Getenv("HOST_IPS")), "addresses that Kubernetes knows this node by at first; the agent follows its Node (default $HOST_IPS)")
	f.StringVar(&o.nodeInterface, "node-interface", "", "regular expression for the interface whose addresses other nodes shall use; empty: that of --node-ips")
	f.StringSliceVar(&o.nodeCIDRs, "node-cidr", nil, "networks out of which this node's address shall be chosen; for each family given, only these")
	o.defineStateDir(cmd)
	f.StringVar(&o.pluginDir, "plugin-dir", "/opt/podnet/cni", "folder that holds the CNI binaries to install")
	f.StringVar(&o.cniBinDir, "cni-bin-dir", "/opt/cni/bin", "the runtime's folder for CNI binaries")
	f.StringVar(&o.cniConfDir, "cni-conf-dir", "/etc/cni/net.d", "the runtime's folder for CNI configuration")
	f.StringVar(&o.criEndpoint, "runtime-endpoint", "", "socket on the node by which the container runtime is asked which pods there are; none: it is not asked "+
		"(default the first that exists of "+strings.Join(cri.Sockets, ", ")+")")
	f.StringVar(&o.metrics, "metrics-bind-address", ":19083", "address on which metrics are served by HTTPS to who may read them; 0 turns them off")
	f.StringVar(&o.probes, "health-probe-bind-address", "127.0.0.1:19082", "address for /healthz and /readyz; 0 turns them off")
	f.DurationVar(&o.fullInterval, "full-interval", 30*time.Second, "time between passes over the whole of the node when nothing changes")
	o.logs.Define(f)
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(dumpCommand())
	return cmd
}

// defineStateDir adds the flag that all commands have.
func (o *options) defineStateDir(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.stateDir, "state-dir", "/run/podnet", "folder for the sockets and the record of attachments; it must not survive a reboot")
}

// endpoints checks the flags that choose the node's address.
func (o options) endpoints() (model.EndpointOptions, error) {
	out := model.EndpointOptions{Interface: o.nodeInterface}
	if o.node == "" {
		return out, fmt.Errorf("--node-name (or $NODE_NAME) must name this node")
	}
	for _, s := range o.nodeIPs {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return out, fmt.Errorf("--node-ips: %w", err)
		}
		out.NodeIPs = append(out.NodeIPs, a.Unmap())
	}
	for _, s := range o.nodeCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return out, fmt.Errorf("--node-cidr: %w", err)
		}
		out.CIDRs = append(out.CIDRs, p.Masked())
	}
	return out, nil
}

func (o options) socket() string      { return filepath.Join(o.stateDir, "cni.sock") }
func (o options) attachments() string { return filepath.Join(o.stateDir, "attachments") }

// dumpSocket is in a folder of its own: the one that is mounted may be open to others.
func (o options) dumpSocket() string { return filepath.Join(o.stateDir, "dump", "agent.sock") }

// runtime returns the container runtime that is asked; nil where none is.
func (o options) runtime() cni.Runtime {
	if o.criEndpoint == "none" {
		return nil
	}
	return cri.New(o.criEndpoint)
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}
