package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	compiler "github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// packetLog is a kernel that gives denied packets.
type packetLog struct {
	// refuses says that it gives none.
	refuses atomic.Bool
	packets chan model.DeniedPacket
}

func (e *packetLog) WatchDenied(ctx context.Context, ready func(), seen func(model.DeniedPacket)) error {
	if e.refuses.Load() {
		return errors.New("no such module")
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-e.packets:
			seen(p)
		}
	}
}

// newReportingNode is a node with an isolated pod red/p and with others, on which everything runs.
func newReportingNode(ctx context.Context) (n *node, e *packetLog, events *[]compiler.Denial) {
	events = &[]compiler.Denial{}
	n = newNode(policytest.World{
		Objects: model.PolicyObjects{
			NetworkPolicies: []model.NetworkPolicy{{Namespace: "red", Name: "deny"}},
			Pods:            []model.ClusterPod{{Namespace: "red", Name: "p", UID: "1"}, {Namespace: "red", Name: "q", UID: "2"}},
		},
		Attached: []model.Pod{
			{ContainerID: "c", Namespace: "red", Name: "p", UID: "1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}},
			{ContainerID: "d", Namespace: "red", Name: "q", UID: "2", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.3")}},
		},
	})
	e = &packetLog{packets: make(chan model.DeniedPacket)}
	cfg := n.enforcer.cfg
	cfg.Log, cfg.Denied = e, func(d compiler.Denial) { *events = append(*events, d) }
	n.enforcer = New(cfg)
	go n.enforcer.Run(ctx)          //nolint:errcheck // it ends with the test
	go n.enforcer.ReportDenied(ctx) //nolint:errcheck // it ends with the test
	n.ask(model.DeniedIgnored)
	return n, e, events
}

// ask asks for denied packets to be reported, and waits for what follows.
func (n *node) ask(how model.DeniedPackets) {
	n.mu.Lock()
	n.found.Denied = how
	n.mu.Unlock()
	n.enforcer.Trigger()
	time.Sleep(time.Second)
	synctest.Wait()
}

// samples reports whether the kernel was made to give packets.
func (n *node) samples() bool {
	tables := n.Tables()
	i := slices.IndexFunc(tables[0].Chains, func(c nft.Chain) bool { return c.Name == "denied" })
	return len(tables[0].Chains[i].Rules) > 1
}

func packet(to string, number uint16) model.DeniedPacket {
	return model.DeniedPacket{
		Way: model.WayOriginal, From: netip.MustParseAddr("192.0.2.1"), To: netip.MustParseAddr(to), Protocol: "tcp", FromPort: 40000, ToPort: number,
	}
}

func TestTheKernelGivesPacketsWhileSomebodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, e, _ := newReportingNode(t.Context())
		if n.samples() {
			t.Error("packets are given, and nobody has asked for them")
		}
		n.ask(model.DeniedLogged)
		if !n.samples() {
			t.Error("no packets are given")
		}
		n.ask(model.DeniedIgnored)
		if n.samples() {
			t.Error("packets are given that nobody asks for any more")
		}
		e.refuses.Store(true)
		n.ask(model.DeniedEvents)
		if n.samples() {
			t.Error("the kernel is asked for what it cannot do")
		}
		if got := n.enforcer.Problems(); len(got) != 1 || !strings.Contains(got[0].Message, "no such module") {
			t.Errorf("problems are %+v", got)
		}
		e.refuses.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := n.enforcer.Problems(); !n.samples() || len(got) > 0 {
			t.Errorf("the kernel can, and gives packets: %t; problems are %+v", n.samples(), got)
		}
	})
}

func TestWhatIsNotAskedForIsNoProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, e, _ := newReportingNode(t.Context())
		e.refuses.Store(true)
		n.ask(model.DeniedEvents)
		n.ask(model.DeniedIgnored)
		if got := n.enforcer.Problems(); len(got) > 0 {
			t.Errorf("problems are %+v", got)
		}
	})
}

func TestPodsGetFewEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, e, events := newReportingNode(t.Context())
		n.ask(model.DeniedEvents)
		give := func(to string, numbers ...uint16) {
			for _, number := range numbers {
				e.packets <- packet(to, number)
			}
			synctest.Wait()
		}
		expect := func(what string, want int) {
			t.Helper()
			if len(*events) != want {
				t.Errorf("%s: %d Events, want %d: %v", what, len(*events), want, *events)
			}
			*events = nil
		}
		give("10.244.1.2", 80, 80, 80)
		answer := packet("10.244.1.2", 80)
		answer.Way, answer.From, answer.To, answer.FromPort, answer.ToPort = model.WayReply, answer.To, answer.From, answer.ToPort, 40001
		e.packets <- answer
		synctest.Wait()
		expect("packets that are alike", 1)
		give("10.244.1.2", 81, 82, 83, 84)
		expect("many different packets", podEvents-1)
		give("10.244.1.3", 80)
		expect("of another pod", 1)
		give("10.244.1.77", 80)
		expect("of no pod of the node", 0)
		time.Sleep(reportInterval)
		give("10.244.1.2", 80)
		expect("in the next minute", 1)
	})
}

func TestDeniedPacketsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		logger := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
		n, e, events := newReportingNode(log.IntoContext(t.Context(), logger))
		n.ask(model.DeniedLogged)
		lines = nil
		for range 3 {
			e.packets <- packet("10.244.1.2", 80)
		}
		synctest.Wait()
		want := `"level"=0 "msg"="network policy denied a packet" "pod"="red/p" "direction"="Ingress" ` +
			`"packet"="TCP from 192.0.2.1 to port 80 of pod red/p (10.244.1.2)" "reason"="No rule of the NetworkPolicies that select the pod (deny) allows it"`
		if fmt.Sprint(lines) != fmt.Sprint([]string{want}) || len(*events) > 0 {
			t.Errorf("got %q and %d Events, want %q", lines, len(*events), want)
		}
	})
}
