package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// traceWait is how long messages on a packet are waited for, each.
const traceWait = 200 * time.Millisecond

// traceTime is how long messages are read in all: whoever else has packets traced on the
// node keeps them coming.
const traceTime = 2 * time.Second

// dropper is what drops a packet. It has no table where no table of nftables does.
type dropper struct {
	family, table, chain string
	// rule is the text of the rule; empty where the chain's policy drops.
	rule string
}

// sentence says what drops forwarded packets, and what to do.
func (d dropper) sentence() string {
	const what = "Packets that this node forwards for its pods are dropped "
	of := fmt.Sprintf("chain %s of table %s %s", d.chain, d.family, d.table)
	iptables := d.table == "filter" && (d.family == "ip" || d.family == "ip6")
	by := fmt.Sprintf("by the rule %q in %s", d.rule, of)
	if d.rule == "" {
		by = "by the policy of " + of
	}
	switch {
	case d.table == "":
		return what + "by the kernel, and not by a rule of nftables: look at the rules of iptables-legacy (iptables-legacy-save), at the parameters " +
			"net.ipv4.conf.*.forwarding and rp_filter, and at eBPF programs on the node's interfaces."
	case d.table == "firewalld":
		return what + by + ": put the pods' ranges into firewalld's zone trusted " +
			"(firewall-cmd --permanent --zone=trusted --add-source=RANGE), or turn firewalld off."
	case iptables && d.rule == "":
		return what + by + fmt.Sprintf(", as Docker and ufw set it: set it to ACCEPT (%s -P FORWARD ACCEPT), or accept the pods' ranges there.",
			iptablesOf(d.family))
	case iptables:
		return what + by + fmt.Sprintf(": delete it, or accept the pods' ranges before it (%s -I FORWARD -s RANGE -j ACCEPT, and -d RANGE).",
			iptablesOf(d.family))
	default:
		return what + by + ": accept the pods' ranges there before."
	}
}

func iptablesOf(family string) string {
	if family == "ip6" {
		return "ip6tables"
	}
	return "iptables"
}

// trace sends a packet of the probes once more, and has the kernel tell which rules it
// meets (nft(8), monitor trace). That costs all packets a little for as long as it takes.
// It returns errArrived where the packet arrives.
func (h *Host) trace(ctx context.Context, probe model.Pod, addr netip.Addr, send func() (bool, error)) (dropper, error) {
	s, err := socket.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTRACE)
	if err != nil {
		return dropper{}, fmt.Errorf("subscribe to traces of nftables: %w", err)
	}
	defer s.Close()
	timeout := unix.NsecToTimeval(traceWait.Nanoseconds())
	if err := s.SetReceiveTimeout(&timeout); err != nil {
		return dropper{}, err
	}
	h.mu.Lock()
	h.traced = true
	h.mu.Unlock()
	err = h.putTrace(ctx, probe, addr)
	var back bool
	if err == nil {
		back, err = send()
	}
	// Also where the caller has given up meanwhile.
	if err := errors.Join(err, h.removeTrace(context.WithoutCancel(ctx))); err != nil {
		return dropper{}, err
	}
	if back {
		return dropper{}, errArrived
	}
	return readTrace(ctx, s, addr)
}

// putTrace makes the tables whose rules have a packet of the probes traced. On a bridge
// it passes tables of the bridge family first.
func (h *Host) putTrace(ctx context.Context, probe model.Pod, addr netip.Addr) error {
	header := "ip"
	if addr.Is6() {
		header = "ip6"
	}
	rule := fmt.Sprintf(`%[1]s saddr %[2]s %[1]s daddr %[2]s udp dport %[3]d meta nftrace set 1`, header, addr, model.ForwardPort)
	chains := []nft.Chain{{
		Name: "trace", Rules: nft.Rules(rule),
		Base: nft.Base{Type: nft.TypeFilter, Hook: nft.Prerouting, Priority: nft.Priority{Offset: -310}},
	}}
	tables := []nft.Table{{Family: nft.Inet, Name: model.TraceTable, Chains: chains}}
	if probe.Attachment == model.Bridge {
		tables = append(tables, nft.Table{Family: nft.Bridge, Name: model.TraceTable, Chains: chains})
	}
	if err := h.cfg.NFT.Add(ctx, tables...); err != nil {
		return fmt.Errorf("have a packet traced: %w", err)
	}
	return nil
}

