package plan

import (
	"fmt"
	"slices"
)

// Chains that packets to the overlay's port are led to. A node believes what comes in a
// VXLAN packet from another node, so that whoever can make one speaks as any pod.
const (
	// chainVXLANIn is for those that come in from elsewhere than pods, chainVXLANLocal for
	// those that are about to reach the node's own socket, chainVXLANOut for those that the
	// node sends, and chainVXLANForward for those that it forwards or that somebody translated.
	chainVXLANIn      = "vxlan-in"
	chainVXLANLocal   = "vxlan-local"
	chainVXLANOut     = "vxlan-out"
	chainVXLANForward = "vxlan-forward"
)

// overlayPort matches packets to the overlay's port.
func (v *view) overlayPort() string { return fmt.Sprintf("udp dport %d", v.network.Port) }

// vxlanPacket matches packets of this network's overlay. The network identifier
// follows the UDP header (64 bits) and the VXLAN header's flags and reserved
// bits (32); packets of other VXLAN networks on the same port are not podnet's.
//
// It must not be relied on where pods are the senders: several datagrams of a pod can
// be one packet to the firewall (UDP_SEGMENT), which looks at the first one's header.
func (v *view) vxlanPacket() string {
	return fmt.Sprintf("%s @th,96,24 %d", v.overlayPort(), v.network.VNI)
}

// vxlanIn keeps conntrack from following what nodes send to this node's endpoints. All
// else is followed, and ends in vxlanLocal where it is for the node.
func (v *view) vxlanIn() []string {
	var rules []string
	for _, f := range families {
		rules = append(rules, v.fromNode(f)+" notrack accept")
	}
	return rules
}

// fromNode matches packets from a node to this node's own endpoint. Other addresses of
// this node, such as those that load balancers hold, are no endpoints.
func (v *view) fromNode(f family) string {
	return fmt.Sprintf("%[1]s saddr @%[2]s%[4]s %[1]s daddr @%[3]s%[4]s", f.header, setEndpoints, setOwnEndpoints, f.digit)
}

// vxlanLocal drops what reaches the overlay's socket and does not come from another
// node: from pods, by whatever address of the node or Service; translated on its way;
// from elsewhere. That conntrack does not follow a packet is not enough, as others may
// exempt packets from it too.
func (v *view) vxlanLocal() []string {
	network := fmt.Sprintf("@th,96,24 %d ", v.network.VNI)
	var rules, fromPods []string
	for i, f := range families {
		rules = append(rules, network+"ct state untracked "+v.fromNode(f)+" return")
		if v.active[i] {
			fromPods = append(fromPods, fmt.Sprintf("%s saddr @%s%s drop", f.header, setRanges, f.digit))
		}
	}
	return slices.Concat(rules, fromPods, []string{"ct status dnat drop", network + "drop"})
}

// vxlanOut keeps conntrack from following what the node itself sends to nodes.
func (v *view) vxlanOut() []string {
	var rules []string
	for _, f := range families {
		rules = append(rules, fmt.Sprintf("%s daddr @%s%s notrack", f.header, setEndpoints, f.digit))
	}
	return rules
}

// vxlanForward keeps pods from sending to the overlay's port of anything but pods, and
// everybody from being led there by a Service: masqueraded, such a packet would be
// this node's to others. Which addresses other nodes have nobody knows for sure. An endpoint
// that a range was laid over is a node's until a block has it.
func (v *view) vxlanForward() []string {
	var rules []string
	for i, f := range families {
		if v.active[i] {
			rules = append(rules, fmt.Sprintf("%[1]s daddr @%[2]s%[4]s %[1]s daddr != @%[3]s%[4]s return", f.header, setRanges, setEndpoints, f.digit))
		}
	}
	return append(rules, pods+" drop", "ct status dnat drop")
}
