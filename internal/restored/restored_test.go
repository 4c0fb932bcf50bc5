package restored

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// versions answers one list after the other, and the last one for ever; an empty version is a failure.
type versions struct {
	client.Reader
	list []string
}

func (v *versions) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	version := v.list[0]
	if len(v.list) > 1 {
		v.list = v.list[1:]
	}
	if version == "" {
		return errors.New("the API server is away")
	}
	networks, ok := list.(*podnetv1alpha1.PodNetworkList)
	if !ok {
		return errors.New("not a list of PodNetworks")
	}
	networks.ResourceVersion = version
	return nil
}

func TestAnOlderVersionIsNoticed(t *testing.T) {
	for name, list := range map[string][]string{
		"at once":              {"100", "99"},
		"by length":            {"100", "101", "99"},
		"after an outage":      {"100", "", "", "57"},
		"after it stood still": {"100", "100", "100", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := Watcher{Live: &versions{list: list}, Cached: &objects{}, Interval: time.Second}
				if err := w.Run(t.Context()); !errors.Is(err, ErrRestored) {
					t.Errorf("Run = %v", err)
				}
			})
		})
	}
}

// objects are NodeSubnets, by name, with their versions.
type objects struct {
	client.Reader
	versions map[string]string
	// after replaces versions once they were listed.
	after map[string]string
}

func (o *objects) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	version, there := o.versions[key.Name]
	if !there {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "nodesubnets"}, key.Name)
	}
	object.SetName(key.Name)
	object.SetResourceVersion(version)
	return nil
}

func (o *objects) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch list := list.(type) {
	case *podnetv1alpha1.PodNetworkList:
		list.ResourceVersion = "1000"
	case *podnetv1alpha1.NodeSubnetList:
		for name, version := range o.versions {
			list.Items = append(list.Items, podnetv1alpha1.NodeSubnet{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}})
		}
		if o.after != nil {
			o.versions = o.after
		}
	}
	return nil
}

func TestACacheThatStaysBehindIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		live, cached, after map[string]string
		restored            bool
	}{
		"all the same":         {map[string]string{"a": "9", "b": "10"}, map[string]string{"a": "9", "b": "10"}, nil, false},
		"nothing there":        {nil, nil, nil, false},
		"gone":                 {map[string]string{"a": "9"}, map[string]string{"a": "9", "b": "10"}, nil, true},
		"older":                {map[string]string{"a": "9", "b": "8"}, map[string]string{"a": "9", "b": "10"}, nil, true},
		"newer, and not heard": {map[string]string{"a": "9", "b": "12"}, map[string]string{"a": "9", "b": "10"}, nil, true},
		"newer, and heard of later": {
			map[string]string{"a": "9", "b": "12"}, map[string]string{"a": "9", "b": "10"}, map[string]string{"a": "9", "b": "12"}, false,
		},
		"gone, and heard of later": {map[string]string{"a": "9"}, map[string]string{"a": "9", "b": "10"}, map[string]string{"a": "9"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				w := Watcher{Live: &objects{versions: c.live}, Cached: &objects{versions: c.cached, after: c.after}, Interval: time.Second}
				if err := w.Run(ctx); errors.Is(err, ErrRestored) != c.restored {
					t.Errorf("Run = %v", err)
				}
			})
		})
	}
}

func TestAVersionThatGrowsIsNoRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := Watcher{
			Live: &versions{list: []string{"9", "10", "", "not a number", "10", "11", "100"}}, Cached: &objects{}, Interval: time.Second,
		}
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}
