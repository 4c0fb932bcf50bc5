package model

import (
	"fmt"
	"net/netip"
	"strings"
)

// LinkKind is the kind of a link, named as the kernel does.
type LinkKind string

// The kinds of links that a State holds. The veths of pods are not among them:
// they come and go with their pods.
const (
	LinkBridge LinkKind = "bridge"
	LinkVXLAN  LinkKind = "vxlan"
)

// Link is a network device.
type Link struct {
	Name string
	Kind LinkKind
	MAC  MAC
	// MTU is the largest IP packet in bytes.
	MTU int
	// VNI, Port, Local and Underlay are a VXLAN device's: network identifier, UDP
	// port, source of its outer packets, and interface that these leave by.
	VNI      uint32
	Port     uint16
	Local    netip.Addr
	Underlay string
}

type linkName string

// ObjectKind implements Object.
func (Link) ObjectKind() ObjectKind { return KindLink }

// Identity implements Object.
func (l Link) Identity() any { return linkName(l.Name) }

// On implements Object.
func (Link) On() string { return "" }

// IP implements Object.
func (Link) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (l Link) Describe() string { return fmt.Sprintf("%s link %s", l.Kind, l.Name) }

// Detail implements Object.
func (Link) Detail(Object) string { return "" }

// Compare orders links by their names.
func (l Link) Compare(other Link) int { return strings.Compare(l.Name, other.Name) }
