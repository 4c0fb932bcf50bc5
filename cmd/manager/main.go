// Command manager runs podnet's controllers, and takes podnet off a cluster.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/podnet/podnet/internal/logs"
	"github.com/podnet/podnet/internal/version"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run() error {
	return rootCommand().ExecuteContext(ctrl.SetupSignalHandler())
}

func rootCommand() *cobra.Command {
	var options logs.Options
	cmd := runCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.Version = version.Version
	options.Define(cmd.PersistentFlags())
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		logger, err := options.New()
		if err != nil {
			return err
		}
		ctrl.SetLogger(logger)
		return nil
	}
	cmd.AddCommand(uninstallCommand(), createNetworkCommand(), connectivityCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Println(version.Version) },
	})
	return cmd
}
