// Package heartbeat shows that a node's agent is alive: it renews a Lease of the
// node's name in podnet's own namespace. The status of a NodeNetwork changes only when
// there is something new to say, and would stay as it is for ever after the agent's
// end. What follows from a Lease that is not renewed is left to the manager.
package heartbeat

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

const (
	// retry is the time to the next try after a renewal that failed.
	retry = 5 * time.Second
	// timeout bounds a renewal that the API server holds up.
	timeout = 10 * time.Second
	// spread is the share by which an interval is longer or shorter than it says: all
	// agents may have been started at once.
	spread = 0.05
)

// Config is what a Heart works with.
type Config struct {
	// Reader reads uncached: an agent watches neither Nodes nor Leases.
	Reader client.Reader
	Client client.Client
	Clock  clock.WithTicker
	// Namespace is podnet's own, and Node the name of the agent's node.
	Namespace, Node string
	// Removed reports whether podnet was taken off the node: then nobody is to wait
	// for its agent.
	Removed func() bool
}

// Heart renews the Lease of one node.
type Heart struct {
	cfg Config
	// lease is the Lease as it was last written or read; nil where that is unknown.
	lease *coordinationv1.Lease
}

// New returns a Heart that does nothing before Run.
func New(cfg Config) *Heart { return &Heart{cfg: cfg} }

// Run renews the Lease until ctx ends, or podnet was taken off the node.
func (h *Heart) Run(ctx context.Context) error {
	failed := false
	for {
		delay := wait.Jitter(time.Duration((1-spread)*float64(podnetv1alpha1.HeartbeatInterval)), 2*spread)
		done, err := h.beat(ctx)
		switch {
		case done, ctx.Err() != nil:
			return nil //nolint:nilerr // What failed because the agent ends is no error.
		case err != nil:
			log.FromContext(ctx).Info("cannot renew this node's Lease yet, trying again", "reason", err.Error())
			delay = retry
		case failed:
			log.FromContext(ctx).Info("renewed this node's Lease again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-h.cfg.Clock.After(delay):
		}
	}
}

// beat renews the Lease once. It reports whether that was the last time.
func (h *Heart) beat(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if h.cfg.Removed() {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: h.cfg.Namespace, Name: h.cfg.Node}}
		if err := h.cfg.Client.Delete(ctx, lease); client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("delete Lease %s: %w", h.cfg.Node, err)
		}
		return true, nil
	}
	if h.lease != nil {
		err := h.renew(ctx)
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, err
		}
		// Somebody changed it, or its Node went and came back.
		h.lease = nil
	}
	var lease coordinationv1.Lease
	err = h.cfg.Reader.Get(ctx, client.ObjectKey{Namespace: h.cfg.Namespace, Name: h.cfg.Node}, &lease)
	switch {
	case apierrors.IsNotFound(err):
		return false, h.create(ctx)
	case err != nil:
		return false, fmt.Errorf("read Lease %s: %w", h.cfg.Node, err)
	}
	h.lease = &lease
	return false, h.renew(ctx)
}

// create makes the Lease. It goes with its Node.
func (h *Heart) create(ctx context.Context) error {
	var node corev1.Node
	if err := h.cfg.Reader.Get(ctx, client.ObjectKey{Name: h.cfg.Node}, &node); err != nil {
		return fmt.Errorf("read Node %s: %w", h.cfg.Node, err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: h.cfg.Namespace, Name: h.cfg.Node,
		Labels:          map[string]string{podnetv1alpha1.HeartbeatLabel: podnetv1alpha1.HeartbeatOfAgent},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
	}}
	h.fill(lease)
	if err := h.cfg.Client.Create(ctx, lease); err != nil {
		return fmt.Errorf("create Lease %s: %w", h.cfg.Node, err)
	}
	h.lease = lease
	return nil
}

func (h *Heart) renew(ctx context.Context) error {
	lease := h.lease.DeepCopy()
	h.fill(lease)
	if err := h.cfg.Client.Update(ctx, lease); err != nil {
		return fmt.Errorf("renew Lease %s: %w", h.cfg.Node, err)
	}
	h.lease = lease
	return nil
}

func (h *Heart) fill(lease *coordinationv1.Lease) {
	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity:       ptr.To(h.cfg.Node),
		LeaseDurationSeconds: ptr.To(int32(podnetv1alpha1.HeartbeatPatience / time.Second)),
		RenewTime:            ptr.To(metav1.NewMicroTime(h.cfg.Clock.Now())),
	}
}
