package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSysctlsAreWrittenWhereTheContainerHasTheNodes(t *testing.T) {
	host, own := filepath.Join(t.TempDir(), "host"), filepath.Join(t.TempDir(), "own")
	roots := []string{host, own}
	if got := firstWithNet(roots); got != own {
		t.Errorf("outside of a container: %s", got)
	}
	if err := os.MkdirAll(filepath.Join(host, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := firstWithNet(roots); got != host {
		t.Errorf("in a container: %s", got)
	}
}

func TestForwardingIsRestoredFirst(t *testing.T) {
	keys := []string{
		"net/ipv4/conf/eth0/rp_filter", "net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables",
		"net/ipv4/ip_forward", "net/ipv6/conf/eth0/accept_ra",
	}
	slices.SortFunc(keys, restoreOrder)
	if keys[0] != "net/ipv4/ip_forward" || keys[1] != "net/ipv6/conf/all/forwarding" {
		t.Errorf("order %v, want forwarding first", keys)
	}
}
