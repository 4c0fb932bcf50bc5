package status

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/statuses"
)

// FieldOwner owns the fields of NodeNetwork.status in server-side apply.
const FieldOwner = podnetv1alpha1.AgentFieldOwner

// writeInterval is the least time between two writes, so that a burst of pods
// does not become a burst of writes to the API server.
const writeInterval = time.Second

// pathsInterval is, for each path of the node, the least time between two writes of which
// the later reports only other paths: a node that fails is news on all others at once. At
// 5,000 nodes that is 10 s.
const pathsInterval = 2 * time.Millisecond

// readInterval is the time after which the object is read again although there is
// nothing new to say.
const readInterval = 30 * time.Second

// longestSpread bounds the time before a roll call is answered.
const longestSpread = 5 * time.Second

// Writer writes the status of one node's NodeNetwork.
type Writer struct {
	// Reader reads uncached: an agent watches no NodeNetworks.
	Reader   client.Reader
	Client   client.Client
	Recorder events.EventRecorder
	Node     string
	Version  string
	// Restored is called, unless it is nil, when the API server has not what was
	// written there: it was put back to an older state.
	Restored func()

	reports chan Report
	// known is what the object says, as it was last read or written, attempted what was last
	// tried to write, and told what was written in full: a CRD that is older than the agent
	// does not take all of it. They are Run's alone.
	known, attempted, told *podnetv1alpha1.NodeNetworkStatus
	// object is the object as it was last read, said are the reasons of the conditions of
	// which users were told, and waited since when others wait for it. They are Run's alone.
	object *podnetv1alpha1.NodeNetwork
	said   map[string]string
	waited map[string]time.Time
	// written is when the status was last written.
	written time.Time
}

// NewWriter returns a Writer; set its fields before Run.
func NewWriter(w Writer) *Writer {
	w.reports = make(chan Report, 1)
	return &w
}

// Report hands over what the newest pass found. It never blocks: of reports that
// were not written yet only the newest counts. It is for one caller at a time.
func (w *Writer) Report(r Report) {
	recordReport(r)
	for {
		select {
		case w.reports <- r:
			return
		default:
		}
		// The one that waits is older, be it one that could not be written.
		select {
		case <-w.reports:
		default:
		}
	}
}

// Run writes reports as they come until ctx ends. What could not be written is
// tried again.
func (w *Writer) Run(ctx context.Context) error {
	var read time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-w.reports:
			if !w.spread(ctx, r) {
				return nil
			}
			// The object may have been recreated, without a status.
			again := time.Since(read) > readInterval
			if err := w.write(ctx, r, again); err != nil {
				log.FromContext(ctx).Info("cannot write the status yet, trying again", "reason", err.Error())
				w.again(r)
			} else {
				record(w.known)
				if again {
					read = time.Now()
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(writeInterval):
		}
	}
}

// spread waits a moment before a roll call is answered, for up to a millisecond a
// node, as all agents answer at once. It returns false when ctx ends.
func (w *Writer) spread(ctx context.Context, r Report) bool {
	if w.known == nil || w.known.RollCall == r.RollCall {
		return true
	}
	most := min(time.Duration(len(r.Plan.Paths))*time.Millisecond, longestSpread)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(rand.N(most + 1)): //nolint:gosec // It need not be unpredictable.
		return true
	}
}

// again puts a report back unless a newer one waits.
func (w *Writer) again(r Report) {
	select {
	case w.reports <- r:
	default:
	}
}

// write writes the report unless it says what the object says already. It reads
// the object where it has to write, and where asked to.
func (w *Writer) write(ctx context.Context, r Report, read bool) error {
	if w.known != nil && !read {
		if st := Build(r, w.known.Conditions, observed(w.known.Conditions), w.Version); same(&st, w.known) || same(&st, w.told) {
			w.recordChanges(st.Conditions, time.Now())
			return nil
		} else if sameButPaths(&st, w.known) && time.Since(w.written) < time.Duration(len(r.Plan.Paths))*pathsInterval {
			// One of the next reports has it: there is one with every pass.
			return nil
		}
	}
	var nn podnetv1alpha1.NodeNetwork
	if err := w.Reader.Get(ctx, client.ObjectKey{Name: w.Node}, &nn); err != nil {
		return fmt.Errorf("read NodeNetwork %s: %w", w.Node, err)
	}
	// A write whose answer was lost may have been done all the same.
	if w.known != nil && w.Restored != nil && !wrote(&nn.Status, w.known) && !wrote(&nn.Status, w.attempted) {
		w.Restored()
	}
	if !same(&nn.Status, w.known) {
		w.told = nil
	}
	w.known, w.object = nn.Status.DeepCopy(), &nn
	if w.said == nil {
		w.said = reasons(nn.Status.Conditions)
	}
	st := Build(r, nn.Status.Conditions, nn.Generation, w.Version)
	if same(&st, &nn.Status) || same(&st, w.told) {
		w.recordChanges(st.Conditions, time.Now())
		return nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&st)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	apply := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	apply.SetGroupVersionKind(podnetv1alpha1.GroupVersion.WithKind("NodeNetwork"))
	apply.SetName(w.Node)
	written, err := statuses.Apply(ctx, w.Client, client.ApplyConfigurationFromUnstructured(apply), FieldOwner)
	w.attempted = &podnetv1alpha1.NodeNetworkStatus{}
	if err := errors.Join(err, runtime.DefaultUnstructuredConverter.FromUnstructured(written, w.attempted)); err != nil {
		return fmt.Errorf("write status of NodeNetwork %s: %w", w.Node, err)
	}
	w.known, w.told, w.written = w.attempted, &st, time.Now()
	w.recordChanges(st.Conditions, time.Now())
	return nil
}

func same(a, b *podnetv1alpha1.NodeNetworkStatus) bool {
	return b != nil && equality.Semantic.DeepEqual(*a, *b)
}

// sameButPaths reports whether two statuses differ in nothing but what they say of paths.
func sameButPaths(a, b *podnetv1alpha1.NodeNetworkStatus) bool {
	without := func(st *podnetv1alpha1.NodeNetworkStatus) *podnetv1alpha1.NodeNetworkStatus {
		st = st.DeepCopy()
		st.Paths, st.RouteModes, st.Summary = podnetv1alpha1.PathsStatus{}, nil, podnetv1alpha1.NodeNetworkSummary{}
		meta.RemoveStatusCondition(&st.Conditions, podnetv1alpha1.ConditionPathsProven)
		meta.RemoveStatusCondition(&st.Conditions, podnetv1alpha1.ConditionPathMTUReduced)
		return st
	}
	return equality.Semantic.DeepEqual(without(a), without(b))
}

// wrote reports whether a status is what was written, apart from what the manager writes
// into it of an agent that does not respond.
func wrote(is, written *podnetv1alpha1.NodeNetworkStatus) bool {
	if written == nil {
		return false
	}
	is = is.DeepCopy()
	for i, c := range is.Conditions {
		if was := meta.FindStatusCondition(written.Conditions, c.Type); was != nil && c.Reason == podnetv1alpha1.ReasonAgentNotResponding {
			is.Conditions[i] = *was
			is.Summary.Problem, is.Summary.Message = written.Summary.Problem, written.Summary.Message
		}
	}
	return equality.Semantic.DeepEqual(*is, *written)
}

func observed(conditions []metav1.Condition) int64 {
	if len(conditions) == 0 {
		return 0
	}
	return conditions[0].ObservedGeneration
}
