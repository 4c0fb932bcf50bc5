package controllers

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// summaryInterval is how long changes are gathered before a status that sums up
// many objects is computed again: those of 5,000 nodes cost one write, not 5,000.
const summaryInterval = time.Second

// summarised enqueues what requests returns, after summaryInterval, whatever
// happened to an object; what is enqueued already stays as it is.
func summarised(requests func(context.Context) []ctrl.Request) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]
	later := func(ctx context.Context, q queue) {
		for _, request := range requests(ctx) {
			q.AddAfter(request, summaryInterval)
		}
	}
	return handler.Funcs{
		CreateFunc:  func(ctx context.Context, _ event.CreateEvent, q queue) { later(ctx, q) },
		UpdateFunc:  func(ctx context.Context, _ event.UpdateEvent, q queue) { later(ctx, q) },
		DeleteFunc:  func(ctx context.Context, _ event.DeleteEvent, q queue) { later(ctx, q) },
		GenericFunc: func(ctx context.Context, _ event.GenericEvent, q queue) { later(ctx, q) },
	}
}

// specChanged lets through what changes what users ask for: the spec, a deletion
// that waits for a finalizer (both change the generation), and annotations.
func specChanged() predicate.Predicate {
	return predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
}

// nodeChanged lets through what podnet uses of a Node, and holds back the
// heartbeats that make up most of a Node's changes.
func nodeChanged() predicate.Predicate {
	return updates(func(before, after *corev1.Node) bool {
		return before.UID != after.UID ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
			!maps.Equal(before.Labels, after.Labels) ||
			!slices.Equal(before.Status.Addresses, after.Status.Addresses) ||
			networkUnavailable(before).Status != networkUnavailable(after).Status ||
			networkUnavailable(before).Reason != networkUnavailable(after).Reason
	})
}

// reportChanged lets through what the manager uses of an agent's report, and
// holds back its counts.
func reportChanged() predicate.Predicate {
	return updates(func(before, after *podnetv1alpha1.NodeNetwork) bool {
		was := apimeta.FindStatusCondition(before.Status.Conditions, podnetv1alpha1.ConditionProgrammed)
		is := apimeta.FindStatusCondition(after.Status.Conditions, podnetv1alpha1.ConditionProgrammed)
		return before.UID != after.UID || reported(before) != reported(after) ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
			!slices.Equal(before.Status.Endpoints, after.Status.Endpoints) ||
			(was == nil) != (is == nil) ||
			is != nil && (was.Status != is.Status || was.Reason != is.Reason)
	})
}

// usageChanged lets through what reportChanged does, and what an agent says of
// its blocks and addresses.
func usageChanged() predicate.Predicate {
	return predicate.Or(reportChanged(), updates(func(before, after *podnetv1alpha1.NodeNetwork) bool {
		return before.Status.RollCall != after.Status.RollCall ||
			!apiequality.Semantic.DeepEqual(before.Status.Blocks, after.Status.Blocks) ||
			!apiequality.Semantic.DeepEqual(before.Status.Addresses, after.Status.Addresses)
	}))
}

// routeModesChanged lets through what an agent says of RouteModes.
func routeModesChanged() predicate.Predicate {
	return updates(func(before, after *podnetv1alpha1.NodeNetwork) bool {
		return before.UID != after.UID || !apiequality.Semantic.DeepEqual(before.Status.RouteModes, after.Status.RouteModes)
	})
}

// divergenceChanged lets through whether an agent says that paths are not as they are asked for.
func divergenceChanged() predicate.Predicate {
	return updates(func(before, after *podnetv1alpha1.NodeNetwork) bool {
		return !apiequality.Semantic.DeepEqual(before.Status.Paths.Diverging, after.Status.Paths.Diverging) ||
			before.Status.Paths.NetworkGeneration != after.Status.Paths.NetworkGeneration
	})
}

// updates lets through all creations and deletions, and those updates of T that changed says yes to.
func updates[T client.Object](changed func(before, after T) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, known := e.ObjectOld.(T)
		after, alsoKnown := e.ObjectNew.(T)
		return !known || !alsoKnown || changed(before, after)
	}}
}
