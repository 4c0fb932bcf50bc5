package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

func TestBurstFitsTheLimit(t *testing.T) {
	const mbit, kib = 1_000_000, 8 << 10
	for _, c := range []struct{ rate, asked, want uint64 }{
		{8 * mbit, math.MaxUint32, 800_000},        // what containerd asks for
		{8 * mbit, 0, 800_000},                     // nothing
		{8 * mbit, 100_000, 100_000},               // less than would fit
		{1 * mbit, math.MaxUint32, 64 * kib},       // never less than a packet
		{1_000 * mbit, math.MaxUint32, 100 * mbit}, // a tenth of a second
		{100_000 * mbit, math.MaxUint32, math.MaxUint32},
		{0, math.MaxUint32, math.MaxUint32}, // no limit
	} {
		if got := fit(c.rate, c.asked); got != c.want {
			t.Errorf("of %d bit/s and a burst of %d: got %d, want %d", c.rate, c.asked, got, c.want)
		}
	}
}

// asked is what the bandwidth plugin was asked by a command; nil where it was not executed.
func (n *node) asked(command string) *config {
	n.t.Helper()
	content, err := os.ReadFile(filepath.Join(n.dir, command))
	if err != nil {
		return nil
	}
	c := &config{}
	if err := json.Unmarshal(content, c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func TestLimitsAreSetForPodsThatHaveThem(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	ctx := t.Context()
	script := "#!/bin/sh\ncat >" + n.dir + "/$CNI_COMMAND\n" +
		// With one interface more than there was before.
		`[ "$CNI_COMMAND" != ADD ] || sed -E 's/.*"prevResult":(.*),"runtimeConfig".*/\1/; s/"interfaces":\[/&{"name": "limited"},/' ` + n.dir + "/ADD\n"
	if err := os.WriteFile(filepath.Join(n.dir, "bin", bandwidthPlugin), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := n.libcni.AddNetworkList(ctx, n.list, runtimeConf("free")); err != nil {
		t.Fatal(err)
	}
	if n.asked("ADD") != nil {
		t.Error("the plugin is executed for a pod without limits")
	}
	conf := runtimeConf("limited")
	conf.CapabilityArgs = map[string]any{"bandwidth": map[string]any{"ingressRate": 8_000_000, "ingressBurst": uint32(math.MaxUint32)}}
	added, err := n.libcni.AddNetworkList(ctx, n.list, conf)
	if err != nil {
		t.Fatal(err)
	}
	result, err := types100.GetResult(added)
	if err != nil || len(result.Interfaces) != 3 || result.Interfaces[0].Name != "limited" {
		t.Errorf("the result is %v (%v), not the plugin's", result, err)
	}
	want := bandwidth{IngressRate: 8_000_000, IngressBurst: 800_000}
	got := n.asked("ADD")
	if got == nil || got.RuntimeConfig.Bandwidth == nil || *got.RuntimeConfig.Bandwidth != want || got.Type != bandwidthPlugin || got.RawPrevResult == nil {
		t.Fatalf("it was asked %+v", got)
	}
	if err := n.libcni.CheckNetworkList(ctx, n.list, conf); err != nil {
		t.Fatal(err)
	}
	if got := n.asked("CHECK"); got == nil || *got.RuntimeConfig.Bandwidth != want {
		t.Errorf("it was asked %+v", got)
	}
	// A runtime need not say again what the limits were.
	conf.CapabilityArgs = nil
	if err := n.libcni.DelNetworkList(ctx, n.list, conf); err != nil || n.asked("DEL") == nil {
		t.Errorf("the limits are left (%v)", err)
	}
}

func TestPodIsDeletedThoughThePluginThatLimitsIsGone(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	if err := os.Remove(filepath.Join(n.dir, "bin", bandwidthPlugin)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.libcni.AddNetworkList(t.Context(), n.list, runtimeConf("a")); err != nil {
		t.Fatal(err)
	}
	if err := n.libcni.DelNetworkList(t.Context(), n.list, runtimeConf("a")); err != nil {
		t.Error(err)
	}
	conf := runtimeConf("b")
	conf.CapabilityArgs = map[string]any{"bandwidth": map[string]any{"egressRate": 1000}}
	if _, err := n.libcni.AddNetworkList(t.Context(), n.list, conf); err == nil || !strings.Contains(err.Error(), "limits bandwidth") {
		t.Errorf("a pod runs without the limits that it should have: %v", err)
	}
}
