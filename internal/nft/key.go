package nft

import (
	"encoding/binary"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// protocols are the numbers of the protocols that pods have ports of.
var protocols = map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}

// interfaceName is the length of an interface's name in the kernel (IFNAMSIZ).
const interfaceName = 16

// addressBits is the length of an IPv6 address.
const addressBits = 128

// KernelKey writes the key of an element as the kernel holds it: each part of a
// concatenation fills whole registers of four bytes (net/netfilter/nf_tables_api.c).
// It reports false for a set whose keys it cannot write, an interval set for one.
func (s Set) KernelKey(key []string) (string, bool) {
	types := strings.Split(s.Key, " . ")
	if s.Interval || len(types) != len(key) {
		return "", false
	}
	var out []byte
	for i, kind := range types {
		part, ok := kernelPart(kind, key[i])
		if !ok {
			return "", false
		}
		out = append(out, part...)
		for len(types) > 1 && len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return string(out), true
}

// kernelPart writes one part of a key.
func kernelPart(kind, text string) ([]byte, bool) {
	switch kind {
	case "ipv4_addr", "ipv6_addr":
		a, err := netip.ParseAddr(text)
		return a.AsSlice(), err == nil
	case "integer":
		// Of the fields that nft has no type for, podnet uses the size of one alone.
		number, ok := new(big.Int).SetString(text, 0)
		if !ok || number.Sign() < 0 || number.BitLen() > addressBits {
			return nil, false
		}
		return number.FillBytes(make([]byte, addressBits/8)), true
	case "ether_addr":
		mac, err := net.ParseMAC(text)
		return mac, err == nil
	case "ifname":
		return slices.Concat([]byte(text), make([]byte, max(0, interfaceName-len(text)))), len(text) < interfaceName
	case "inet_proto":
		number, ok := protocols[text]
		return []byte{number}, ok
	case "inet_service":
		port, err := strconv.ParseUint(text, 10, 16)
		return binary.BigEndian.AppendUint16(nil, uint16(port)), err == nil
	}
	return nil, false
}