// removeTrace removes the tables of a trace, where one was begun or, before the first,
// an agent may have ended in one.
func (h *Host) removeTrace(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.traced {
		return nil
	}
	if err := h.cfg.NFT.Remove(ctx, model.TraceTable); err != nil {
		return err
	}
	h.traced = false
	return nil
}

// traces is a socket that receives what the kernel reports of packets.
type traces interface {
	Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)
}

// readTrace reads what the kernel reported of a packet from an address to itself until it was
// dropped, or says no more.
func readTrace(ctx context.Context, from traces, addr netip.Addr) (dropper, error) {
	ctx, cancel := context.WithTimeout(ctx, traceTime)
	defer cancel()
	// The first message of each base chain holds the packet's header. In others it is known
	// by a number, which changes on its way, as do its addresses where they are translated.
	ends := slices.Concat(addr.AsSlice(), addr.AsSlice())
	ids := map[uint32]bool{}
	for ctx.Err() == nil {
		messages, sender, err := from.Receive()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return dropper{}, nil
		}
		if err != nil {
			return dropper{}, fmt.Errorf("receive traces: %w", err)
		}
		if sender.Pid != nl.PidKernel {
			continue
		}
		for _, m := range messages {
			if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE || len(m.Data) < socket.NetfilterHeader {
				continue
			}
			attrs, err := socket.Attributes(m.Data[socket.NetfilterHeader:])
			if err != nil {
				return dropper{}, err
			}
			id := socket.Uint32(attrs[unix.NFTA_TRACE_ID])
			if header := attrs[unix.NFTA_TRACE_NETWORK_HEADER]; len(header) > 0 {
				ids[id] = ids[id] || bytes.Contains(header, ends)
			}
			if ids[id] && isDrop(attrs) {
				return dropperOf(ctx, m.Data[0], attrs)
			}
		}
	}
	return dropper{}, fmt.Errorf("traces of other packets on this node do not end: %w", ctx.Err())
}

// isDrop reports whether a message says that the packet is dropped.
func isDrop(attrs map[uint16][]byte) bool {
	switch socket.Uint32(attrs[unix.NFTA_TRACE_TYPE]) {
	case unix.NFT_TRACETYPE_POLICY:
		return socket.Uint32(attrs[unix.NFTA_TRACE_POLICY]) == netfilterDrop
	case unix.NFT_TRACETYPE_RULE:
		verdict, err := socket.Attributes(attrs[unix.NFTA_TRACE_VERDICT])
		// The upper half may hold an error for the sender.
		return err == nil && len(verdict[unix.NFTA_VERDICT_CODE]) == 4 && socket.Uint32(verdict[unix.NFTA_VERDICT_CODE])&0xffff == netfilterDrop
	}
	return false
}

// netfilterDrop is the verdict NF_DROP.
const netfilterDrop = 0

// traceFamilies are nft's names of the families of tables.
var traceFamilies = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

func dropperOf(ctx context.Context, family byte, attrs map[uint16][]byte) (dropper, error) {
	d := dropper{family: traceFamilies[family], table: socket.Text(attrs[unix.NFTA_TRACE_TABLE]), chain: socket.Text(attrs[unix.NFTA_TRACE_CHAIN])}
	if handle := attrs[unix.NFTA_TRACE_RULE_HANDLE]; len(handle) == 8 {
		var err error
		if d.rule, err = ruleText(ctx, d, binary.BigEndian.Uint64(handle)); err != nil {
			return d, err
		}
	}
	return d, nil
}

// maxRuleText is how much of a rule's text is told.
const maxRuleText = 160

var counted = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// ruleText returns a rule as nft lists it; its handle where it is gone already.
func ruleText(ctx context.Context, in dropper, handle uint64) (string, error) {
	out, err := exec.CommandContext(ctx, "nft", "--handle", "list", "chain", in.family, in.table, in.chain).Output()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	suffix := fmt.Sprintf(" # handle %d", handle)
	lines := strings.Split(string(out), "\n")
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasSuffix(line, suffix) })
	if err != nil || i < 0 {
		return fmt.Sprintf("with handle %d", handle), nil //nolint:nilerr // The chain may be gone already.
	}
	text := counted.ReplaceAllString(strings.TrimSpace(strings.TrimSuffix(lines[i], suffix)), "counter")
	if len(text) > maxRuleText {
		text = strings.ToValidUTF8(text[:maxRuleText], "") + " …"
	}
	return text, nil
}
