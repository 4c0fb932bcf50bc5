package main

import (
	"fmt"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// addressReclaimed is the note on a pod whose addresses were taken back. A sweep may
// find many, and each is reported.
func addressReclaimed(pod model.Pod, why string) note {
	n := note{reason: "AddressReclaimed", action: "ReclaimAddress", text: reclaimedNote(pod, why)}
	if pod.Name != "" {
		n.related = podReference(pod.Namespace, pod.Name, pod.UID)
	}
	return n
}

// reclaimedNote says whose addresses were taken back, and why.
func reclaimedNote(pod model.Pod, why string) string {
	addrs := make([]string, 0, len(pod.Addrs))
	for _, a := range pod.Addrs {
		addrs = append(addrs, a.String())
	}
	of := fmt.Sprintf("pod %s/%s, container %s", pod.Namespace, pod.Name, pod.ContainerID)
	switch {
	case pod.ContainerID == "":
		of = "the damaged record of link " + pod.HostLink
	case pod.Name == "":
		of = "container " + pod.ContainerID
	}
	held := "addresses " + strings.Join(addrs, ", ")
	switch len(addrs) {
	case 0:
		held = "no address"
	case 1:
		held = "address " + addrs[0]
	}
	return fmt.Sprintf("Reclaimed %s of %s: %s.", held, of, why)
}
