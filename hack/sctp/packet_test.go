package main

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"testing"
)

// The packets of an association, as bytes: fields and their places are those of the figures of RFC 9260, section 3.
func TestPacketsAreAsTheStandardDrawsThem(t *testing.T) {
	for name, test := range map[string]struct {
		packet packet
		want   string
	}{
		// What github.com/pion/sctp has for a packet without chunks.
		"header": {packet{source: 5000, destination: 5000}, "13881388 00000000 06a900e1"},
		"INIT": {
			packet{source: 40000, destination: 9003, chunks: []chunk{start{tag: 0x01020304, tsn: 0x05060708}.chunk()}},
			"9c40232b 00000000 ######## 01000014 01020304 000005dc 00010001 05060708",
		},
		"INIT ACK": {
			packet{source: 9003, destination: 40000, tag: 0x01020304, chunks: []chunk{start{tag: 9, tsn: 8, cookie: []byte{1, 2, 3, 4}}.chunk()}},
			"232b9c40 01020304 ######## 0200001c 00000009 000005dc 00010001 00000008 00070008 01020304",
		},
		"COOKIE ECHO": {
			packet{source: 40000, destination: 9003, tag: 9, chunks: []chunk{{kind: typeCookieEcho, value: []byte{1, 2, 3, 4}}}},
			"9c40232b 00000009 ######## 0a000008 01020304",
		},
		"COOKIE ACK and DATA with padding": {
			packet{source: 9003, destination: 40000, tag: 7, chunks: []chunk{{kind: typeCookieAck}, data(8, "hello")}},
			"232b9c40 00000007 ######## 0b000004 00030015 00000008 00000000 00000000 68656c6c 6f000000",
		},
		"ABORT": {
			(&client{port: 40000, serverPort: 9003, serverTag: 9}).abort(),
			"9c40232b 00000009 ######## 06000008 000c0004",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.packet.encode()
			text := []byte(hex.EncodeToString(got))
			want := bytes.ReplaceAll([]byte(test.want), []byte(" "), nil)
			if i := bytes.IndexByte(want, '#'); i >= 0 {
				copy(want[i:], text[i:i+8])
			}
			if !bytes.Equal(text, want) {
				t.Errorf("encoded as %s instead of %s", text, want)
			}
			if back, err := decode(got); err != nil || !reflect.DeepEqual(canonical(back), canonical(test.packet)) {
				t.Errorf("decoded as %+v: %v", back, err)
			}
		})
	}
}

// canonical makes values without bytes equal.
func canonical(p packet) packet {
	var chunks []chunk
	for _, c := range p.chunks {
		c.value = append([]byte{}, c.value...)
		chunks = append(chunks, c)
	}
	p.chunks = chunks
	return p
}

func TestDamagedPacketsAreRefused(t *testing.T) {
	whole := packet{source: 1, destination: 2, tag: 3, chunks: []chunk{{kind: typeCookieAck}, data(8, "hello")}}.encode()
	for i := range whole {
		for bit := range 8 {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 1 << bit
			if _, err := decode(damaged); err == nil {
				t.Errorf("bit %d of byte %d was changed, and nobody noticed", bit, i)
			}
		}
	}
	for size := range len(whole) {
		if _, err := decode(whole[:size]); err == nil {
			t.Errorf("a packet that ends after %d bytes was accepted", size)
		}
	}
}

// Lengths within a packet are its sender's to choose.
func TestNoLengthLeadsOutOfThePacket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		value := make([]byte, random.IntN(48))
		for i := range value {
			value[i] = byte(random.UintN(256)) >> random.UintN(8)
		}
		if p, err := decode(packet{chunks: []chunk{{kind: typeInit, value: value}}}.encode()); err != nil || len(p.chunks) != 1 {
			t.Fatalf("an INIT of %x is decoded as %+v: %v", value, p, err)
		}
		s, err := parseStart(value)
		if err == nil && (s.tag == 0 || len(s.cookie) > len(value)-initSize) {
			t.Fatalf("%x is %+v", value, s)
		}
		if _, rest, err := cut(value); err == nil && len(rest) >= len(value) {
			t.Fatalf("%x has the rest %x", value, rest)
		}
	}
}
