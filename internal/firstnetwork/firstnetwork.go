// Package firstnetwork makes the PodNetwork of a new installation. It makes it once: from then on the object belongs to
// those who run the cluster, and what an installer's values say changes nothing in it.
//
// It needs these rights, which a role of its own holds and the manager does not: on podnetworks get, create, and patch
// for the one named default; on nodesubnets list.
package firstnetwork

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// FieldOwner is who the API server is told has written the network.
const FieldOwner = "podnet-create-network"

// pollInterval is how long to wait before the next try.
const pollInterval = 500 * time.Millisecond

// Config says what network to make.
type Config struct {
	Client client.Client
	// Spec is the spec of a PodNetwork in JSON, with those fields only that the installer's values set.
	Spec []byte
	// Timeout is how long the API server has to serve podnet's kinds, and to answer.
	Timeout time.Duration
	// Out is told, in sentences, what happens.
	Out io.Writer
}

// Run makes the PodNetwork unless there is one. One that is there stays as it is, which is no error: where it differs
// from the spec, Out is told so.
func Run(ctx context.Context, c Config) error {
	var spec podnetv1alpha1.PodNetworkSpec
	decoder := json.NewDecoder(bytes.NewReader(c.Spec))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("read the spec of PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, c.Timeout, true, func(ctx context.Context) (bool, error) {
		err := c.try(ctx, spec)
		var final *finalError
		if errors.As(err, &final) {
			return false, err
		}
		// A client that runs out of time says only that, so the answer before it is the one to tell.
		if err != nil && (last == nil || ctx.Err() == nil) {
			last = err
		}
		return err == nil, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return fmt.Errorf("PodNetwork %s could not be made within %s; are podnet's CRDs installed? The last answer: %w",
			podnetv1alpha1.DefaultPodNetwork, c.Timeout, last)
	}
	return err
}

// finalError is an answer that no further try would change.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

func (c Config) try(ctx context.Context, spec podnetv1alpha1.PodNetworkSpec) error {
	network := &podnetv1alpha1.PodNetwork{}
	err := c.Client.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)
	switch {
	case err == nil:
		return c.leave(ctx, network)
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	}
	if err := c.mayCreate(ctx, spec); err != nil {
		return err
	}
	network = &podnetv1alpha1.PodNetwork{ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork}, Spec: spec}
	err = c.Client.Create(ctx, network, client.FieldOwner(FieldOwner))
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return &finalError{fmt.Errorf("the API server refuses PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)}
	case err != nil:
		// Among them that it exists now: the next try reads it.
		return fmt.Errorf("create PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	}
	c.say("PodNetwork %s is made. From now on it is changed with kubectl or kept in git, and no longer by values of the chart.",
		network.Name)
	return nil
}

// mayCreate returns an error where the network was removed while nodes hold blocks that the spec knows nothing of: the
// values of an installation are older than a network whose ranges have changed since.
func (c Config) mayCreate(ctx context.Context, spec podnetv1alpha1.PodNetworkSpec) error {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := c.Client.List(ctx, subnets); err != nil {
		return fmt.Errorf("list NodeSubnets: %w", err)
	}
	for _, subnet := range subnets.Items {
		block, err := netip.ParsePrefix(subnet.Spec.CIDR)
		if err == nil && !within(block, spec.Ranges) {
			return &finalError{fmt.Errorf("there is no PodNetwork %s, and node %s holds the block %s, which lies in none of the ranges"+
				" of the chart's values: the network was removed, and the values are older than it. Apply the PodNetwork that"+
				" the cluster had, with a range for each block of `kubectl get nodesubnets`",
				podnetv1alpha1.DefaultPodNetwork, subnet.Spec.Node, subnet.Spec.CIDR)}
		}
	}
	return nil
}

func within(block netip.Prefix, ranges []podnetv1alpha1.Range) bool {
	for _, r := range ranges {
		prefix, err := netip.ParsePrefix(r.CIDR)
		if err == nil && prefix.Bits() <= block.Bits() && prefix.Contains(block.Addr()) {
			return true
		}
	}
	return false
}

// leave takes a network that exists out of the hands of Helm, and says where the values differ from it.
func (c Config) leave(ctx context.Context, network *podnetv1alpha1.PodNetwork) error {
	if err := c.disown(ctx, network); err != nil {
		return err
	}
	live, err := json.Marshal(network.Spec)
	if err != nil {
		return fmt.Errorf("write the spec of PodNetwork %s: %w", network.Name, err)
	}
	found, err := differences(c.Spec, live)
	if err != nil {
		return fmt.Errorf("compare PodNetwork %s with the chart's values: %w", network.Name, err)
	}
	if len(found) == 0 {
		c.say("PodNetwork %s exists already, and stays as it is.", network.Name)
		return nil
	}
	c.say("PodNetwork %s exists already, and stays as it is. The chart's values differ from it, and change nothing:\n  %s\n"+
		"Change the network with kubectl, or in git if it is kept there.", network.Name, strings.Join(found, "\n  "))
	return nil
}

// Labels and annotations by which Helm, and those who deploy its charts, know an object as theirs.
const (
	managedByLabel  = "app.kubernetes.io/managed-by"
	managedByHelm   = "Helm"
	managedByPodnet = "podnet"
	chartLabel      = "helm.sh/chart"
	ownChart        = "podnet-"
)

var (
	releaseLabels      = []string{chartLabel, "app.kubernetes.io/instance", "app.kubernetes.io/version"}
	releaseAnnotations = []string{"meta.helm.sh/release-name", "meta.helm.sh/release-namespace"}
)

// disown ends the ownership of a release of this chart, which had the network as a part of it up to 0.1.0. Helm would
// otherwise write its old ranges again when such a release is rolled back to: server-side apply merges ranges by their
// CIDR, so that it takes a range that was removed for one that is new. The label, now somebody else's, makes it a conflict.
// A network in a chart of the user's own stays there.
func (c Config) disown(ctx context.Context, network *podnetv1alpha1.PodNetwork) error {
	if network.Labels[managedByLabel] != managedByHelm || !strings.HasPrefix(network.Labels[chartLabel], ownChart) {
		return nil
	}
	before := network.DeepCopy()
	network.Labels[managedByLabel] = managedByPodnet
	for _, key := range releaseLabels {
		delete(network.Labels, key)
	}
	for _, key := range releaseAnnotations {
		delete(network.Annotations, key)
	}
	if err := c.Client.Patch(ctx, network, client.MergeFrom(before), client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("take PodNetwork %s out of its Helm release: %w", network.Name, err)
	}
	c.say("PodNetwork %s no longer belongs to a Helm release.", network.Name)
	return nil
}

func (c Config) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Out, format+"\n", args...)
}
