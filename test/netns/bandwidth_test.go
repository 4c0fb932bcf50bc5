package netns

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// What the reference plugin makes of a limit in the kernel is a bucket that fits it.
func TestBandwidthLimitHasABurstThatFits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for target, pkg := range map[string]string{
		"podnet-cni": "github.com/podnet/podnet/cmd/podnet-cni", "podnet-bandwidth": "github.com/containernetworking/plugins/plugins/meta/bandwidth",
	} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, target), pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", pkg, err, out)
		}
	}
	n := newCNINode(t, newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual}))
	pod := topology.NewNamespace(t, "limited")
	is := request(pod, "")
	execute := func(command string, more map[string]any) {
		t.Helper()
		conf := map[string]any{"cniVersion": "1.1.0", "name": "podnet", "type": "podnet-cni", "socket": n.socket}
		for key, value := range more {
			conf[key] = value
		}
		text, err := json.Marshal(conf)
		if err != nil {
			t.Fatal(err)
		}
		n.Run(t, "sh", "-c", fmt.Sprintf("echo '%s' | CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_NETNS=%s CNI_IFNAME=%s CNI_PATH=%s %s/podnet-cni",
			text, command, is.ContainerID, is.Netns, is.IfName, dir, dir))
	}
	// What containerd asks for.
	execute("ADD", map[string]any{"runtimeConfig": map[string]any{"bandwidth": map[string]any{
		"ingressRate": 8_000_000, "ingressBurst": uint32(1<<32 - 1), "egressRate": 80_000_000, "egressBurst": uint32(1<<32 - 1),
	}}})
	link := cni.Key{ContainerID: is.ContainerID, IfName: is.IfName}.HostLink()
	qdiscs := n.Run(t, "tc", "qdisc", "show")
	for _, want := range []string{
		`tbf .* dev ` + link + ` .*rate 8Mbit burst 100000b `,
		`tbf .* dev bwp\S+ .*rate 80Mbit burst 1000000b `,
	} {
		if !regexp.MustCompile(want).MatchString(qdiscs) {
			t.Errorf("no %q in:\n%s", want, qdiscs)
		}
	}
	execute("DEL", nil)
	if links := n.Run(t, "ip", "-o", "link"); strings.Contains(links, "bwp") {
		t.Errorf("after DEL there are:\n%s", links)
	}
}
