package cluster

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// pathSpecs are about pods that reach each other, on paths of one mode.
func pathSpecs(a *actors, attachment podnetv1alpha1.Attachment, mode podnetv1alpha1.Mode) {
	It("takes these paths", func(ctx context.Context) {
		setMode(ctx, mode)
		for _, f := range families {
			device := deviceTo(ctx, local.nodes[0].name, a.address("b1", f.is4))
			direct := Equal("eth0")
			if mode != podnetv1alpha1.ModeRouted {
				direct = Not(direct)
			}
			Expect(device).To(direct, f.name)
		}
	}, SpecTimeout(2*time.Minute))

	for _, f := range families {
		name, is4 := f.name, f.is4
		It("connects pods of different nodes by "+name, func(ctx context.Context) {
			for from, to := range map[string][]string{"a1": {"b1", "c1"}, "b1": {"a1", "a2"}, "c1": {"a1", "b1"}} {
				for _, name := range to {
					expectAnswers(ctx, a.in(from), a.askActor(name, is4))
				}
			}
		}, SpecTimeout(2*time.Minute))

		It("connects pods of one node, and a pod to itself, by "+name, func(ctx context.Context) {
			expectAnswers(ctx, a.in("a1"), append(a.askActor("a2", is4), a.askActor("a1", is4)...))
		}, SpecTimeout(time.Minute))

		It("connects a node to pods, and pods to nodes, by "+name, func(ctx context.Context) {
			host := local.nodes[0].address(is4)
			expectAnswers(ctx, a.in("host"), append(a.askActor("a1", is4), a.askActor("b1", is4)...))
			tcp := askWeb("TCP to a node", host, hostWebPort, "/hostname", local.nodes[0].name)
			udp := askUDP("UDP to a node", host, hostWebUDPPort, "echo hello", "hello")
			expectAnswers(ctx, a.in("a1"), []ask{tcp})
			expectAnswers(ctx, a.in("b1"), []ask{tcp, udp})
			// From a bridge that has an address in the pods' segment, the kernel answers for a UDP server that is bound to
			// no address, and not from the address that was asked, as with every network of this kind.
			if !is4 || attachment == podnetv1alpha1.PointToPoint {
				expectAnswers(ctx, a.in("a1"), []ask{udp})
			}
		}, SpecTimeout(time.Minute))

		It("shows a pod its peer's own address, by "+name, func(ctx context.Context) {
			for _, from := range []string{"a2", "b1"} {
				got, err := clientAddress(ctx, a.in(from), a.address("a1", is4), webPort)
				Expect(err).NotTo(HaveOccurred())
				Expect(got).To(Equal(a.address(from, is4)))
			}
		}, SpecTimeout(time.Minute))
	}
}

// deviceTo is the device by which a node sends to an address.
func deviceTo(ctx context.Context, node, address string) string {
	GinkgoHelper()
	return routeTo(ctx, Default, node, address).Dev
}

// sourceTo is the address with which a node sends to another one.
func sourceTo(ctx context.Context, g Gomega, node, address string) netip.Addr {
	source, err := netip.ParseAddr(routeTo(ctx, g, node, address).PrefSrc)
	g.Expect(err).NotTo(HaveOccurred())
	return source
}

// route is what `ip route get` says.
type route struct {
	Dev     string `json:"dev"`
	PrefSrc string `json:"prefsrc"`
}

func routeTo(ctx context.Context, g Gomega, node, address string) route {
	output, err := local.onNode(ctx, node, "ip", "-json", "route", "get", address)
	g.Expect(err).NotTo(HaveOccurred())
	var routes []route
	g.Expect(json.Unmarshal([]byte(output), &routes)).To(Succeed())
	g.Expect(routes).To(HaveLen(1))
	return routes[0]
}
