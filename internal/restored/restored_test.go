package restored

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

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
				w := Watcher{Reader: &versions{list: list}, Interval: time.Second}
				if err := w.Run(t.Context()); !errors.Is(err, ErrRestored) {
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
		w := Watcher{Reader: &versions{list: []string{"9", "10", "", "not a number", "10", "11", "100"}}, Interval: time.Second}
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}
