package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// kind is a kind of object in a history.
type kind int

const (
	nodeKind kind = iota
	networkKind
	subnetKind
	reportKind
	modeKind
	serviceKind
	kinds
)

// kindOf returns the kind of an object, of a list, or of an apply configuration.
func kindOf(o any) kind {
	switch o.(type) {
	case *corev1.Node, *corev1.NodeList:
		return nodeKind
	case *podnetv1alpha1.PodNetwork, *podnetv1alpha1.PodNetworkList:
		return networkKind
	case *podnetv1alpha1.NodeSubnet, *podnetv1alpha1.NodeSubnetList:
		return subnetKind
	case *podnetv1alpha1.NodeNetwork, *podnetv1alpha1.NodeNetworkList:
		return reportKind
	case *podnetv1alpha1.RouteMode, *podnetv1alpha1.RouteModeList:
		return modeKind
	case *networkingv1.ServiceCIDR, *networkingv1.ServiceCIDRList:
		return serviceKind
	}
	panic(fmt.Sprintf("%T is of no kind in a history", o))
}

func emptyOf(k kind) client.Object {
	return []client.Object{
		&corev1.Node{}, &podnetv1alpha1.PodNetwork{}, &podnetv1alpha1.NodeSubnet{}, &podnetv1alpha1.NodeNetwork{},
		&podnetv1alpha1.RouteMode{}, &networkingv1.ServiceCIDR{},
	}[k]
}

// version is what an object became at a moment.
type version struct {
	name string
	at   time.Time
	// object is nil where it was deleted.
	object client.Object
}

// apiServer is a fake client that does what an API server does besides: it gives
// UIDs and times, refuses what the rules of the kinds forbid, and remembers all
// versions, so that others can see what was there a while ago.
type apiServer struct {
	client  client.Client
	clock   *testingclock.FakeClock
	log     [kinds][]version
	now     [kinds]map[string]client.Object
	uids    int
	deleted map[types.UID]*metav1.Time
}

func newAPIServer(clock *testingclock.FakeClock) *apiServer {
	s := &apiServer{clock: clock, deleted: map[types.UID]*metav1.Time{}}
	for k := range s.now {
		s.now[k] = map[string]client.Object{}
	}
	// No more kinds than there are in a history: the fake client maps them all for each one made.
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme, podnetv1alpha1.AddToScheme} {
		utilruntime.Must(add(scheme))
	}
	s.client = fake.NewClientBuilder().WithScheme(scheme).
		WithStatusSubresource(&corev1.Node{}, &podnetv1alpha1.PodNetwork{}, &podnetv1alpha1.NodeNetwork{}, &podnetv1alpha1.RouteMode{}).
		Build()
	return s
}

// record takes note of what became of an object.
func (s *apiServer) record(k kind, name string) {
	object := emptyOf(k)
	err := s.client.Get(context.Background(), client.ObjectKey{Name: name}, object)
	before := s.now[k][name]
	switch {
	case apierrors.IsNotFound(err):
		if before == nil {
			return
		}
		delete(s.now[k], name)
		object = nil
	case err != nil:
		panic(err)
	case before != nil && before.GetResourceVersion() == object.GetResourceVersion():
		return
	default:
		if !object.GetDeletionTimestamp().IsZero() {
			if s.deleted[object.GetUID()] == nil {
				s.deleted[object.GetUID()] = s.seconds()
			}
			object.SetDeletionTimestamp(s.deleted[object.GetUID()])
		}
		s.now[k][name] = object
	}
	s.log[k] = append(s.log[k], version{name: name, at: s.clock.Now(), object: object})
}

// seconds is now as objects have it.
func (s *apiServer) seconds() *metav1.Time {
	t := metav1.NewTime(s.clock.Now().Truncate(time.Second))
	return &t
}

func (s *apiServer) create(o client.Object) error {
	s.uids++
	o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.uids)))
	o.SetCreationTimestamp(*s.seconds())
	o.SetGeneration(1)
	err := s.client.Create(context.Background(), o)
	s.record(kindOf(o), o.GetName())
	return err
}

