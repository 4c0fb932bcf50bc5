package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/podnet/podnet/agent/cri"
	"github.com/podnet/podnet/test/netns/topology"
)

// idleVariable makes this program one that says whether a namespace is idle, as an
// agent in a PID namespace of its own. Its value is the runtime's socket.
const idleVariable = "PODNET_TEST_IDLE"

func init() {
	socket := os.Getenv(idleVariable)
	if socket == "" {
		return
	}
	idle, err := cri.New(socket).Idle(context.Background(), "/proc/self/ns/net")
	fmt.Println(idle, err)
	os.Exit(0)
}

// runtimeSocket is one on which this process listens, as a runtime does.
func runtimeSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "runtime.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return socket
}

func TestNamespaceWithAProcessIsNotIdle(t *testing.T) {
	t.Parallel()
	n := topology.NewNamespace(t, "pod")
	sleep := exec.Command("sleep", "60")
	n.Do(t, sleep.Start)
	t.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() }) //nolint:errcheck // it is killed
	idle, err := cri.New(runtimeSocket(t)).Idle(t.Context(), n.Path())
	if err != nil || idle {
		t.Errorf("%t, %v", idle, err)
	}
}

// An agent that does not see the runtime among its processes does not see those of
// pods either, and must not take a pod for dead.
func TestAgentInAPIDNamespaceOfItsOwnSaysNothing(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), idleVariable+"="+runtimeSocket(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "false look for processes") || !strings.Contains(string(out), "hostPID") {
		t.Errorf("%s: %v", out, err)
	}
}
