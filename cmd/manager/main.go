// Command manager runs podnet's controllers, and takes podnet off a cluster.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

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
	var logLevel string
	cmd := runCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.Version = version.Version
	cmd.PersistentFlags().StringVar(&logLevel, "log-level", "info", "what is logged: debug, info, warn or error")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		level, err := zapcore.ParseLevel(logLevel)
		if err != nil {
			return fmt.Errorf("--log-level: %w", err)
		}
		ctrl.SetLogger(zap.New(zap.Level(level)))
		return nil
	}
	cmd.AddCommand(uninstallCommand(), createNetworkCommand(), connectivityCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Println(version.Version) },
	})
	return cmd
}
