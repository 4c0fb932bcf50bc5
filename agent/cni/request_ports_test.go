package cni

import (
	"strings"
	"testing"
)

func TestHostPortsOfAPodAreBounded(t *testing.T) {
	mappings := func(many int) []portMapping {
		out := []portMapping{{ContainerPort: 1}, {HostPort: 1, ContainerPort: 1}}
		for i := range many {
			out = append(out, portMapping{HostPort: i + 1, ContainerPort: i + 1})
		}
		return append(out, out...)
	}
	if ports, err := hostPorts(mappings(maxHostPorts)); err != nil || len(ports) != maxHostPorts {
		t.Errorf("%d ports (%v), want %d and no error", len(ports), err, maxHostPorts)
	}
	_, err := hostPorts(mappings(maxHostPorts + 1))
	if err == nil || !strings.Contains(err.Error(), "4096") || !strings.Contains(err.Error(), "hostNetwork") {
		t.Errorf("one port more: %v, want a sentence that says how many and what to do", err)
	}
}
