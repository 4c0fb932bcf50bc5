package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/internal/model"
)

func TestAddAnswersWithTheAttachment(t *testing.T) {
	hostLink := Key{"a", "eth0"}.HostLink()
	pod := newPod("a")
	for _, tc := range []struct {
		attachment model.Attachment
		ips        string
	}{
		{model.PointToPoint, `[
			{"interface": 1, "address": "10.0.0.2/32", "gateway": "169.254.1.1"},
			{"interface": 1, "address": "fd00::2/128", "gateway": "fe80::1"}]`},
		{model.Bridge, `[
			{"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
			{"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"}]`},
	} {
		t.Run(string(tc.attachment), func(t *testing.T) {
			network := newFakeNetwork("10.0.0.0/24", "fd00::/64")
			network.offer.Attachment = tc.attachment
			a := startAgent(t, network, folder(t))
			r := request("a", `{"runtimeConfig": {"portMappings": [
				{"hostPort": 80, "containerPort": 8080, "protocol": "TCP"},
				{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "0.0.0.0"},
				{"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1"},
				{"hostPort": 0, "containerPort": 9090, "protocol": "tcp"}]}}`)
			result, e := a.call(t, protocol.Add, r)
			wantNoError(t, e)

			attached := network.links[hostLink]
			wantPorts := []model.HostPort{
				{Host: 80, Pod: 8080, Protocol: "tcp"},
				{HostIP: netip.MustParseAddr("192.0.2.1"), Host: 53, Pod: 5353, Protocol: "udp"},
			}
			if attached.Namespace != "ns" || attached.Name != "pod-a" || attached.Netns != "/run/netns/a" || attached.MTU != 1500 ||
				attached.Attachment != tc.attachment || !reflect.DeepEqual(attached.HostPorts, wantPorts) {
				t.Errorf("attached %+v", attached)
			}
			if attached.PodMAC == attached.HostMAC || attached.PodMAC == pod.HostMAC {
				t.Errorf("MACs %s and %s", attached.PodMAC, attached.HostMAC)
			}
			want := fmt.Sprintf(`{
				"cniVersion": "1.1.0",
				"interfaces": [
					{"name": %q, "mac": %q, "mtu": 1500},
					{"name": "eth0", "mac": %q, "mtu": 1500, "sandbox": "/var/run/netns/a"}],
				"ips": %s,
				"routes": [
					{"dst": "0.0.0.0/0", "gw": "GW4"},
					{"dst": "::/0", "gw": "GW6"}]}`, hostLink, attached.HostMAC, attached.PodMAC, tc.ips)
			gateways := strings.NewReplacer("GW4", result.IPs[0].Gateway.String(), "GW6", result.IPs[1].Gateway.String())
			wantJSON(t, result, gateways.Replace(want))
		})
	}
}

