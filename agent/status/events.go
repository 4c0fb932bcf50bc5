package status

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// patience is how long users hear nothing of a state that comes first wherever podnet
// is installed, or a node or an agent starts. Only one that lasts longer is news.
var patience = map[string]time.Duration{
	podnetv1alpha1.ReasonNoNetwork: time.Minute,
	podnetv1alpha1.ReasonNoBlock:   time.Minute,
	podnetv1alpha1.ReasonUnproven:  2 * time.Minute,
}

// recordChanges makes Events of conditions that changed their reason, good or bad.
func (w *Writer) recordChanges(conditions []metav1.Condition, now time.Time) {
	if w.object == nil {
		return
	}
	if w.said == nil {
		w.said = map[string]string{}
	}
	waiting := map[string]time.Time{}
	for _, c := range conditions {
		if w.said[c.Type] == c.Reason {
			continue
		}
		key := c.Type + "/" + c.Reason
		since, known := w.waited[key]
		if !known {
			since = now
		}
		if now.Sub(since) < patience[c.Reason] {
			waiting[key] = since
			continue
		}
		w.said[c.Type] = c.Reason
		w.Recorder.Eventf(w.object, nil, kindOf(c), c.Reason, "Report"+c.Type, "%s", c.Message)
	}
	w.waited = waiting
}

// kindOf is the kind of Event that reports a condition.
func kindOf(c metav1.Condition) string {
	good := metav1.ConditionTrue
	if c.Type == podnetv1alpha1.ConditionPathMTUReduced {
		good = metav1.ConditionFalse
	}
	switch {
	case c.Status != good, c.Reason == podnetv1alpha1.ReasonDegraded, c.Reason == podnetv1alpha1.ReasonOtherPath:
		return corev1.EventTypeWarning
	default:
		return corev1.EventTypeNormal
	}
}

// reasons are the reasons of conditions, by their types.
func reasons(conditions []metav1.Condition) map[string]string {
	out := map[string]string{}
	for _, c := range conditions {
		out[c.Type] = c.Reason
	}
	return out
}
