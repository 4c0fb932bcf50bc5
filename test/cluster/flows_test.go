package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
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

// flows are the steady traffic that a change is made under, for so many seconds: 100 packets each way in a second, and
// connections that stay open, in both families and on all kinds of way.
func (a *actors) flows(seconds int) []flow {
	var out []flow
	for i, f := range families {
		port := firstStreamPort + 2*i
		address := a.address("b1", f.is4)
		out = append(out,
			flow{"pings by " + f.name, a.in("a1"), fmt.Sprintf("ping -q -i 0.01 -c %d %s", 100*seconds, address), noPingLost},
			flow{"datagrams by " + f.name, a.in("a1"), iperf(address, port, seconds) + " -u -b 100k -l 125", noDatagramLost},
			flow{"a connection by " + f.name, a.in("a2"), iperf(address, port+1, seconds) + steadily, neverStalled},
		)
	}
	return append(out,
		flow{"a connection from a node to a service", a.in("host"),
			iperf(a.clusterIP("b1", true), serviceStreamPort, seconds) + steadily, neverStalled},
		flow{"a connection from outside through a node's port", outside{},
			iperf(local.nodes[0].v4, a.nodePort("b1", "stream-outside"), seconds) + steadily, neverStalled},
	)
}

// steadily makes iperf3 send small pieces, 250 of them in a second.
const steadily = " -b 2M -l 1K"

func iperf(address string, port, seconds int) string {
	return fmt.Sprintf("iperf3 --json --connect-timeout 5000 -c %s -p %d -t %d", address, port, seconds)
}

var pinged = regexp.MustCompile(`(\d+) packets transmitted, (\d+) packets received`)

func noPingLost(output string) error {
	m := pinged.FindStringSubmatch(output)
	if len(m) == 0 || m[1] != m[2] || m[1] == "0" {
		return fmt.Errorf("not every ping came back: %s", output)
	}
	return nil
}

// report is the part of iperf3's JSON that counts.
type report struct {
	Intervals []struct {
		Sum struct {
			Bytes float64 `json:"bytes"`
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
func neverStalled(output string) error {
	r, err := readReport(output)
	if err != nil {
		return err
	}
	for i := 1; i < len(r.Intervals); i++ {
		if r.Intervals[i-1].Sum.Bytes == 0 && r.Intervals[i].Sum.Bytes == 0 {
			return fmt.Errorf("nothing was sent in seconds %d and %d of %d", i, i+1, len(r.Intervals))
		}
	}
	return nil
}

// under makes changes, again and again while steady traffic goes on, and returns how often it could.
func (a *actors) under(ctx context.Context, seconds int, change func()) int {
	GinkgoHelper()
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	changes := 0
	expectUnnoticed(ctx, a.flows(seconds), func() {
		for ; time.Now().Before(deadline); changes++ {
			change()
		}
	})
	a.expectUnharmed(ctx)
	return changes
}

// expectUnnoticed makes a change while traffic flows, which is not to notice it.
func expectUnnoticed(ctx context.Context, list []flow, change func()) {
	GinkgoHelper()
	errs := make([]error, len(list))
	var running sync.WaitGroup
	for i, f := range list {
		running.Go(func() {
			output, err := f.from.shell(ctx, f.script)
			// What iperf3 itself says of a failure is in what it printed.
			if verdict := f.verdict(output); verdict != nil {
				err = errors.Join(verdict, err)
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", f.what, err)
			}
		})
	}
	change()
	running.Wait()
	Expect(errors.Join(errs...)).NotTo(HaveOccurred())
}
