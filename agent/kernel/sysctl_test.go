package kernel

import (
	"os"
	"path/filepath"
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
