package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/bench/apiserver"
)

// patience is how long it may take until all paths are proven.
const patience = 5 * time.Minute

// BenchmarkProbing lets an agent run beside peers with whom its node does not talk: all
// answer its probes until their paths are proven, and for a while after that, and
// then none does any more. Probes are counted by the link that they come by.
func BenchmarkProbing(b *testing.B) {
	for _, peers := range apiserver.Smallest(peerCounts) {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			a := newAgent(b, newCluster(peers))
			a.begin(b)
			silence := a.answerAll(b)
			started := a.use(b)
			a.start(b, a.applier.Run, a.applier.Reroute, a.applier.Watch, a.prober.Run)
			for deadline := time.Now().Add(patience); !a.proven(); time.Sleep(hush) {
				if time.Now().After(deadline) {
					b.Fatalf("not all paths are proven after %s: %+v", patience, a.report().Plan.Paths[0])
				}
			}
			settled := a.use(b)
			b.ReportMetric(0, "ns/op") // of all of these together
			b.ReportMetric(settled.at.Sub(started.at).Seconds(), "s-until-proven")
			settled.since(started).report(b, "until-proven")

			// How long probing is watched.
			span := time.Duration(apiserver.Few(15)) * time.Second
			// The last change is followed by passes and rounds of its own.
			time.Sleep(3 * time.Second)
			before := a.use(b)
			time.Sleep(span)
			a.use(b).since(before).report(b, "answered")
			silence()
			before = a.use(b)
			time.Sleep(span)
			a.use(b).since(before).report(b, "unanswered")
		})
	}
}

// proven reports whether all paths are the preferred one, and proven.
func (a *agent) proven() bool {
	paths := a.report().Plan.Paths
	return len(paths) > 0 && !slices.ContainsFunc(paths, func(c model.PathChoice) bool {
		return c.Path != model.PathRouted || c.Proof.Standing != model.Proven
	})
}

// use is what has been used at a time.
type use struct {
	at             time.Time
	processor      time.Duration
	passes         int
	packets, bytes uint64
}

func (a *agent) use(b *testing.B) use {
	b.Helper()
	u := use{at: time.Now(), processor: processorTime(), passes: a.cluster.passed()}
	a.Do(b, func() error {
		link, err := netlinksafe.LinkByName(model.ProbeLink)
		if err != nil {
			return err
		}
		u.packets, u.bytes = link.Attrs().Statistics.RxPackets, link.Attrs().Statistics.RxBytes
		return nil
	})
	return u
}

// since returns what was used in a second, on average.
func (u use) since(before use) rates {
	seconds := u.at.Sub(before.at).Seconds()
	return rates{
		processor: milliseconds(u.processor-before.processor) / seconds, passes: float64(u.passes-before.passes) / seconds,
		packets: float64(u.packets-before.packets) / seconds, bits: float64(u.bytes-before.bytes) * 8 / seconds,
	}
}

// rates are what is used in a second: of processor time, milliseconds.
type rates struct {
	processor, passes, packets, bits float64
}

func (r rates) report(b *testing.B, when string) {
	b.Helper()
	b.ReportMetric(r.processor, "CPU-ms/s:"+when)
	b.ReportMetric(r.passes, "passes/s:"+when)
	b.ReportMetric(r.packets, "packets/s:"+when)
	b.ReportMetric(r.bits/1e6, "Mbit/s:"+when)
}
