package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var peer = netip.MustParseAddr("192.0.2.1")

// answered returns the answer to a packet that has one.
func answered(t *testing.T, s *server, in packet) packet {
	t.Helper()
	out, ok := s.answer(peer, in)
	if !ok {
		t.Fatalf("%+v is not answered", in)
	}
	return out
}

// echoing returns a client and a server of which the client sends the cookie next.
func echoing(t *testing.T) (*client, *server) {
	t.Helper()
	s, c := newServer(map[uint16]string{9003: "foo"}), newClient(9003)
	if p := c.take(answered(t, s, c.out)); p != next || c.out.chunks[0].kind != typeCookieEcho {
		t.Fatalf("an INIT ACK leads to %v and %+v", p, c.out)
	}
	return c, s
}

func TestClientGetsTheMessageOfTheServer(t *testing.T) {
	c, s := echoing(t)
	out := answered(t, s, c.out)
	if want := data(c.serverTag, "foo"); len(out.chunks) != 2 || out.chunks[0].kind != typeCookieAck || !reflect.DeepEqual(out.chunks[1], want) {
		t.Errorf("a COOKIE ECHO is answered with %+v", out)
	}
	if p := c.take(out); p != received {
		t.Errorf("the message leads to %v", p)
	}
	if _, ok := s.answer(peer, c.abort()); ok || c.abort().tag != c.serverTag {
		t.Errorf("%+v is answered", c.abort())
	}
}

// A client that misses an answer sends the same packet again.
func TestAnswersAreTheSameEachTime(t *testing.T) {
	s, c := newServer(map[uint16]string{9003: "foo"}), newClient(9003)
	first := answered(t, s, c.out)
	if again := answered(t, s, c.out); !reflect.DeepEqual(first, again) {
		t.Errorf("an INIT is answered with %+v and then %+v", first, again)
	}
	c.take(first)
	if p := c.take(first); p != nothing {
		t.Errorf("a second INIT ACK leads to %v", p)
	}
	if a, b := answered(t, s, c.out), answered(t, s, c.out); !reflect.DeepEqual(a, b) {
		t.Errorf("a COOKIE ECHO is answered with %+v and then %+v", a, b)
	}
}

func TestServerAnswersNobodyElse(t *testing.T) {
	c, s := echoing(t)
	init := newClient(9003).out
	for name, test := range map[string]struct {
		from   netip.Addr
		server *server
		in     packet
		change func(p *packet)
	}{
		"INIT to another port":            {in: init, change: func(p *packet) { p.destination++ }},
		"INIT with a tag":                 {in: init, change: func(p *packet) { p.tag = 1 }},
		"INIT that announces no tag":      {in: init, change: func(p *packet) { p.chunks = []chunk{start{}.chunk()} }},
		"INIT that is cut":                {in: init, change: func(p *packet) { p.chunks = []chunk{{kind: typeInit}} }},
		"no chunk":                        {in: init, change: func(p *packet) { p.chunks = nil }},
		"cookie with another tag":         {in: c.out, change: func(p *packet) { p.tag++ }},
		"cookie of another client's port": {in: c.out, change: func(p *packet) { p.source++ }},
		"cookie of another client":        {in: c.out, from: netip.MustParseAddr("192.0.2.2")},
		"cookie of another server":        {in: c.out, server: newServer(s.texts)},
		"cookie that was changed":         {in: c.out, change: func(p *packet) { p.chunks = []chunk{{kind: typeCookieEcho, value: []byte{1, 2, 3, 4}}} }},
		"cookie that is cut":              {in: c.out, change: func(p *packet) { p.chunks = []chunk{{kind: typeCookieEcho}} }},
	} {
		if test.change != nil {
			test.change(&test.in)
		}
		if test.server == nil {
			test.server = s
		}
		if !test.from.IsValid() {
			test.from = peer
		}
		if out, ok := test.server.answer(test.from, test.in); ok {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func TestClientTakesOnlyWhatIsForIt(t *testing.T) {
	for name, test := range map[string]struct {
		change func(p *packet)
		want   progress
	}{
		"its server":                  {func(*packet) {}, received},
		"another port of the server":  {func(p *packet) { p.source++ }, nothing},
		"another port of the client":  {func(p *packet) { p.destination++ }, nothing},
		"an earlier association":      {func(p *packet) { p.tag++ }, nothing},
		"the cookie's receipt alone":  {func(p *packet) { p.chunks = p.chunks[:1] }, nothing},
		"the message alone":           {func(p *packet) { p.chunks = p.chunks[1:] }, received},
		"a server that does not want": {func(p *packet) { p.chunks = []chunk{{kind: typeAbort}} }, refused},
	} {
		c, s := echoing(t)
		out := answered(t, s, c.out)
		test.change(&out)
		if got := c.take(out); got != test.want {
			t.Errorf("%s: %v instead of %v", name, got, test.want)
		}
	}
	c := newClient(9003)
	without := packet{source: 9003, destination: c.port, tag: c.tag, chunks: []chunk{{kind: typeInitAck, value: start{tag: 1}.chunk().value}}}
	if got := c.take(without); got != nothing {
		t.Errorf("an INIT ACK without a cookie leads to %v", got)
	}
}

func TestPortsAreReadFromTheEnvironment(t *testing.T) {
	texts, err := portsOf([]string{"SERVE_SCTP_PORT_9003=foo=bar", "SERVE_PORT_80=web", "PATH=/bin", "SERVE_SCTP_PORT_9005=b"})
	if want := (map[uint16]string{9003: "foo=bar", 9005: "b"}); err != nil || !reflect.DeepEqual(texts, want) {
		t.Errorf("%v, %v", texts, err)
	}
	for environ, want := range map[string]string{
		"PATH=/bin":               "nothing to serve",
		"SERVE_SCTP_PORT_9003=":   "is empty",
		"SERVE_SCTP_PORT_web=foo": "invalid syntax",
		"SERVE_SCTP_PORT_65536=a": "out of range",
	} {
		if _, err := portsOf([]string{environ}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", environ, err)
		}
	}
}
