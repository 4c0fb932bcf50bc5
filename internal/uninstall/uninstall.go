// Package uninstall asks the agents to take podnet off their nodes, waits for
// their answers, and removes podnet's objects if asked to. What is taken off a
// node is the agent's to know, and the programs themselves are Helm's to remove.
//
// It needs these rights, which a role of its own holds and the manager does not:
// on nodes get, list; on podnetworks get, list, patch, delete; on nodenetworks
// and routemodes list, delete; on nodesubnets list, update, delete.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// Requested is the value of the annotation that asks the agents.
const Requested = "requested"

// pollInterval is how often the answers are looked at.
const pollInterval = 500 * time.Millisecond

// removalTimeout bounds the removal of objects, which waits for nobody but the API server.
const removalTimeout = time.Minute

// Config says what to uninstall and how.
type Config struct {
	Client client.Client
	// Timeout is how long agents have to answer. Those that do not are named in
	// Out, and are no error: they must not keep the rest from being removed.
	Timeout time.Duration
	// RemoveObjects removes every object of podnet's kinds afterwards.
	RemoveObjects bool
	// Out is told, in sentences, what happens.
	Out io.Writer
}

// Run uninstalls.
func Run(ctx context.Context, c Config) error {
	asked, err := c.ask(ctx, Requested)
	if err != nil {
		return err
	}
	if !asked {
		c.say("There is no PodNetwork %s: no agent has anything to take off its node.", podnetv1alpha1.DefaultPodNetwork)
	} else if err := c.await(ctx); err != nil {
		return err
	}
	if c.RemoveObjects {
		return c.removeObjects(ctx)
	}
	if !asked {
		return nil
	}
	// An agent that has answered does nothing more until it is restarted, so
	// that only an installation to come serves the network that is kept.
	_, err = c.ask(ctx, "")
	return err
}

func (c Config) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Out, format+"\n", args...)
}

// ask sets the annotation, or takes it away for an empty value, and returns
// whether there is a network to set it on.
func (c Config) ask(ctx context.Context, value string) (bool, error) {
	network := &podnetv1alpha1.PodNetwork{}
	err := c.Client.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)
	if apierrors.IsNotFound(err) || apimeta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	}
	before := network.DeepCopy()
	if value == "" {
		delete(network.Annotations, podnetv1alpha1.UninstallAnnotation)
	} else {
		if network.Annotations == nil {
			network.Annotations = map[string]string{}
		}
		network.Annotations[podnetv1alpha1.UninstallAnnotation] = value
	}
	if err := c.Client.Patch(ctx, network, client.MergeFrom(before)); err != nil {
		return false, fmt.Errorf("annotate PodNetwork %s: %w", network.Name, err)
	}
	return true, nil
}

// await waits until the agent of every node that is Ready has answered, and says
// which have not when the time is over.
func (c Config) await(ctx context.Context) error {
	c.say("Waiting up to %s for the agents to take podnet off their nodes.", c.Timeout)
	var silent []string
	// Reading goes by the caller's context: near the end of the wait, the client would
	// refuse to begin a request that might outlast it, and that is no answer either.
	err := wait.PollUntilContextTimeout(ctx, pollInterval, c.Timeout, true, func(context.Context) (bool, error) {
		var err error
		silent, err = c.silent(ctx)
		return err == nil && len(silent) == 0, err
	})
	switch {
	case err == nil:
		c.say("Every node that is Ready is rid of podnet.")
		return nil
	case wait.Interrupted(err) && ctx.Err() == nil:
		c.say("Warning: the agents of these nodes did not answer within %s, and something of podnet may be left on them: %s."+
			" A restart of the node removes it.", c.Timeout, strings.Join(silent, ", "))
		return nil
	default:
		return fmt.Errorf("wait for the agents: %w", err)
	}
}

// silent names the nodes that are Ready and whose agent has not answered.
func (c Config) silent(ctx context.Context) ([]string, error) {
	nodes, reports := &corev1.NodeList{}, &podnetv1alpha1.NodeNetworkList{}
	if err := errors.Join(c.Client.List(ctx, nodes), c.Client.List(ctx, reports)); err != nil {
		return nil, fmt.Errorf("list nodes and their reports: %w", err)
	}
	var names []string
	for i := range nodes.Items {
		node := &nodes.Items[i]
		ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		removed := slices.ContainsFunc(reports.Items, func(n podnetv1alpha1.NodeNetwork) bool {
			return n.Name == node.Name && apimeta.IsStatusConditionTrue(n.Status.Conditions, podnetv1alpha1.ConditionRemoved)
		})
		if ready && !removed {
			names = append(names, node.Name)
		}
	}
	return names, nil
}

// removeObjects removes every object of podnet's kinds. The network goes first:
// without it the manager, which may still run, recreates nothing.
func (c Config) removeObjects(ctx context.Context) error {
	c.say("Removing all PodNetworks, RouteModes, NodeSubnets and NodeNetworks.")
	kinds := []client.ObjectList{
		&podnetv1alpha1.PodNetworkList{}, &podnetv1alpha1.RouteModeList{},
		&podnetv1alpha1.NodeSubnetList{}, &podnetv1alpha1.NodeNetworkList{},
	}
	err := wait.PollUntilContextTimeout(ctx, pollInterval, removalTimeout, true, func(ctx context.Context) (bool, error) {
		left := 0
		for _, list := range kinds {
			n, err := c.removeAll(ctx, list)
			if err != nil {
				return false, err
			}
			left += n
		}
		return left == 0, nil
	})
	if err != nil {
		return fmt.Errorf("remove podnet's objects: %w", err)
	}
	c.say("Removed.")
	return nil
}

// removeAll deletes what a list holds and returns how many there were. A block's
// rest is of no use once no network is left, so its finalizer goes at once.
func (c Config) removeAll(ctx context.Context, list client.ObjectList) (int, error) {
	if err := c.Client.List(ctx, list); err != nil {
		if apimeta.IsNoMatchError(err) {
			return 0, nil
		}
		return 0, fmt.Errorf("list: %w", err)
	}
	objects, err := apimeta.ExtractList(list)
	if err != nil {
		return 0, fmt.Errorf("read a list: %w", err)
	}
	for _, o := range objects {
		if err := c.remove(ctx, o); err != nil {
			return 0, err
		}
	}
	return len(objects), nil
}

func (c Config) remove(ctx context.Context, o runtime.Object) error {
	object, ok := o.(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object", o)
	}
	if finalizers := object.GetFinalizers(); slices.Contains(finalizers, podnetv1alpha1.NodeSubnetFinalizer) {
		object.SetFinalizers(slices.DeleteFunc(finalizers, func(f string) bool { return f == podnetv1alpha1.NodeSubnetFinalizer }))
		// A manager that still runs may write at the same moment: the next pass tries again.
		if err := c.Client.Update(ctx, object); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return fmt.Errorf("take the finalizer off %s: %w", object.GetName(), err)
		}
	}
	if err := c.Client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", object.GetName(), err)
	}
	return nil
}
