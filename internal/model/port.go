package model

import (
	"fmt"
	"net/netip"
	"strings"
)

// Port is the host end of a pod's link as a port of a bridge. It goes with the link.
type Port struct {
	Link   string
	Bridge string
}

type portLink string

// ObjectKind implements Object.
func (Port) ObjectKind() ObjectKind { return KindPort }

// Identity implements Object.
func (p Port) Identity() any { return portLink(p.Link) }

// On implements Object.
func (p Port) On() string { return p.Bridge }

// IP implements Object.
func (p Port) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (p Port) Describe() string { return fmt.Sprintf("port %s of bridge %s", p.Link, p.Bridge) }

// Detail implements Object.
func (p Port) Detail(Object) string { return p.Describe() }

// Compare orders ports by their links.
func (p Port) Compare(other Port) int { return strings.Compare(p.Link, other.Link) }
