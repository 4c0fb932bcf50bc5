package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/podnet/podnet/controllers"
	"github.com/podnet/podnet/internal/firstnetwork"
)

// createNetworkCommand is what the chart runs after an installation, and after each upgrade.
func createNetworkCommand() *cobra.Command {
	var spec string
	c := firstnetwork.Config{}
	cmd := &cobra.Command{
		Use:   "create-network",
		Short: "Makes the PodNetwork named default, unless there is one",
		Long: "Waits until the API server serves podnet's kinds, and makes the PodNetwork named default. If there is one already, it" +
			" stays as it is: where it differs from --spec, that is printed, and is no error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("find the API server: %w", err)
			}
			c.Spec, c.Out = []byte(spec), cmd.OutOrStdout()
			c.Client, err = client.New(config, client.Options{Scheme: controllers.Scheme()})
			if err != nil {
				return fmt.Errorf("connect to the API server: %w", err)
			}
			return firstnetwork.Run(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&spec, "spec", "", "the spec of the PodNetwork, in JSON")
	cmd.Flags().DurationVar(&c.Timeout, "timeout", 2*time.Minute, "how long to wait for the API server")
	return cmd
}
