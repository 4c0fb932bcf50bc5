package netns

import (
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

// A pod whose sandbox the runtime lost comes back in another one, while the first is still
// attached.
func TestHostPortGoesToTheYoungerAttachment(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			n := newCluster(t, options{attachment: attachment, mode: model.ModeRouted, families: dual}).nodes[0]
			outside := n.cluster.underlay.AddHost(t, "outside", dual)
			for _, protocol := range []string{"tcp", "udp"} {
				n.addPod(t, model.HostPort{Host: 80, Pod: port, Protocol: protocol})
			}
			// Whichever the order of their names is.
			for range 3 {
				for _, protocol := range []string{"tcp", "udp"} {
					successor := n.addPod(t, model.HostPort{Host: 80, Pod: port, Protocol: protocol})
					for _, addr := range successor.Addrs {
						set := "hostports4"
						if addr.Is6() {
							set = "hostports6"
						}
						if elements := n.Run(t, "nft", "list", "map", "inet", model.FirewallTable, set); !strings.Contains(elements, protocol+" . 80 : "+addr.String()+" ") {
							t.Errorf("%s 80 does not lead to the younger pod's %s:\n%s", protocol, addr, elements)
						}
					}
				}
				for _, is4 := range []bool{true, false} {
					if _, err := outside.TCP(n.Address(is4), 80, 100); err != nil {
						t.Error(err)
					}
					if err := outside.UDP(n.Address(is4), 80, 100); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}
