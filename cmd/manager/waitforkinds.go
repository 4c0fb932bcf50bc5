package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// steadyAnswers is how often in a row the API server must list all kinds: there may be several of it, which learn of
// a new kind one after the other.
const steadyAnswers = 3

// waitForKindsCommand is what the chart runs between making the CRDs and making the PodNetwork.
func waitForKindsCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait-for-kinds",
		Short: "Waits until the API server serves podnet's kinds",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := ctrl.GetConfig()
			if err != nil {
				return err
			}
			client, err := discovery.NewDiscoveryClientForConfig(config)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return waitForKinds(ctx, client, 300*time.Millisecond)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "time to wait")
	return cmd
}

// waitForKinds asks until the answer is steady.
func waitForKinds(ctx context.Context, client discovery.ServerResourcesInterface, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for steady := 0; ; {
		err := kindsServed(client)
		steady++
		if err != nil {
			steady = 0
		}
		if steady == steadyAnswers {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("the API server does not serve podnet's kinds in time: are its CRDs installed?"), err)
		case <-ticker.C:
		}
	}
}

// kindsServed returns an error that names the kinds that the API server does not serve.
func kindsServed(client discovery.ServerResourcesInterface) error {
	list, err := client.ServerResourcesForGroupVersion(podnetv1alpha1.GroupVersion.String())
	if err != nil {
		return err
	}
	served := map[string]metav1.APIResource{}
	for _, resource := range list.APIResources {
		served[resource.Name] = resource
	}
	var missing []error
	for _, name := range []string{"podnetworks", "nodesubnets", "nodenetworks", "routemodes"} {
		if _, ok := served[name]; !ok {
			missing = append(missing, fmt.Errorf("%s.%s is not served", name, podnetv1alpha1.GroupVersion.Group))
		}
	}
	return errors.Join(missing...)
}
