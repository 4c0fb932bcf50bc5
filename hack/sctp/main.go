// Command sctp does what agnhost's porter and connect do by SCTP, on kernels that have no SCTP.
//
// Tests of network policies want to know whether packets of a protocol arrive, and a kernel need not speak the
// protocol to filter and track it. So this program speaks just enough of RFC 9260, over raw sockets, that an
// association is made, carries a message of the server, and is aborted by the client: conntrack and filters see the
// packets that they see of any association. It needs CAP_NET_RAW.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "sctp", Short: "SCTP for kernels that have none", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(
		&cobra.Command{
			Use: "kernel", Short: "Succeed where the kernel has SCTP", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return kernel() },
		},
		&cobra.Command{
			Use: "porter", Short: "Serve SERVE_SCTP_PORT_PORT=TEXT of the environment", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return porter(os.Environ()) },
		},
		connectCommand(),
	)
	return root
}

func connectCommand() *cobra.Command {
	var timeout time.Duration
	var named string
	c := &cobra.Command{
		Use: "connect HOST:PORT", Short: "Say nothing where a server is reached, else what agnhost says", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if named != "sctp" {
				return fmt.Errorf("this speaks sctp, not %s: use agnhost", named)
			}
			return connect(args[0], timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "how long a server is waited for")
	c.Flags().StringVar(&named, "protocol", "sctp", "sctp, which agnhost has to be told")
	return c
}

// kernel returns an error where the kernel has no SCTP of its own.
func kernel() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return errors.New("this kernel has no SCTP")
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
