package kernel

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

var portKind = kind{
	of:   model.KindPort,
	find: finding(func(s *model.State) *[]model.Port { return &s.Ports }, (*pass).observePorts),
	put:  by((*pass).putPort),
	news: linkNews,
}

// observePorts finds the ports that pods' links are.
func (p *pass) observePorts() ([]model.Port, error) {
	var have []model.Port
	for _, l := range p.byIndex {
		if port, ok := p.observedPort(l); ok {
			have = append(have, port)
		}
	}
	return have, nil
}

// observedPort returns the bridge, whosever it is, that a pod's link is a port of.
func (p *pass) observedPort(l netlink.Link) (model.Port, bool) {
	a := l.Attrs()
	if !isPodAlias(a.Alias) || a.MasterIndex == 0 {
		return model.Port{}, false
	}
	return model.Port{Link: a.Name, Bridge: p.nameOf(a.MasterIndex)}, true
}

// putPort puts a pod's link on a bridge.
func (p *pass) putPort(want model.Port) error {
	bridge, err := p.link(want.Bridge)
	if err != nil {
		return err
	}
	if bridge == nil {
		return fmt.Errorf("the node has no bridge %s yet: the agent makes it once it has read the network", want.Bridge)
	}
	l, err := p.link(want.Link)
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("link %s: %w", want.Link, unix.ENODEV)
	}
	if l.Attrs().MasterIndex == bridge.Attrs().Index {
		return nil
	}
	if err := p.h.LinkSetMaster(l, bridge); err != nil {
		return err
	}
	// A pod that reaches itself through a service gets its own frame back.
	if err := p.h.LinkSetHairpin(l, true); err != nil {
		return fmt.Errorf("turn hairpin on: %w", err)
	}
	return nil
}
