package kernel

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
)

// allLinks lists the links of the namespace and remembers them.
func (p *pass) allLinks() ([]netlink.Link, error) {
	links, err := socket.Complete("links", func() ([]netlink.Link, error) {
		return p.h.Handle.LinkList() //nolint:forbidigo // socket.Complete retries, then fails
	})
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		p.remember(l)
	}
	return links, nil
}

// allAddresses lists the addresses of both families.
func (p *pass) allAddresses() ([]netlink.Addr, error) {
	return socket.Complete("addresses", func() ([]netlink.Addr, error) {
		return p.h.Handle.AddrList(nil, unix.AF_UNSPEC) //nolint:forbidigo // socket.Complete retries, then fails
	})
}

// routes lists the routes of one family in some tables. They are asked for together
// because the kernel sends those of all tables each time: it chooses among them only
// for a socket that asks for strict checks (NETLINK_GET_STRICT_CHK, since Linux 4.20).
func (p *pass) routes(family int, tables ...int) ([]netlink.Route, error) {
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	return socket.Complete(fmt.Sprintf("routes of tables %d", tables), func() ([]netlink.Route, error) {
		var found []netlink.Route
		//nolint:forbidigo // socket.Complete retries, then fails
		err := p.h.Handle.RouteListFilteredIter(family, all, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			if slices.Contains(tables, r.Table) {
				found = append(found, r)
			}
			return true
		})
		return found, err
	})
}

// rules lists the rules of one family.
func (p *pass) rules(family int) ([]netlink.Rule, error) {
	return socket.Complete("rules", func() ([]netlink.Rule, error) {
		return p.h.Handle.RuleList(family) //nolint:forbidigo // socket.Complete retries, then fails
	})
}

// neighbours lists the neighbours of a family, or the forwarding tables for AF_BRIDGE.
func (p *pass) neighbours(family int) ([]netlink.Neigh, error) {
	return socket.Complete("neighbours", func() ([]netlink.Neigh, error) {
		return p.h.Handle.NeighList(0, family) //nolint:forbidigo // socket.Complete retries, then fails
	})
}
