package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// flow is traffic that goes on for a while, and must not notice anything.
type flow struct {
	what   string
	from   origin
	script string
	// verdict reads what the script printed.
	verdict func(output string) error
}

// flows are the steady traffic that a change is made under, for so many seconds: in both families and on all kinds of
// way, packets both ways, 1,000 of them in a second between pods, and connections that stay open. None of it needs the API
// server.
//
// Two cores carry all this beside three nodes and the control plane, and more would lose packets for want of a processor,
// which says nothing of podnet. The spec that changes nothing shows that this much loses none. What costs is the number of
// packets, each of which passes the rules of two nodes, and of a third for those that come through its port.
func (a *actors) flows(seconds int) []flow {
	var out []flow
	for i, f := range families {
		port := firstStreamPort + 2*i
		address := a.address("b1", f.is4)
		out = append(out,
			flow{"pings by " + f.name, a.byRuntime("a1"), pings(address, 1000, seconds), noPingLost},
			flow{"pings from a node by " + f.name, a.byRuntime("host"), pings(address, 100, seconds), noPingLost},
			flow{"datagrams by " + f.name, a.byRuntime("a1"), iperf(address, port, seconds) + " -u -b 100k -l 125", noDatagramLost},
			flow{"a connection by " + f.name, a.byRuntime("a2"), iperf(address, port+1, seconds) + steadily, neverStalled},
		)
	}
	connection := func(what string, from origin, address string, port int) flow {
		return flow{"a connection " + what, from, iperf(address, port, seconds) + steadily, neverStalled}
	}
	return append(out,
		connection("from a node to a service", a.byRuntime("host"), a.clusterIP("b1", true), serviceStreamPort),
		connection("from a pod to a service", a.byRuntime("a2"), a.clusterIP("b1", false), serviceStreamPort+2),
		connection("from outside through a node's port", outside{}, local.nodes[0].v4, a.nodePort("b1", "stream-outside")),
		connection("from a pod through the port of a third node", a.byRuntime("a2"), local.nodes[2].v6, a.nodePort("b1", "stream-third")),
	)
}

// pings sends so many pings in a second, at most 1,000. fping sleeps between them, where that of iputils spins through a core
// for 1,000 in a second, and that of busybox now and then takes an answer for a duplicate, as it also counts in the handler
// of a signal. An answer counts as long as it comes within two seconds.
func pings(address string, perSecond, seconds int) string {
	return fmt.Sprintf("fping -q -i 0.1 -p %d -t 2000 -c %d %s 2>&1", 1000/perSecond, perSecond*seconds, address)
}

// steadily makes iperf3 send small pieces, 250 of them in a second.
const steadily = " -b 2M -l 1K -N"

func iperf(address string, port, seconds int) string {
	return fmt.Sprintf("iperf3 --json --connect-timeout 5000 -c %s -p %d -t %d", address, port, seconds)
}

var pinged = regexp.MustCompile(`xmt/rcv/%loss = (\d+)/(\d+)/`)

func noPingLost(output string) error {
	sent, came, err := countPings(output)
	if err == nil && sent != came {
		err = fmt.Errorf("not every ping came back: %s", output)
	}
	return err
}

// countPings reads how many pings were sent, and how many of them came back.
func countPings(output string) (sent, came int, err error) {
	m := pinged.FindStringSubmatch(output)
	if len(m) == 0 || m[1] == "0" {
		return 0, 0, fmt.Errorf("no ping was sent: %s", output)
	}
	if sent, err = strconv.Atoi(m[1]); err != nil {
		return 0, 0, err
	}
	came, err = strconv.Atoi(m[2])
	return sent, came, err
}

// report is the part of iperf3's JSON that counts.
type report struct {
	Intervals []struct {
		Sum struct {
			Bytes   float64 `json:"bytes"`
			Seconds float64 `json:"seconds"`
		} `json:"sum"`
	} `json:"intervals"`
	End struct {
		Sum struct {
			Packets     int `json:"packets"`
			LostPackets int `json:"lost_packets"`
		} `json:"sum"`
	} `json:"end"`
	Error string `json:"error"`
}

