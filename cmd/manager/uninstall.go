package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/podnet/podnet/controllers"
	"github.com/podnet/podnet/internal/uninstall"
)

func uninstallCommand() *cobra.Command {
	c := uninstall.Config{}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Asks every agent to take podnet off its node, before podnet itself is removed",
		Long: "Sets an annotation on the PodNetwork that asks every agent to take all that podnet made off its node, and waits for" +
			" the nodes that are Ready. Agents that do not answer in time are named, and are no error: the removal of podnet goes on" +
			" without them. It runs before Helm deletes the release.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("find the API server: %w", err)
			}
			c.Out = cmd.OutOrStdout()
			c.Client, err = client.New(config, client.Options{Scheme: controllers.Scheme()})
			if err != nil {
				return fmt.Errorf("connect to the API server: %w", err)
			}
			return uninstall.Run(cmd.Context(), c)
		},
	}
	cmd.Flags().BoolVar(&c.RemoveObjects, "remove-objects", false, "then remove all PodNetworks, RouteModes, NodeSubnets and NodeNetworks")
	cmd.Flags().DurationVar(&c.Timeout, "timeout", 2*time.Minute, "how long to wait for the agents")
	return cmd
}
