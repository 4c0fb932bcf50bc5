package firstnetwork

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// answers are errors that the API server gives to creations, one after the other, before it obeys.
type answers []error

func (a *answers) next() error {
	if len(*a) == 0 {
		return nil
	}
	err := (*a)[0]
	*a = (*a)[1:]
	return err
}

// run makes a network of one range against an API server that gives these answers first.
func run(t *testing.T, reads, creations answers) (client.Client, string, error) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := podnetv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	server := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if err := reads.next(); err != nil {
				return err
			}
			return c.Get(ctx, key, object, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			if err := creations.next(); err != nil {
				return err
			}
			return c.Create(ctx, object, options...)
		},
	}).Build()
	out := &bytes.Buffer{}
	err := Run(t.Context(), Config{
		Client: server, Spec: []byte(`{"ranges": [{"cidr": "10.244.0.0/16"}]}`), Timeout: time.Minute, Out: out,
	})
	return server, out.String(), err
}

func TestNetworkIsMadeOnceTheAPIServerServesTheKind(t *testing.T) {
	kind := schema.GroupKind{Group: podnetv1alpha1.GroupVersion.Group, Kind: "PodNetwork"}
	resource := schema.GroupResource{Group: kind.Group, Resource: "podnetworks"}
	reads := answers{&apimeta.NoKindMatchError{GroupKind: kind}, apierrors.NewForbidden(resource, "default", nil)}
	// Of several API servers, one may not know the kind yet.
	creations := answers{apierrors.NewNotFound(resource, "")}
	server, out, err := run(t, reads, creations)
	if err != nil || !strings.Contains(out, "is made") {
		t.Fatalf("%v: %s", err, out)
	}
	network := &podnetv1alpha1.PodNetwork{}
	if err := server.Get(t.Context(), client.ObjectKey{Name: "default"}, network); err != nil || network.Spec.Ranges[0].CIDR != "10.244.0.0/16" {
		t.Errorf("%v: %+v", err, network.Spec)
	}
}

func TestWhatTheAPIServerRefusesIsToldAtOnce(t *testing.T) {
	refusal := apierrors.NewInvalid(schema.GroupKind{Kind: "PodNetwork"}, "default", nil)
	_, out, err := run(t, nil, answers{refusal, refusal})
	if err == nil || !strings.Contains(err.Error(), "refuses PodNetwork default") || out != "" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFieldsThatAPodNetworkHasNotAreRefused(t *testing.T) {
	err := Run(t.Context(), Config{Spec: []byte(`{"ranges": [], "range": "10.244.0.0/16"}`)})
	if err == nil || !strings.Contains(err.Error(), `unknown field "range"`) {
		t.Error(err)
	}
}
