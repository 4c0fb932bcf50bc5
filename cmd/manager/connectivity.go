package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/podnet/podnet/internal/connectivity"
)

// defaultPort is the port, of TCP and of UDP, of connectivity servers.
const defaultPort = 8080

// connectivityCommand shows which pods reach each other. It is what `helm test` and `make quickstart` run: the image
// holds no other program that could.
func connectivityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connectivity",
		Short: "Shows which pods reach each other, and how fast",
	}
	cmd.AddCommand(connectivityServeCommand(), connectivityCheckCommand())
	return cmd
}

func connectivityServeCommand() *cobra.Command {
	var port uint16
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answers peers over TCP and UDP, and tries them when asked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := connectivity.Listen(cmd.Context(), "", port)
			if err != nil {
				return err
			}
			return server.Serve(cmd.Context())
		},
	}
	cmd.Flags().Uint16Var(&port, "port", defaultPort, "port of TCP and of UDP to listen on")
	return cmd
}

// checkOptions are the flags of connectivity check.
type checkOptions struct {
	targets   []string
	namespace string
	selector  string
	nodes     int
	port      uint16
	timeout   time.Duration
}

func connectivityCheckCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Makes every server try every other, and prints a table of the round trips",
		Long: "Makes every server try every other, and prints a table of the round trips. The servers are given by --target, " +
			"or are the pods that --selector selects in --namespace. It fails when one does not reach another.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			peers, err := o.peers(cmd.Context())
			if err != nil {
				return err
			}
			return check(cmd.Context(), cmd.OutOrStdout(), peers, o.port)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.targets, "target", nil, "a server, as NAME=ADDRESS or NAME=ADDRESS,ADDRESS (repeatable)")
	f.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the servers' pods")
	f.StringVar(&o.selector, "selector", "", "label selector of the servers' pods")
	f.IntVar(&o.nodes, "nodes", 2, "number of nodes on which a selected pod must be")
	f.Uint16Var(&o.port, "port", defaultPort, "port of the servers")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "time to wait for the selected pods to be ready")
	cmd.MarkFlagsOneRequired("target", "selector")
	cmd.MarkFlagsMutuallyExclusive("target", "selector")
	return cmd
}

// check prints the table, and returns an error when somebody does not reach somebody.
func check(ctx context.Context, out io.Writer, peers []connectivity.Peer, port uint16) error {
	matrix := connectivity.Measure(ctx, peers, port)
	if err := matrix.Write(out); err != nil {
		return err
	}
	failures := matrix.Failures()
	if len(failures) == 0 {
		return nil
	}
	for _, failure := range failures {
		fmt.Fprintln(out, failure)
	}
	return fmt.Errorf("%d of the pairs above do not reach each other", len(failures))
}

func (o checkOptions) peers(ctx context.Context) ([]connectivity.Peer, error) {
	if o.selector != "" {
		return o.selectedPeers(ctx)
	}
	peers := make([]connectivity.Peer, 0, len(o.targets))
	for _, target := range o.targets {
		name, list, found := strings.Cut(target, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("--target %s: want NAME=ADDRESS", target)
		}
		peer := connectivity.Peer{Name: name}
		for text := range strings.SplitSeq(list, ",") {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("--target %s: %w", target, err)
			}
			peer.Addrs = append(peer.Addrs, addr)
		}
		peers = append(peers, peer)
	}
	return peers, nil
}

// selectedPeers waits until the selected pods are ready and on enough nodes.
func (o checkOptions) selectedPeers(ctx context.Context) ([]connectivity.Peer, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	// The last answer says more than that time is up.
	last := errors.New("the API server was not asked yet")
	for {
		pods, err := client.CoreV1().Pods(o.namespace).List(ctx, metav1.ListOptions{LabelSelector: o.selector})
		var peers []connectivity.Peer
		if err == nil {
			peers, err = readyPeers(pods.Items, o.nodes)
		}
		if err == nil {
			return peers, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("after %s: %w", o.timeout, last), o.events(client))
		case <-time.After(time.Second):
		}
	}
}

// readyPeers turns pods into peers, named like their nodes, or says what keeps them from it.
func readyPeers(pods []corev1.Pod, nodes int) ([]connectivity.Peer, error) {
	var peers []connectivity.Peer
	var reasons []error
	names := map[string]bool{}
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil {
			continue
		}
		if reason := notReady(pod); reason != "" {
			reasons = append(reasons, fmt.Errorf("pod %s %s", pod.Name, reason))
			continue
		}
		peer := connectivity.Peer{Name: pod.Spec.NodeName}
		if names[peer.Name] {
			peer.Name += "/" + pod.Name
		}
		names[pod.Spec.NodeName] = true
		for _, ip := range pod.Status.PodIPs {
			addr, err := netip.ParseAddr(ip.IP)
			if err != nil {
				return nil, fmt.Errorf("address of pod %s: %w", pod.Name, err)
			}
			peer.Addrs = append(peer.Addrs, addr)
		}
		peers = append(peers, peer)
	}
	if len(reasons) > 0 {
		return nil, errors.Join(reasons...)
	}
	if len(names) < nodes {
		return nil, fmt.Errorf("pods run on %d of the %d nodes that this needs", len(names), nodes)
	}
	slices.SortFunc(peers, func(a, b connectivity.Peer) int { return strings.Compare(a.Name, b.Name) })
	return peers, nil
}

// notReady says what a pod waits for, or nothing when it is ready.
func notReady(pod *corev1.Pod) string {
	ready := "has not started"
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue:
			return "has no node, as each needs one of its own: " + c.Message
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
			return ""
		case c.Type == corev1.PodReady:
			ready = fmt.Sprintf("on %s is not ready: %s", pod.Spec.NodeName, c.Message)
		}
	}
	return ready
}

// events returns the last warnings about the pods of the namespace, such as why the network could not be set up.
func (o checkOptions) events(client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := client.CoreV1().Events(o.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.Set{"type": corev1.EventTypeWarning, "involvedObject.kind": "Pod"}.String(),
	})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	pods, err := client.CoreV1().Pods(o.namespace).List(ctx, metav1.ListOptions{LabelSelector: o.selector})
	if err != nil {
		return fmt.Errorf("read pods: %w", err)
	}
	latest := map[string]string{}
	for i := range list.Items {
		latest[list.Items[i].InvolvedObject.Name] = list.Items[i].Message
	}
	var warnings []error
	for i := range pods.Items {
		if message := latest[pods.Items[i].Name]; message != "" {
			warnings = append(warnings, fmt.Errorf("event of pod %s: %s", pods.Items[i].Name, message))
		}
	}
	return errors.Join(warnings...)
}