func (s *apiServer) update(o client.Object) error {
	k := kindOf(o)
	stored := emptyOf(k)
	if err := s.client.Get(context.Background(), client.ObjectKeyFromObject(o), stored); err != nil {
		return err
	}
	if stored.GetUID() != o.GetUID() {
		return conflict(o)
	}
	if err := valid(stored, o); err != nil {
		return err
	}
	o = o.DeepCopyObject().(client.Object)
	// The fake client has its own time of deletion, which nobody sees.
	o.SetDeletionTimestamp(stored.GetDeletionTimestamp())
	if specOf(o) != nil && !apiequality.Semantic.DeepEqual(specOf(o), specOf(stored)) {
		o.SetGeneration(stored.GetGeneration() + 1)
	}
	err := s.client.Update(context.Background(), o)
	s.record(k, o.GetName())
	return err
}

func specOf(o client.Object) any {
	switch o := o.(type) {
	case *podnetv1alpha1.PodNetwork:
		return o.Spec
	case *podnetv1alpha1.NodeSubnet:
		return o.Spec
	}
	return nil
}

func conflict(o client.Object) error {
	return apierrors.NewConflict(schema.GroupResource{Resource: fmt.Sprintf("%T", o)}, o.GetName(), errors.New("it has changed"))
}

// valid has the rules of the API for updates.
func valid(before, after client.Object) error {
	if !before.GetDeletionTimestamp().IsZero() {
		for _, f := range after.GetFinalizers() {
			if !slices.Contains(before.GetFinalizers(), f) {
				return fmt.Errorf("%s: no finalizer can be added to an object that is being deleted", after.GetName())
			}
		}
	}
	switch is := after.(type) {
	case *podnetv1alpha1.NodeSubnet:
		was := before.(*podnetv1alpha1.NodeSubnet)
		if was.Spec.Node != is.Spec.Node || was.Spec.CIDR != is.Spec.CIDR || was.Spec.Network != is.Spec.Network {
			return fmt.Errorf("%s: node, cidr and network never change", is.Name)
		}
		if was.Spec.NodeUID != "" && is.Spec.NodeUID == "" {
			return fmt.Errorf("%s: nodeUID is never taken away once it is set", is.Name)
		}
		if was.Spec.State == podnetv1alpha1.SubnetReleased && is.Spec.State != podnetv1alpha1.SubnetReleased && was.Spec.NodeUID == is.Spec.NodeUID {
			return fmt.Errorf("%s: a released block cannot be taken back", is.Name)
		}
	case *podnetv1alpha1.PodNetwork:
		was := before.(*podnetv1alpha1.PodNetwork)
		for _, r := range was.Spec.Ranges {
			if i := indexOfRange(is, r.CIDR); i < 0 && !removable(was, r) || i >= 0 && is.Spec.Ranges[i].NodePrefixLength != r.NodePrefixLength {
				return fmt.Errorf("range %s cannot be removed, nor its nodePrefixLength change", r.CIDR)
			}
		}
	}
	return nil
}

func indexOfRange(n *podnetv1alpha1.PodNetwork, cidr string) int {
	return slices.IndexFunc(n.Spec.Ranges, func(r podnetv1alpha1.Range) bool { return r.CIDR == cidr })
}

// removable is the rule of the API for the removal of a range.
func removable(was *podnetv1alpha1.PodNetwork, r podnetv1alpha1.Range) bool {
	return r.State == podnetv1alpha1.RangeDraining && slices.ContainsFunc(was.Status.Ranges, func(s podnetv1alpha1.RangeStatus) bool {
		return s.CIDR == r.CIDR && s.State == podnetv1alpha1.RangeDraining && s.BlocksAllocated != nil && *s.BlocksAllocated == 0
	})
}

func (s *apiServer) delete(o client.Object, opts ...client.DeleteOption) error {
	k := kindOf(o)
	options := &client.DeleteOptions{}
	options.ApplyOptions(opts)
	stored := s.now[k][o.GetName()]
	if p := options.Preconditions; p != nil && p.UID != nil && stored != nil && stored.GetUID() != *p.UID {
		return conflict(o)
	}
	target := emptyOf(k)
	target.SetName(o.GetName())
	err := s.client.Delete(context.Background(), target)
	s.record(k, o.GetName())
	return err
}

func (s *apiServer) patchStatus(o client.Object, patch client.Patch) error {
	o = o.DeepCopyObject().(client.Object)
	o.SetDeletionTimestamp(nil)
	err := s.client.Status().Patch(context.Background(), o, patch)
	s.record(kindOf(o), o.GetName())
	return err
}

