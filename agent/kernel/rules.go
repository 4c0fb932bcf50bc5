package kernel

import (
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

var ruleKind = kind{
	of:   model.KindRule,
	find: finding(func(s *model.State) *[]model.Rule { return &s.Rules }, (*pass).observeRules),
	put:  by((*pass).putRule),
	take: by((*pass).deleteRule),
	news: news{groups: []uint{unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE}, added: unix.RTM_NEWRULE, read: (*watcher).rule},
}

// observeRules finds podnet's rules of both families.
func (p *pass) observeRules() ([]model.Rule, error) {
	var have []model.Rule
	for _, family := range families {
		rules, err := p.rules(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if found := modelRule(r, family); isOwnRule(found) {
				have = append(have, found)
			}
		}
	}
	return have, nil
}

// isOwnRule reports whether a rule is one of podnet's: by its priority and its table.
func isOwnRule(r model.Rule) bool {
	if r.Table == model.RouteTable {
		return r.Priority == model.RulePriority
	}
	return r.Priority == model.ProbeRulePriority && slices.Contains(tables, r.Table)
}

func modelRule(r netlink.Rule, family int) model.Rule {
	return model.Rule{IPv6: family == unix.AF_INET6, Priority: r.Priority, Table: r.Table, Mark: r.Mark, In: r.IifName}
}

func ruleOf(r model.Rule) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = familyOf(!r.IPv6)
	rule.Priority = r.Priority
	rule.Table = r.Table
	rule.Mark = r.Mark
	rule.IifName = r.In
	rule.Protocol = model.RouteProtocol
	return rule
}

// putRule makes a rule unless there is one.
func (p *pass) putRule(want model.Rule) error {
	rules, err := p.rules(familyOf(!want.IPv6))
	if err != nil {
		return err
	}
	for _, r := range rules {
		if modelRule(r, familyOf(!want.IPv6)) == want {
			return nil
		}
	}
	return p.h.RuleAdd(ruleOf(want))
}

func (p *pass) deleteRule(gone model.Rule) error {
	rule := ruleOf(gone)
	// Without a protocol the kernel takes a rule of any.
	rule.Protocol = 0
	if err := p.h.RuleDel(rule); err != nil && !isGone(err) {
		return err
	}
	return nil
}

// rule reads a rule of podnet's.
func (w *watcher) rule(m syscall.NetlinkMessage, gone bool) error {
	data := m.Data
	// fib_rule_hdr is laid out as rtmsg is (linux/fib_rules.h).
	msg := nl.DeserializeRtMsg(data)
	attrs, err := nl.ParseRouteAttrAsMap(data[msg.Len():])
	if err != nil {
		return err
	}
	found := model.Rule{
		IPv6:     msg.Family == unix.AF_INET6,
		Priority: int(uint32Of(attrs[unix.FRA_PRIORITY].Value)),
		Table:    int(uint32Of(attrs[unix.FRA_TABLE].Value)),
		Mark:     uint32Of(attrs[unix.FRA_FWMARK].Value),
		In:       unix.ByteSliceToString(attrs[unix.FRA_IIFNAME].Value),
	}
	if isOwnRule(found) {
		w.seen(diff.Sighting{Object: found, Gone: gone})
	}
	return nil
}
