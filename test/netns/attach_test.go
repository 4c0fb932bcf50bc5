package netns

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// attaching runs one of the kernel's functions for a pod, on its node.
func (p *pod) attaching(do func(k *kernel.Kernel, ctx context.Context, pod model.Pod) error) error {
	return p.node.Try(func() error { return do(p.node.kernel, context.Background(), p.Pod) })
}

func bothAttachments(t *testing.T, test func(t *testing.T, c *cluster)) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			test(t, newCluster(t, options{attachment: attachment, mode: model.ModeRouted, families: dual}))
		})
	}
}

func TestAttachAgainAfterACrash(t *testing.T) {
	bothAttachments(t, func(t *testing.T, c *cluster) {
		n := c.nodes[0]
		other := n.addPod(t)
		for what, crash := range map[string]func(p *pod){
			"before the alias was set": func(p *pod) {
				n.Do(t, func() error {
					attrs := netlink.NewLinkAttrs()
					attrs.Name = p.HostLink
					veth := netlink.NewVeth(attrs)
					veth.PeerName, veth.PeerNamespace = p.IfName, netlink.NsFd(p.Fd())
					return netlink.LinkAdd(veth)
				})
			},
			"when all was done": func(p *pod) {
				if err := p.attaching((*kernel.Kernel).Attach); err != nil {
					t.Fatal(err)
				}
			},
			"before the pod's end was configured": func(p *pod) {
				if err := p.attaching((*kernel.Kernel).Attach); err != nil {
					t.Fatal(err)
				}
				p.Run(t, "ip", "addr", "flush", "dev", "eth0")
				p.Run(t, "ip", "link", "set", "eth0", "down")
			},
		} {
			p := n.newPod(t)
			crash(p)
			n.attach(t, p)
			p.Serve(t, port)
			for _, addr := range p.Addrs {
				if err := other.Reaches(addr, port); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
	})
}

func TestAttachRefuses(t *testing.T) {
	bothAttachments(t, func(t *testing.T, c *cluster) {
		n := c.nodes[0]
		gone := n.newPod(t)
		gone.Netns = "/run/netns/no-such-namespace"
		taken := n.newPod(t)
		taken.Run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
		nodes := n.newPod(t)
		nodes.Netns = n.Path()
		file := n.newPod(t)
		file.Netns = "/etc/passwd"
		foreign := n.newPod(t)
		n.Run(t, "ip", "link", "add", foreign.HostLink, "type", "bridge")
		for what, tc := range map[string]struct {
			pod  *pod
			word string
		}{
			"a namespace that is gone":     {gone, "is gone"},
			"an interface that is there":   {taken, "has an interface eth0 already"},
			"a link that is not a pod's":   {foreign, "is not that of container"},
			"the node's own namespace":     {nodes, "is the node's own"},
			"a file that is no namespace":  {file, "open the network namespace /etc/passwd"},
			"the interface, a second time": {taken, "has an interface eth0 already"},
		} {
			err := tc.pod.attaching((*kernel.Kernel).Attach)
			if err == nil || !strings.Contains(err.Error(), tc.word) {
				t.Errorf("%s: %v, want an error that says %q", what, err, tc.word)
			}
			if tc.pod != foreign && strings.Contains(n.Run(t, "ip", "-o", "link"), tc.pod.HostLink) {
				t.Errorf("%s: a half-made link is left behind", what)
			}
		}
	})
}

func TestDetach(t *testing.T) {
	bothAttachments(t, func(t *testing.T, c *cluster) {
		n := c.nodes[0]
		p, other := n.addPod(t, model.HostPort{Host: 9080, Pod: port, Protocol: "tcp"}), n.addPod(t)
		p.Close(t)
		n.detach(t, p)
		n.checkState(t)
		if err := p.attaching((*kernel.Kernel).Detach); err != nil {
			t.Errorf("a second time: %v", err)
		}
		foreign := *other
		foreign.ContainerID = "other"
		if err := foreign.attaching((*kernel.Kernel).Detach); err == nil {
			t.Error("a link of another container was removed")
		}
		if err := other.attaching((*kernel.Kernel).CheckAttached); err != nil {
			t.Error(err)
		}
	})
}

func TestCheckSaysWhatIsMissing(t *testing.T) {
	bothAttachments(t, func(t *testing.T, c *cluster) {
		n := c.nodes[0]
		p := n.addPod(t)
		check := func(word string) {
			t.Helper()
			err := p.attaching((*kernel.Kernel).CheckAttached)
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%v, want an error that says %q", err, word)
			}
		}
		p.Run(t, "ip", "route", "del", "default")
		check("lacks its route to 0.0.0.0/0")
		p.Run(t, "ip", "addr", "flush", "dev", "eth0", "scope", "global")
		check("lacks its address 10.244.1.")
		p.Run(t, "ip", "link", "set", "eth0", "down")
		check("interface eth0 is down")
		n.Run(t, "ip", "link", "set", p.HostLink, "down")
		check("link " + p.HostLink + " is down")
		n.Run(t, "ip", "link", "set", p.HostLink, "alias", "podnet other/eth0")
		check("is not that of container")
		n.Run(t, "ip", "link", "del", p.HostLink)
		check("has no link " + p.HostLink)
	})
}

// What cannot be done does not keep the rest from being done.
func TestExecuteGoesOnAfterAFailure(t *testing.T) {
	c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeOverlay, families: dual})
	n := c.nodes[0]
	want := n.want(t).State
	good := want.Routes[0]
	bad := good
	bad.Unreachable, bad.Link = false, "no-such-link"
	err := n.Try(func() error {
		return n.kernel.Execute(context.Background(), []diff.Op{
			{Verb: diff.Put, Object: model.Link{Name: "vxpodnet6", Kind: "no-such-kind", MTU: 1400}},
			{Verb: diff.Put, Object: model.Address{Link: "vxpodnet6", Addr: good.Dst}},
			{Verb: diff.Put, Object: bad},
			{Verb: diff.Delete, Object: good},
			{Verb: diff.Delete, Object: good},
			{Verb: diff.Delete, Object: model.Address{Link: "no-such-link", Addr: good.Dst}},
			{Verb: diff.Delete, Object: model.Link{Name: "no-such-link"}},
			{Verb: diff.Delete, Object: model.Table{Table: nft.Table{Family: nft.Bridge, Name: model.FirewallTable}}},
			{Verb: diff.Delete, Object: diff.Elements{Elements: nft.Elements{Family: nft.Inet, Table: model.FirewallTable, Set: "endpoints4", List: []nft.Element{
				{Key: []string{"192.0.2.1"}}, {Key: []string{n.IPv4.Addr().String()}},
			}}}},
		})
	})
	for _, word := range []string{"link vxpodnet6", "route to " + good.Dst.String() + " on no-such-link"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want an error that names %q", err, word)
		}
	}
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("%v, want ENODEV to be told", err)
	}
	if ops := n.pass(t); len(ops) == 0 {
		t.Error("what came after the failures was not done")
	}
	n.checkState(t)
}
