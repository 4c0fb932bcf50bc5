package model

import (
	"crypto/sha256"
	"fmt"
	"net"
)

// MAC is an Ethernet address.
type MAC [6]byte

// String prints the address as six octets with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText makes JSON hold the printed form.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads the printed form.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil {
		return fmt.Errorf("parse MAC: %w", err)
	}
	if len(hw) != len(m) {
		return fmt.Errorf("parse MAC %q: want 6 octets", text)
	}
	copy(m[:], hw)
	return nil
}

// DeriveMAC returns a locally administered unicast address that depends on seed
// alone, so that a restart finds the same one.
func DeriveMAC(seed string) MAC {
	sum := sha256.Sum256([]byte("podnet " + seed))
	var m MAC
	copy(m[:], sum[:])
	m[0] = m[0]&^0x01 | 0x02
	return m
}