func readReport(output string) (report, error) {
	var r report
	if err := json.Unmarshal([]byte(output), &r); err != nil {
		return r, fmt.Errorf("iperf3 printed %q: %w", output, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("iperf3: %s", r.Error)
	}
	return r, nil
}

func noDatagramLost(output string) error {
	r, err := readReport(output)
	if err == nil && (r.End.Sum.LostPackets != 0 || r.End.Sum.Packets == 0) {
		err = fmt.Errorf("%d of %d datagrams were lost", r.End.Sum.LostPackets, r.End.Sum.Packets)
	}
	return err
}

// neverStalled lets one second be empty, as a busy machine may not let iperf3 run.
func neverStalled(output string) error { return stalledFor(output, time.Second) }

// stalledFor lets a stream be empty for so long, in whole intervals.
func stalledFor(output string, allowed time.Duration) error {
	r, err := readReport(output)
	if err != nil {
		return err
	}
	var empty, longest float64
	for _, interval := range r.Intervals {
		empty += interval.Sum.Seconds
		if interval.Sum.Bytes != 0 {
			empty = 0
		}
		longest = max(longest, empty)
	}
	GinkgoWriter.Printf("longest stall: %.1f s\n", longest)
	// The last interval may be a little longer than the others.
	if longest > allowed.Seconds()+0.1 {
		err = fmt.Errorf("nothing came through for %.1f s, and %s were allowed", longest, allowed)
	}
	return err
}

// control is a flow that no network carries. What stalls it is the machine.
type control struct{ late []lateness }

// lateness is by how much a packet was late.
type lateness struct{ at, by time.Duration }

// flow pings the actor's own loopback a thousand times in a second. It is to be judged before those that go by it.
func (c *control) flow(from origin, seconds int) flow {
	return flow{"pings of the loopback", from, fmt.Sprintf("fping -D -i 0.1 -p 1 -t 2000 -c %d 127.0.0.1 2>/dev/null", 1000*seconds), c.read}
}

var pingedAt = regexp.MustCompile(`(?m)^\[(\d+\.\d+)\]`)

func (c *control) read(output string) error {
	var last time.Duration
	for _, m := range pingedAt.FindAllStringSubmatch(output, -1) {
		at, err := time.ParseDuration(m[1] + "s")
		if err != nil {
			return err
		}
		if by := at - last - 2*time.Millisecond; last != 0 && by > 0 {
			c.late = append(c.late, lateness{at, by})
		}
		last = at
	}
	if last == 0 {
		return errors.New("no ping came back")
	}
	return nil
}

// stalled is by how much packets were late in all, in the worst seconds that there were.
func (c *control) stalled(within time.Duration) time.Duration {
	var worst, sum time.Duration
	first := 0
	for _, l := range c.late {
		for sum += l.by; c.late[first].at < l.at-within; first++ {
			sum -= c.late[first].by
		}
		worst = max(worst, sum)
	}
	return worst
}

// under makes changes, again and again while steady traffic goes on, and returns how many of them the traffic outlasted.
func (a *actors) under(ctx context.Context, seconds int, change func()) int {
	GinkgoHelper()
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	changes := 0
	expectUnnoticed(ctx, a.flows(seconds), func() {
		for change(); time.Now().Before(deadline); change() {
			changes++
		}
	})
	a.expectUnharmed(ctx)
	return changes
}

// expectUnnoticed makes a change while traffic flows, which is not to notice it.
func expectUnnoticed(ctx context.Context, list []flow, change func()) {
	GinkgoHelper()
	outputs, errs := make([]string, len(list)), make([]error, len(list))
	var running sync.WaitGroup
	for i, f := range list {
		running.Go(func() { outputs[i], errs[i] = f.from.shell(ctx, f.script) })
	}
	began := time.Now()
	change()
	changed := time.Since(began)
	running.Wait()
	AddReportEntry("a change under traffic", fmt.Sprintf("took %s of %s", changed, time.Since(began)), ReportEntryVisibilityFailureOrVerbose)
	for i, f := range list {
		// What iperf3 itself says of a failure is in what it printed.
		if err := errors.Join(f.verdict(outputs[i]), errs[i]); err != nil {
			errs[i] = fmt.Errorf("%s: %w", f.what, err)
		}
	}
	Expect(errors.Join(errs...)).NotTo(HaveOccurred())
}
