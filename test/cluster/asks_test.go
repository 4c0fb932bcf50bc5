package cluster

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// ask is a request by HTTP, and the answer that is right.
type ask struct {
	what, url, want string
	// tries is how often to ask until the answer is right.
	tries int
}

// Times to wait for an answer, in seconds.
const (
	// answerTime is more than one takes.
	answerTime = 8
	// silenceTime is so long that one which is on its way would have come.
	silenceTime = 2
)

// Payloads that do not fit into one packet, whatever the path: one for TCP, and one for UDP that agnhost can take.
var (
	longText = strings.Repeat("0123456789", 400)
	longUDP  = strings.Repeat("0123456789", 190)
)

func askWeb(what, address string, port int, path, want string) ask {
	return ask{what: what, url: "http://" + hostPort(address, port) + path, want: want, tries: 1}
}

// via stands for the agnhost on the asking side.
const via = "VIA"

// askUDP asks a server by UDP, through the agnhost on the asking side.
func askUDP(what, address string, port int, request, want string) ask {
	q := url.Values{
		"protocol": {"udp"}, "host": {address}, "port": {fmt.Sprint(port)}, "request": {request}, "tries": {"1"},
	}
	return ask{what: what, url: "http://" + via + "/dial?" + q.Encode(), want: fmt.Sprintf(`{"responses":[%q]}`, want), tries: 1}
}

// askLongUDP asks for the echo of a text that takes several packets. One end after the other learns from its first ones,
// which are lost, that a path takes less than its link does: that is what discovery of the path's MTU costs.
func askLongUDP(what, address string, port int) ask {
	long := askUDP(what, address, port, "echo "+longUDP, longUDP)
	long.tries = 3
	return long
}

// askActor asks an actor's pod by TCP and UDP, in small and in large packets.
func (a *actors) askActor(name string, is4 bool) []ask {
	address := a.address(name, is4)
	return []ask{
		askWeb("TCP to "+name, address, webPort, "/hostname", name),
		askWeb("long TCP to "+name, address, webPort, "/echo?msg="+longText, longText),
		askUDP("UDP to "+name, address, webUDPPort, "hostname", name),
		askLongUDP("long UDP to "+name, address, webUDPPort),
	}
}

// askService asks the service before an actor by TCP and UDP.
func (a *actors) askService(name string, is4 bool) []ask {
	address := a.clusterIP(name, is4)
	return []ask{
		askWeb("TCP to service "+name, address, servicePort, "/hostname", name),
		askUDP("UDP to service "+name, address, serviceUDPPort, "hostname", name),
	}
}

// asking is the part of a script that asks: what, where, for which answer, how often, and for how long.
const asking = `
ask() {
	local got try
	for try in $(seq "$4"); do
		got=$(curl -gsS --max-time "$5" "$2" 2>&1) || true
		[ "$got" != "$3" ] || return 0
	done
	echo "$1: ${got:0:200}"
}
`

// failures asks everything from one place, and says which answers were not right.
func failures(ctx context.Context, from origin, asks []ask) []string {
	return failuresWithin(ctx, answerTime, from, asks)
}

func failuresWithin(ctx context.Context, seconds int, from origin, asks []ask) []string {
	var script strings.Builder
	script.WriteString(asking)
	for _, q := range asks {
		fmt.Fprintf(&script, "ask '%s' '%s' '%s' %d %d\n", q.what, strings.Replace(q.url, via, from.agnhost(), 1), q.want, q.tries, seconds)
	}
	output, err := from.shell(ctx, script.String()+"true")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(output) {
		out = append(out, fmt.Sprintf("from %s: %s", from, strings.TrimSpace(line)))
	}
	return out
}

// expectAnswers checks that everything is answered at once: what is between ready pods needs no time.
func expectAnswers(ctx context.Context, from origin, asks []ask) {
	GinkgoHelper()
	Expect(asks).NotTo(BeEmpty())
	Expect(failures(ctx, from, asks)).To(BeEmpty())
}

// expectAnswersSoon gives kube-proxy, or whoever else has a part in it, the time to do it.
func expectAnswersSoon(ctx context.Context, from origin, asks []ask) {
	GinkgoHelper()
	Expect(asks).NotTo(BeEmpty())
	Eventually(func() []string { return failures(ctx, from, asks) }).Should(BeEmpty())
}

// expectSilence waits until nothing is answered. What is denied is dropped, and nobody is told.
func expectSilence(ctx context.Context, from origin, asks []ask) {
	GinkgoHelper()
	Expect(asks).NotTo(BeEmpty())
	Eventually(func() []string { return failuresWithin(ctx, silenceTime, from, asks) }).Should(
		And(HaveLen(len(asks)), HaveEach(ContainSubstring("timed out"))), "from %s", from)
}
