package prober

import (
	"net/netip"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
)

func TestMessageComesBackAsItWasSent(t *testing.T) {
	for _, to := range []string{"10.244.1.254", "fd00::ffff"} {
		to := netip.MustParseAddr(to)
		for _, size := range []int{128, 1280, 1500, 65535} {
			m := message{kind: request, way: 1, size: size, bare: size == 128, network: networkID("x"), nonce: freshNonce()}
			datagram := m.encode(make([]byte, maxPacket), to)
			if want := size - ipHeader(to) - udpHeader; len(datagram) != want {
				t.Errorf("a packet of %d bytes to %s has %d bytes of data, want %d", size, to, len(datagram), want)
			}
			if got, ok := decode(datagram, to); !ok || got != m {
				t.Errorf("%+v comes back as %+v, %t", m, got, ok)
			}
			if _, ok := decode(datagram[:len(datagram)-1], to); ok {
				t.Error("a packet that was cut short passes for a whole one")
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	to := netip.MustParseAddr("10.244.1.254")
	f.Add(message{kind: answer, size: 128}.encode(make([]byte, 200), to))
	f.Add([]byte("podnet"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		m, ok := decode(datagram, to)
		if ok && m.size != len(datagram)+28 {
			t.Errorf("%d bytes are a packet of %d", len(datagram), m.size)
		}
	})
}

// A pod receives no request, and does not know its nonce.
func TestOnlyTheAnswerToARequestCounts(t *testing.T) {
	p := &Prober{flights: map[nonce]*flight{}, targets: map[netip.Prefix]*target{}}
	other := netip.MustParseAddr("10.244.2.254")
	target := &target{PathChoice: model.PathChoice{Block: netip.MustParsePrefix("10.244.2.0/24")}, addr: other}
	n := freshNonce()
	f := &flight{pair: &pair{target: target}, nonces: []nonce{n}, left: 2}
	f.round.Results = []paths.Result{{Sent: []int{128, 1500}}}
	f.pair.flights = []*flight{f}
	p.flights[n] = f
	back := func() int { return len(f.round.Results[0].Back) }
	for name, wrong := range map[string]struct {
		from netip.Addr
		m    message
	}{
		"another nonce":   {other, message{size: 128, nonce: freshNonce()}},
		"another address": {netip.MustParseAddr("10.244.2.7"), message{size: 128, nonce: n}},
		"another path":    {other, message{way: 1, size: 128, nonce: n}},
		"another size":    {other, message{size: 129, nonce: n}},
		"another network": {other, message{size: 128, nonce: n, network: networkID("other")}},
	} {
		if p.answered(wrong.from, wrong.m); back() != 0 {
			t.Errorf("an answer with %s counts", name)
		}
	}
	for range 2 {
		if p.answered(other, message{size: 128, nonce: n}); back() != 1 {
			t.Errorf("%d answers count, want the first", back())
		}
	}
}

func TestRequestsOfOthersAreNotAnswered(t *testing.T) {
	p := &Prober{asking: map[netip.Addr]*target{netip.MustParseAddr("10.244.2.254"): {}}, network: networkID("mine")}
	for _, c := range []struct {
		from, network string
		want          bool
	}{{"10.244.2.254", "mine", true}, {"10.244.2.254", "theirs", false}, {"10.244.2.7", "mine", false}} {
		if got := p.mayAsk(netip.MustParseAddr(c.from), networkID(c.network)); got != c.want {
			t.Errorf("a request of %s from %s is answered: %t", c.network, c.from, got)
		}
	}
}