func wantJSON(t *testing.T, got any, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var g, w any
	if err := errors.Join(json.Unmarshal(text, &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestAddFailsWithASentence(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/30")
	a := startAgent(t, network, folder(t))
	ports := `{"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80}]}}`
	if _, e := a.call(t, protocol.Add, request("first", ports)); e != nil {
		t.Fatal(e)
	}
	_, e := a.call(t, protocol.Add, request("second", `{}`))
	wantError(t, e, types.ErrTryAgainLater, "attach pod ns/pod-second: all 1 addresses of block 10.0.0.0/30 are in use")
	_, e = a.call(t, protocol.Add, request("second", ports))
	wantError(t, e, types.ErrTryAgainLater, "host port 80/tcp of this node is in use by pod ns/pod-first")

	for config, code := range map[string]uint{
		`{"runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 80}]}}`:                     types.ErrInvalidNetworkConfig,
		`{"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}}`:    types.ErrInvalidNetworkConfig,
		`{"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}]}}`: types.ErrInvalidNetworkConfig,
		`[]`: types.ErrDecodingFailure,
	} {
		if _, e = a.call(t, protocol.Add, request("second", config)); e == nil || e.Code != code {
			t.Errorf("%s: got %+v, want code %d", config, e, code)
		}
	}
	nameless := request("second", `{}`)
	nameless.Netns = ""
	_, e = a.call(t, protocol.Add, nameless)
	wantError(t, e, types.ErrInvalidNetNS, "no network namespace")
	_, e = a.call(t, protocol.Add, request("", `{}`))
	wantError(t, e, types.ErrInvalidEnvironmentVariables, "names no container")

	network.offer.Blocks = nil
	_, e = a.call(t, protocol.Add, request("second", `{}`))
	wantError(t, e, types.ErrTryAgainLater, "this node has no block of addresses yet: see `kubectl describe podnetwork default`")
	network.offerErr = errors.New("the caches have not synced yet")
	_, e = a.call(t, protocol.Add, request("second", `{}`))
	wantError(t, e, types.ErrTryAgainLater, "the caches have not synced yet")
}

func TestFailedAddIsUndone(t *testing.T) {
	for _, late := range []bool{false, true} {
		network := newFakeNetwork("10.0.0.0/30")
		network.attachErr, network.late = errFault, late
		a := startAgent(t, network, folder(t))
		_, e := a.call(t, protocol.Add, request("a", `{}`))
		wantError(t, e, types.ErrInternal, "attach pod ns/pod-a: fault")
		if len(network.links) != 0 || len(a.config.Book.Pods()) != 0 || len(network.detached) != 1 {
			t.Errorf("left %v and %v", network.links, a.config.Book.Pods())
		}
		a.endQuarantine()
		_, e = a.call(t, protocol.Add, request("a", `{}`))
		wantNoError(t, e)
	}
}

func TestAddWhoseLinkCannotBeRemovedKeepsItsAddress(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/30")
	network.attachErr, network.detachErr = errFault, errFault
	a := startAgent(t, network, folder(t))
	_, e := a.call(t, protocol.Add, request("a", `{}`))
	wantError(t, e, types.ErrInternal, "detach pod ns/pod-a: fault")
	_, e = a.call(t, protocol.Add, request("b", `{}`))
	wantError(t, e, types.ErrTryAgainLater, "all 1 addresses")
	_, e = a.call(t, protocol.Del, request("a", `{}`))
	wantNoError(t, e)
	a.endQuarantine()
	_, e = a.call(t, protocol.Add, request("b", `{}`))
	wantNoError(t, e)
}

func TestRepeatedAddGivesTheSameResultAlsoAfterARestart(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/24"), folder(t)
	a := startAgent(t, network, dir)
	first, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	again, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	// As if the agent had been killed before it made the link.
	clear(network.links)
	a = startAgent(t, network, dir)
	restarted, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	if !reflect.DeepEqual(first, again) || !reflect.DeepEqual(first, restarted) {
		t.Errorf("%v, then %v, then %v", first, again, restarted)
	}
	if len(network.links) != 1 {
		t.Errorf("links %v", network.links)
	}
}

func TestAddWithOtherNetnsReplacesTheAttachment(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/24")
	a := startAgent(t, network, folder(t))
	_, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	other := request("a", `{}`)
	other.Netns = "/run/netns/other"
	_, e = a.call(t, protocol.Add, other)
	wantNoError(t, e)
	if len(network.detached) != 1 || len(a.config.Book.Pods()) != 1 || a.config.Book.Pods()[0].Netns != "/run/netns/other" {
		t.Errorf("detached %v, recorded %v", network.detached, a.config.Book.Pods())
	}
}

func TestDel(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/24")
	a := startAgent(t, network, folder(t))
	_, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	// The API server is not needed.
	network.offerErr = errors.New("not now")
	network.detachErr = errFault
	_, e = a.call(t, protocol.Del, request("a", `{}`))
	wantError(t, e, types.ErrInternal, "detach pod ns/pod-a: fault")
	if used := a.config.Book.Usage(network.offer.Blocks[0]); used != 1 {
		t.Errorf("%d addresses used while the link is there", used)
	}
	gone := request("a", `{}`)
	gone.Netns = ""
	for range 2 {
		_, e = a.call(t, protocol.Del, gone)
		wantNoError(t, e)
	}
	_, e = a.call(t, protocol.Del, request("unknown", `{}`))
	wantNoError(t, e)
	if used := a.config.Book.Usage(network.offer.Blocks[0]); used != 0 || len(network.links) != 0 {
		t.Errorf("%d addresses used, links %v", used, network.links)
	}
}

func TestDelOfDamagedRecordRemovesTheLink(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/30"), folder(t)
	a := startAgent(t, network, dir)
	_, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(dir, "attachments", Key{"a", "eth0"}.HostLink()+recordSuffix)
	if err := os.WriteFile(record, []byte(`{"addrs": ["10.0.0.2"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	a = startAgent(t, network, dir)
	_, e = a.call(t, protocol.Add, request("b", `{}`))
	wantError(t, e, types.ErrTryAgainLater, "all 1 addresses")
	_, e = a.call(t, protocol.Del, request("a", `{}`))
	wantNoError(t, e)
	if len(network.links) != 0 {
		t.Errorf("links %v", network.links)
	}
	a.endQuarantine()
	_, e = a.call(t, protocol.Add, request("b", `{}`))
	wantNoError(t, e)
}

func TestCheck(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/24", "fd00::/64")
	a := startAgent(t, network, folder(t))
	_, e := a.call(t, protocol.Check, request("a", `{}`))
	wantError(t, e, types.ErrUnknownContainer, "interface eth0 of container a is not attached")
	result, e := a.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
	config := func() string {
		text, err := json.Marshal(map[string]any{"prevResult": result})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, e = a.call(t, protocol.Check, request("a", config()))
	wantNoError(t, e)
	_, e = a.call(t, protocol.Check, request("a", `{}`))
	wantNoError(t, e)
	result.IPs = result.IPs[:1]
	_, e = a.call(t, protocol.Check, request("a", config()))
	wantError(t, e, types.ErrInternal, "the runtime has addresses [10.0.0.2] for the pod, which has [10.0.0.2 fd00::2]")
	clear(network.links)
	_, e = a.call(t, protocol.Check, request("a", `{}`))
	wantError(t, e, types.ErrInternal, "is gone")
}

func TestGCDetachesWhatTheRuntimeDoesNotKnow(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/24"), folder(t)
	a := startAgent(t, network, dir)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		_, e := a.call(t, protocol.Add, request(id, `{}`))
		wantNoError(t, e)
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"d", "e"} {
		if err := os.WriteFile(filepath.Join(dir, "attachments", Key{id, "eth0"}.HostLink()+recordSuffix), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a = startAgent(t, network, dir)
	_, e := a.call(t, protocol.GC, request("", `{}`))
	wantNoError(t, e)
	if len(network.links) != 5 {
		t.Fatalf("without a list it left %v", network.links)
	}
	const list = `{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}, {"containerID": "d", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]}`
	network.detachErr = errFault
	_, e = a.call(t, protocol.GC, request("", list))
	wantError(t, e, types.ErrInternal, "fault")
	_, e = a.call(t, protocol.GC, request("", list))
	wantNoError(t, e)
	if pods := a.config.Book.Pods(); len(pods) != 1 || pods[0].ContainerID != "a" || len(network.links) != 2 || len(a.config.Book.Damaged()) != 1 {
		t.Errorf("left %v, links %v, damaged %v", pods, network.links, a.config.Book.Damaged())
	}
}

func TestStatus(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/24"), folder(t)
	a := startAgent(t, network, dir)
	served := protocol.ServedPath(a.socket)

	network.offerErr = errors.New("the caches have not synced yet")
	_, e := a.call(t, protocol.Status, request("", `{}`))
	wantError(t, e, types.ErrPluginNotAvailable, "the caches have not synced yet")
	if _, err := os.Stat(served); !os.IsNotExist(err) {
		t.Errorf("says that it served: %v", err)
	}
	network.offerErr = nil
	blocks := network.offer.Blocks
	network.offer.Blocks = nil
	_, e = a.call(t, protocol.Status, request("", `{}`))
	wantError(t, e, types.ErrPluginNotAvailable, "this node has no block of addresses yet")
	network.offer.Blocks = blocks
	for range 2 {
		_, e = a.call(t, protocol.Status, request("", `{}`))
		wantNoError(t, e)
		info, err := os.Stat(served)
		if err != nil || time.Since(info.ModTime()) > time.Minute {
			t.Fatalf("served at %v: %v", info, err)
		}
		if err := os.Chtimes(served, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	// The pods that are attached run on, and must not lose their node.
	network.offerErr = errors.New("there is no PodNetwork any more")
	_, e = a.call(t, protocol.Status, request("", `{}`))
	wantNoError(t, e)
}