func (s *apiServer) updateStatus(o client.Object) error {
	err := s.client.Status().Update(context.Background(), o)
	s.record(kindOf(o), o.GetName())
	return err
}

func (s *apiServer) applyStatus(k kind, name string, o runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	if s.now[k][name] == nil {
		return apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	err := s.client.Status().Apply(context.Background(), o, opts...)
	s.record(k, name)
	return err
}

// subnets returns the NodeSubnets that there are, by name.
func (s *apiServer) subnets() []*podnetv1alpha1.NodeSubnet {
	var out []*podnetv1alpha1.NodeSubnet
	for _, name := range slices.Sorted(maps.Keys(s.now[subnetKind])) {
		out = append(out, s.now[subnetKind][name].(*podnetv1alpha1.NodeSubnet))
	}
	return out
}

func (s *apiServer) subnet(name string) *podnetv1alpha1.NodeSubnet {
	o, _ := s.now[subnetKind][name].(*podnetv1alpha1.NodeSubnet)
	return o
}

func (s *apiServer) node(name string) *corev1.Node {
	o, _ := s.now[nodeKind][name].(*corev1.Node)
	return o
}

func (s *apiServer) report(name string) *podnetv1alpha1.NodeNetwork {
	o, _ := s.now[reportKind][name].(*podnetv1alpha1.NodeNetwork)
	return o
}

func (s *apiServer) network() *podnetv1alpha1.PodNetwork {
	return s.now[networkKind][podnetv1alpha1.DefaultPodNetwork].(*podnetv1alpha1.PodNetwork)
}

// revision counts all versions.
func (s *apiServer) revision() int {
	n := 0
	for _, l := range s.log {
		n += len(l)
	}
	return n
}

// watcher is what a watch of the API server has brought so far, kind by kind. It
// never goes back.
type watcher struct {
	server  *apiServer
	at      [kinds]int
	objects [kinds]map[string]client.Object
}

func newWatcher(s *apiServer) *watcher {
	v := &watcher{server: s}
	for k := range v.objects {
		v.objects[k] = map[string]client.Object{}
	}
	return v
}

// advance takes in versions of a kind up to one.
func (v *watcher) advance(k kind, to int) {
	for ; v.at[k] < to; v.at[k]++ {
		is := v.server.log[k][v.at[k]]
		if is.object == nil {
			delete(v.objects[k], is.name)
		} else {
			v.objects[k][is.name] = is.object
		}
	}
}

// catchUp takes in all that happened before a moment.
func (v *watcher) catchUp(before time.Time) {
	for k := range kinds {
		to := v.at[k]
		for to < len(v.server.log[k]) && v.server.log[k][to].at.Before(before) {
			to++
		}
		v.advance(k, to)
	}
}

// latest takes in everything.
func (v *watcher) latest() {
	for k := range kinds {
		v.advance(k, len(v.server.log[k]))
	}
}

// Get implements client.Reader.
func (v *watcher) Get(_ context.Context, key client.ObjectKey, out client.Object, _ ...client.GetOption) error {
	o := v.objects[kindOf(out)][key.Name]
	if o == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: fmt.Sprintf("%T", out)}, key.Name)
	}
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(o.DeepCopyObject()).Elem())
	return nil
}

// List implements client.Reader.
func (v *watcher) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := &client.ListOptions{}
	options.ApplyOptions(opts)
	objects := v.objects[kindOf(list)]
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		o := objects[name]
		if options.FieldSelector != nil {
			if !selected(options.FieldSelector, o) {
				continue
			}
		}
		if options.UnsafeDisableDeepCopy == nil || !*options.UnsafeDisableDeepCopy {
			o = o.DeepCopyObject().(client.Object)
		}
		items.Set(reflect.Append(items, reflect.ValueOf(o).Elem()))
	}
	return nil
}

// selected reports whether an object has the value of the index that a selector asks for.
func selected(selector fields.Selector, o client.Object) bool {
	return slices.ContainsFunc(indices, func(by index) bool {
		value, asked := selector.RequiresExactMatch(by.field)
		return asked && slices.Contains(by.values(o), value)
	})
}
