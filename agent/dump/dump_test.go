package dump

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// served returns the socket of a server of documents.
func served(t *testing.T, documents ...Document) string {
	t.Helper()
	// t.TempDir is too long for a socket's path.
	dir, err := os.MkdirTemp("", "podnet-dump-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "dump", "agent.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Config{Socket: socket, Node: "a", Documents: documents}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	gomega.NewWithT(t).Eventually(func() error { _, err := os.Stat(socket); return err }).Should(gomega.Succeed())
	return socket
}

func reads(value any, version uint64, err error) func(context.Context) (any, uint64, error) {
	return func(context.Context) (any, uint64, error) { return value, version, err }
}

func TestDocumentsAreReadBySocket(t *testing.T) {
	g := gomega.NewWithT(t)
	socket := served(t,
		Document{Name: "plan", About: "what shall be", Read: reads(model.Plan{MTU: 1450}, 7, nil)},
		Document{Name: "have", About: "what is", Read: reads(nil, 0, errors.New("nothing is known yet"))})
	for path, want := range map[string]os.FileMode{socket: os.ModeSocket | 0o600, filepath.Dir(socket): os.ModeDir | 0o700} {
		info, err := os.Stat(path)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(info.Mode()).To(gomega.Equal(want), path)
	}
	fetch := func(name string) (string, error) {
		var out bytes.Buffer
		err := Fetch(t.Context(), socket, name, &out)
		return out.String(), err
	}
	text, err := fetch("plan")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	var got map[string]any
	g.Expect(json.Unmarshal([]byte(text), &got)).To(gomega.Succeed())
	g.Expect(time.Parse(time.RFC3339, got["time"].(string))).NotTo(gomega.BeZero())
	delete(got, "time")
	g.Expect(got).To(gomega.Equal(map[string]any{"version": "v1", "node": "a", "state": 7.0, "plan": map[string]any{"mtu": 1450.0}}))

	list, err := fetch("")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(list).To(gomega.HavePrefix("plan        what shall be\nhave        what is\ngoroutines  "))
	stacks, err := fetch("goroutines")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(stacks).To(gomega.ContainSubstring("TestDocumentsAreReadBySocket"))
	heap, err := fetch("heap")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(heap).NotTo(gomega.BeEmpty())
	_, err = fetch("have")
	g.Expect(err).To(gomega.MatchError("read have: nothing is known yet"))
	_, err = fetch("nothing")
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring(`no "nothing"`)))
	g.Expect(Fetch(t.Context(), socket+"x", "plan", &bytes.Buffer{})).To(gomega.MatchError(gomega.ContainSubstring("must run on this node")))
}

// Programs read the documents: what a field is called does not change by itself.
func TestFieldsHaveLastingNames(t *testing.T) {
	cluster := model.Cluster{
		Network: &model.Network{
			Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Attachment: model.PointToPoint, Mode: model.ModeAuto, VNI: 7466, Port: 4789,
		},
		Blocks: []model.Block{{
			Name: "10.244.1.0-24", CIDR: netip.MustParsePrefix("10.244.1.0/24"), Node: "a", Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			State: model.BlockActive, Labels: map[string]string{"Zone": "z"}, Created: time.Unix(1, 0).UTC(),
		}},
		Former: []model.FormerEndpoint{{Node: "b", Addr: netip.MustParseAddr("192.0.2.9"), Fresh: 3 * time.Second}},
		Host:   model.Host{Node: "a", IPv6: true, AcceptRA: []string{"eth0"}},
		Pods:   []model.Pod{{ContainerID: "c", HostMAC: model.MAC{2, 0, 0, 0, 0, 1}}},
	}
	got, err := encodeText(cluster)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`{"network":{"ranges":["10.244.0.0/16"],"attachment":"PointToPoint","mode":"Auto","vni":7466,"port":4789}`,
		`"blocks":[{"name":"10.244.1.0-24","cidr":"10.244.1.0/24","node":"a","endpoints":["192.0.2.1"],"state":"Active",` +
			`"labels":{"Zone":"z"},"created":"1970-01-01T00:00:01Z"}]`,
		`"former":[{"node":"b","addr":"192.0.2.9","fresh":"3s"}]`,
		`"host":{"node":"a","ipv6":true,"acceptRA":["eth0"]}`,
		`"pods":[{"containerID":"c","hostMAC":"02:00:00:00:00:01"}]}`,
	}, ",")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for field, want := range map[string]string{
		"CIDR": "cidr", "NodeIPs": "nodeIPs", "VXLANPort": "vxlanPort", "IPv4": "ipv4", "UIDs": "uids", "X": "x", "MTU": "mtu", "Via": "via",
	} {
		if got := nameOf(field); got != want {
			t.Errorf("%s is called %s, want %s", field, got, want)
		}
	}
}

func encodeText(value any) (string, error) {
	text, err := json.Marshal(encode(reflect.ValueOf(value)))
	return string(text), err
}

// All kinds of objects that a plan has can be written, with kinds in words.
func TestPlanIsReadable(t *testing.T) {
	g := gomega.NewWithT(t)
	block := func(cidr, node, endpoint string) model.Block {
		return model.Block{
			Name: cidr, CIDR: netip.MustParsePrefix(cidr), Node: node, State: model.BlockActive, Endpoints: []netip.Addr{netip.MustParseAddr(endpoint)},
		}
	}
	text, err := encodeText(plan.Build(model.Cluster{
		Network: &model.Network{
			Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Attachment: model.PointToPoint, Mode: model.ModeOverlay, VNI: 7466, Port: 4789,
		},
		Blocks: []model.Block{block("10.244.1.0/24", "a", "192.0.2.1"), block("10.244.2.0/24", "b", "192.0.2.2")},
		Host: model.Host{
			Node: "a", VXLAN: true, Endpoints: []model.Endpoint{{Addr: netip.MustParseAddr("192.0.2.1"), Link: "eth0", MTU: 1500}},
			Routes: []model.UnderlayRoute{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0"}},
		},
	}))
	g.Expect(err).NotTo(gomega.HaveOccurred())
	for _, want := range []string{
		`"name":"vxpodnet4","kind":"vxlan"`, `"dst":"10.244.2.0/24"`, `"block":"10.244.2.0/24"`, `"path":"overlay"`, `"key":"ipv4_addr"`,
	} {
		g.Expect(text).To(gomega.ContainSubstring(want))
	}
}
