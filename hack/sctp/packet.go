package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The parts of SCTP that are needed here, by section of RFC 9260.

// protocol is SCTP's number in IP headers.
const protocol = 132

// Types of chunks (3.2).
const (
	typeData       = 0
	typeInit       = 1
	typeInitAck    = 2
	typeAbort      = 6
	typeCookieEcho = 10
	typeCookieAck  = 11
)

const (
	headerSize      = 12
	chunkHeaderSize = 4
	// initSize is the fixed part of INIT and INIT ACK (3.3.2, 3.3.3).
	initSize = 16
	// dataSize is what precedes the user's data in DATA (3.3.1).
	dataSize = 12
	// parameterCookie is the State Cookie of INIT ACK (3.3.3.1).
	parameterCookie = 7
	// window is the room that is promised to the peer, in bytes; it is the least that is allowed (3.3.2) and far
	// more than anybody sends here.
	window = 1500
	// wholeMessage marks DATA that is a message's first and last fragment.
	wholeMessage = 0b11
)

// packet is an SCTP packet (3).
type packet struct {
	source, destination uint16
	// tag is the receiver's verification tag: 0 in packets with INIT, and only there.
	tag    uint32
	chunks []chunk
}

// chunk is a chunk of any type (3.2).
type chunk struct {
	kind, flags uint8
	value       []byte
}

// castagnoli is the polynomial of SCTP's checksum (appendix A).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the packet as it stands behind an IP header.
func (p packet) encode() []byte {
	out := binary.BigEndian.AppendUint16(nil, p.source)
	out = binary.BigEndian.AppendUint16(out, p.destination)
	out = binary.BigEndian.AppendUint32(out, p.tag)
	out = append(out, 0, 0, 0, 0)
	for _, c := range p.chunks {
		out = append(out, c.kind, c.flags)
		out = binary.BigEndian.AppendUint16(out, uint16(chunkHeaderSize+len(c.value)))
		out = append(out, c.value...)
		out = append(out, make([]byte, padding(len(c.value)))...)
	}
	// CRC32c is the one field that is not in the network's order of bytes.
	binary.LittleEndian.PutUint32(out[8:], crc32.Checksum(out, castagnoli))
	return out
}

// decode reads what stands behind an IP header. The values of the chunks are parts of raw.
func decode(raw []byte) (packet, error) {
	if len(raw) < headerSize {
		return packet{}, fmt.Errorf("%d bytes are less than a header", len(raw))
	}
	sum := crc32.Checksum(raw[:8], castagnoli)
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, raw[headerSize:])
	if got := binary.LittleEndian.Uint32(raw[8:]); got != sum {
		return packet{}, fmt.Errorf("the checksum is %08x instead of %08x", got, sum)
	}
	p := packet{
		source:      binary.BigEndian.Uint16(raw),
		destination: binary.BigEndian.Uint16(raw[2:]),
		tag:         binary.BigEndian.Uint32(raw[4:]),
	}
	for rest := raw[headerSize:]; len(rest) > 0; {
		value, after, err := cut(rest)
		if err != nil {
			return packet{}, err
		}
		p.chunks = append(p.chunks, chunk{kind: rest[0], flags: rest[1], value: value})
		rest = after
	}
	return p, nil
}

// cut takes the value of the first chunk or parameter: both have their length, with their header of four bytes and
// without padding, in their third and fourth byte.
func cut(raw []byte) (value, rest []byte, err error) {
	if len(raw) < chunkHeaderSize {
		return nil, nil, fmt.Errorf("%d bytes are less than the header of a chunk or parameter", len(raw))
	}
	length := int(binary.BigEndian.Uint16(raw[2:]))
	if length < chunkHeaderSize || length > len(raw) {
		return nil, nil, fmt.Errorf("a chunk or parameter of %d bytes, with %d left", length, len(raw))
	}
	return raw[chunkHeaderSize:length], raw[min(length+padding(length), len(raw)):], nil
}

// padding is how many bytes are missing to a multiple of four.
func padding(length int) int { return -length & 3 }

// start is what INIT and INIT ACK say of their sender.
type start struct {
	// tag is what the sender wants to find in packets that it receives.
	tag uint32
	// tsn is the number of the sender's first DATA.
	tsn uint32
	// cookie is of INIT ACK only.
	cookie []byte
}

// chunk returns an INIT, or an INIT ACK where there is a cookie.
func (s start) chunk() chunk {
	value := binary.BigEndian.AppendUint32(nil, s.tag)
	value = binary.BigEndian.AppendUint32(value, window)
	value = append(value, 0, 1, 0, 1) // one stream each way
	value = binary.BigEndian.AppendUint32(value, s.tsn)
	if s.cookie == nil {
		return chunk{kind: typeInit, value: value}
	}
	value = binary.BigEndian.AppendUint16(value, parameterCookie)
	value = binary.BigEndian.AppendUint16(value, uint16(chunkHeaderSize+len(s.cookie)))
	return chunk{kind: typeInitAck, value: append(value, s.cookie...)}
}

// parseStart reads the value of INIT or INIT ACK.
func parseStart(value []byte) (start, error) {
	if len(value) < initSize {
		return start{}, fmt.Errorf("%d bytes are less than an INIT", len(value))
	}
	s := start{tag: binary.BigEndian.Uint32(value), tsn: binary.BigEndian.Uint32(value[12:])}
	if s.tag == 0 {
		return start{}, errors.New("an INIT with tag 0")
	}
	for rest := value[initSize:]; len(rest) > 0; {
		parameter, after, err := cut(rest)
		if err != nil {
			return start{}, err
		}
		if binary.BigEndian.Uint16(rest) == parameterCookie {
			s.cookie = parameter
		}
		rest = after
	}
	return s, nil
}

// data returns a DATA chunk with a whole message, the first one of stream 0.
func data(tsn uint32, message string) chunk {
	value := binary.BigEndian.AppendUint32(nil, tsn)
	value = append(value, make([]byte, dataSize-len(value))...)
	return chunk{kind: typeData, flags: wholeMessage, value: append(value, message...)}
}
