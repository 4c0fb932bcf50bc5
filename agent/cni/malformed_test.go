package cni

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/agent/cni/protocol"
)

func TestMalformedRequestsAreRefusedInASentence(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/24", "fd00::/64")
	a := startAgent(t, network, folder(t))
	change := func(f func(r *protocol.Request)) protocol.Request {
		r := request("a", `{}`)
		f(&r)
		return r
	}
	names, netns := uint(types.ErrInvalidEnvironmentVariables), uint(types.ErrInvalidNetNS)
	for what, tc := range map[string]struct {
		request  protocol.Request
		code     uint
		sentence string
	}{
		"no container":             {change(func(r *protocol.Request) { r.ContainerID = "" }), names, "names no container"},
		"a container with slashes": {change(func(r *protocol.Request) { r.ContainerID = "../a" }), names, "container"},
		"a long container":         {change(func(r *protocol.Request) { r.ContainerID = strings.Repeat("c", 100000) }), names, "at most 200"},
		"no interface":             {change(func(r *protocol.Request) { r.IfName = "" }), names, "names no container or no interface"},
		"an interface with slashes": {
			change(func(r *protocol.Request) { r.IfName = "../../../kernel" }), names, "interface name",
		},
		"a long interface":     {change(func(r *protocol.Request) { r.IfName = "a-very-long-name" }), names, "interface name"},
		"no namespace":         {change(func(r *protocol.Request) { r.Netns = "" }), netns, "names no network namespace"},
		"a relative namespace": {change(func(r *protocol.Request) { r.Netns = "netns/a" }), netns, "names no network namespace"},
		"a configuration that is text": {
			change(func(r *protocol.Request) { r.Config = json.RawMessage(`"x"`) }), types.ErrDecodingFailure, "network configuration",
		},
		"a configuration that is a list": {
			change(func(r *protocol.Request) { r.Config = json.RawMessage(`[]`) }), types.ErrDecodingFailure, "network configuration",
		},
		"a port that is none": {
			request("a", `{"runtimeConfig":{"portMappings":[{"hostPort":99999,"containerPort":-1}]}}`),
			types.ErrInvalidNetworkConfig, "ports are between 1 and 65535",
		},
		"a protocol that is none": {
			request("a", `{"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"x"}]}}`),
			types.ErrInvalidNetworkConfig, "none of tcp, udp and sctp",
		},
		"an address that is none": {
			request("a", `{"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"x"}]}}`),
			types.ErrInvalidNetworkConfig, "hostIP",
		},
	} {
		_, e := a.call(t, protocol.Add, tc.request)
		if e == nil || e.Code != tc.code || !strings.Contains(e.Msg, tc.sentence) {
			t.Errorf("%s: got %+v, want code %d and %q", what, e, tc.code, tc.sentence)
		}
	}
	for what, body := range map[string]string{
		"nothing": "", "null": "null", "a list": "[]", "half": `{"config":`, "depth": `{"config":` + strings.Repeat("[", 200000),
		"a number for a name": `{"containerID":7}`, "null for all": `{"containerID":null,"ifName":null,"netns":null,"config":null}`,
	} {
		for _, verb := range []protocol.Verb{protocol.Add, protocol.Del, protocol.Check} {
			answer := a.post(t, verb.Path(), body)
			if answer.Code == 0 || answer.Msg == "" {
				t.Errorf("%s with %s: got %+v, want a sentence", verb, what, answer)
			}
		}
	}
	if pods := a.config.Book.Recorded(); len(pods) != 0 || len(network.links) != 0 {
		t.Errorf("recorded are %v, links are %v", pods, network.links)
	}
	// Lists that hold nothing are none.
	for _, config := range []string{`null`, `{"runtimeConfig":null,"cni.dev/valid-attachments":null}`, `{"runtimeConfig":{"portMappings":null}}`} {
		_, e := a.call(t, protocol.Add, request("a", config))
		wantNoError(t, e)
		_, e = a.call(t, protocol.GC, request("", config))
		wantNoError(t, e)
		_, e = a.call(t, protocol.Check, request("a", config))
		wantNoError(t, e)
	}
	_, e := a.call(t, protocol.Check, request("a", `{"prevResult":{"ips":[null]}}`))
	wantError(t, e, types.ErrInternal, "the runtime has addresses")
}

// post sends a body that is none of podnet-cni's, and returns the error of the answer.
func (a *agent) post(t *testing.T, path, body string) types.Error {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
		},
	}}
	response, err := client.Post("http://podnet"+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var e types.Error
	if err := json.NewDecoder(response.Body).Decode(&e); err != nil || response.StatusCode == http.StatusOK {
		t.Errorf("answered with %s: %v", response.Status, err)
	}
	return e
}

// A pod has one interface of podnet: another would take its default route, and give it
// back to nobody.
func TestSecondInterfaceOfAPodIsRefused(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/24", "fd00::/64"), folder(t)
	a := startAgent(t, network, dir)
	first := request("a", `{}`)
	second := request("a", `{}`)
	second.IfName = "net1"
	attached := func(when string) {
		t.Helper()
		if pod, ok := a.config.Book.Get(Key{"a", "eth0"}); !ok || len(network.links) != 1 || network.links[pod.HostLink].IfName != "eth0" {
			t.Errorf("%s the first interface is %+v, the links are %v", when, pod, network.links)
		}
	}
	_, e := a.call(t, protocol.Add, first)
	wantNoError(t, e)
	for _, restart := range []bool{false, true} {
		if restart {
			if err := a.stop(); err != nil {
				t.Fatal(err)
			}
			a = startAgent(t, network, dir)
		}
		_, e = a.call(t, protocol.Add, second)
		wantError(t, e, types.ErrInvalidNetworkConfig,
			"the pod has interface eth0 from podnet already, and podnet gives a pod one: take podnet out of what asks for interface net1")
		attached("after the second's ADD")
		// A runtime deletes what it could not add.
		_, e = a.call(t, protocol.Del, second)
		wantNoError(t, e)
		attached("after the second's DEL")
		_, e = a.call(t, protocol.Add, first)
		wantNoError(t, e)
	}
	_, e = a.call(t, protocol.Del, first)
	wantNoError(t, e)
	// Whatever its name is.
	_, e = a.call(t, protocol.Add, second)
	wantNoError(t, e)
}
