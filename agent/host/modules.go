package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// trials are what podnet asks of nftables, each with the module that has it: a kernel
// loads that by itself where its modules are at hand. What newer kernels have in nf_tables
// itself is not among them.
var trials = []struct {
	module string
	chain  nft.Chain
}{
	{"nft_ct", trial("filter", "prerouting", "raw", "ct state new accept")},
	{"nft_fib_inet", trial("filter", "prerouting", "raw", "fib daddr type local accept")},
	{"nft_numgen", trial("filter", "forward", "mangle", "numgen random mod 8 == 0 accept")},
	{"nft_limit", trial("filter", "forward", "mangle", "limit rate over 1/second accept")},
	{"nft_chain_nat", trial("nat", "prerouting", "dstnat", "")},
	{"nft_nat", trial("nat", "postrouting", "srcnat", "meta nfproto ipv4 snat to 192.0.2.1")},
	{"nft_masq", trial("nat", "postrouting", "srcnat", "masquerade fully-random")},
}

func trial(kind nft.ChainType, hook nft.Hook, place nft.Place, rule string) nft.Chain {
	c := nft.Chain{Name: "trial", Base: nft.Base{Type: kind, Hook: hook, Priority: place.At(0)}}
	if rule != "" {
		c.Rules = nft.Rules(rule)
	}
	return c
}

// missingModules returns the modules that the kernel neither has nor loads, of those that
// everything needs. That it has all is remembered; others may be loaded at any time.
func (h *Host) missingModules(ctx context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.modules {
		return nil, nil
	}
	missing := h.missingOfNFT(ctx)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("see what the kernel has of nftables: %w", err)
	}
	if err := tryConntrack(); errors.Is(err, unix.EINVAL) {
		missing = append(missing, "nf_conntrack_netlink")
	} else if err != nil {
		return nil, fmt.Errorf("ask the kernel for its connections: %w", err)
	}
	h.modules = len(missing) == 0
	return missing, nil
}

// missingOfNFT returns the modules of nftables that are missing.
func (h *Host) missingOfNFT(ctx context.Context) []string {
	if h.try(ctx, nil) != nil {
		return []string{"nf_tables"}
	}
	var missing []string
	for _, t := range trials {
		if h.try(ctx, []nft.Chain{t.chain}) != nil {
			missing = append(missing, t.module)
		}
	}
	return missing
}

// try asks the kernel whether it takes a table with chains. Nothing is made.
func (h *Host) try(ctx context.Context, chains []nft.Chain) error {
	return h.cfg.NFT.Check(ctx, nft.Table{Family: "inet", Name: model.FirewallTable + "-trial", Chains: chains})
}

// conntrackStats is the message that asks for how many connections there are
// (linux/netfilter/nfnetlink_conntrach.h, IPCTNL_MSG_CT_GET_STATS).
const conntrackStats = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5

// tryConntrack asks the kernel how many connections there are. Where nobody answers such
// questions that is invalid.
func tryConntrack() error {
	// The answer looks like the first of several, and the acknowledgement ends it.
	req := nl.NewNetlinkRequest(conntrackStats, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}
