package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// serviceSpecs are about kube-proxy's translations on top of podnet's paths.
func serviceSpecs(a *actors) {
	for _, f := range families {
		name, is4 := f.name, f.is4
		It("reaches services of pods of its own and of other nodes by "+name, func(ctx context.Context) {
			var asks []ask
			for _, actor := range []string{"a1", "a2", "b1", "c1"} {
				asks = append(asks, a.askService(actor, is4)...)
			}
			// To a1 its own service leads back, as a hairpin.
			for _, from := range []string{"a1", "b1", "host"} {
				expectAnswersSoon(ctx, a.in(from), asks)
			}
		}, SpecTimeout(2*time.Minute))

		It("reaches a service from outside through every node by "+name, func(ctx context.Context) {
			var asks []ask
			for _, node := range local.nodes {
				asks = append(asks,
					askWeb("TCP through "+node.name, node.address(is4), a.nodePort("b1", "web"), "/hostname", "b1"),
					askUDP("UDP through "+node.name, node.address(is4), a.nodePort("b1", "udp"), "hostname", "b1"))
			}
			expectAnswersSoon(ctx, outside{}, asks)
		}, SpecTimeout(2*time.Minute))

		It("shows the client's address to a service that keeps to its node, by "+name, func(ctx context.Context) {
			port := a.nodePort("b1-local", "web")
			Eventually(func(g Gomega) {
				output, err := clientAddress(ctx, outside{}, local.nodes[1].address(is4), port)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(output).To(Equal(outside{}.gateway(is4)))
			}).Should(Succeed())
			_, err := clientAddress(ctx, outside{}, local.nodes[0].address(is4), port)
			Expect(err).To(HaveOccurred(), "a node without a pod of the service is to let nobody in")
		}, SpecTimeout(time.Minute))
	}
}

// clientAddress asks an agnhost for the address that it sees.
func clientAddress(ctx context.Context, from origin, address string, port int) (string, error) {
	output, err := from.shell(ctx, fmt.Sprintf("curl -gsS --max-time 3 http://%s/clientip", hostPort(address, port)))
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(output)
	return host, err
}

// outsideSpecs are about packets that come into the cluster, or leave it.
func outsideSpecs(a *actors) {
	for _, f := range families {
		name, is4 := f.name, f.is4
		It("lets clients from outside and from other nodes in by a host port, by "+name, func(ctx context.Context) {
			node := local.nodes[2].address(is4)
			asks := []ask{
				askWeb("TCP to a host port", node, mappedPort, "/hostname", "c1"),
				askUDP("UDP to a host port", node, mappedUDPPort, "hostname", "c1"),
			}
			for _, from := range []origin{outside{}, a.in("host"), a.in("a1")} {
				expectAnswers(ctx, from, asks)
			}
		}, SpecTimeout(time.Minute))

		It("gives packets that leave the cluster their node's address, by "+name, func(ctx context.Context) {
			for i, actor := range []string{"a1", "b1", "c1"} {
				got, err := clientAddress(ctx, a.in(actor), outside{}.address(is4), hostWebPort)
				Expect(err).NotTo(HaveOccurred())
				Expect(got).To(Equal(local.nodes[i].address(is4)))
			}
		}, SpecTimeout(time.Minute))
	}
}
