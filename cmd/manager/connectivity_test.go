package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serverPod is a ready pod on a node.
func serverPod(name, node string, ips ...string) corev1.Pod {
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for _, ip := range ips {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return pod
}

func TestReadyPods(t *testing.T) {
	waiting := serverPod("b", "")
	waiting.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available",
	}}
	starting := serverPod("b", "node2")
	starting.Status.Conditions[0].Status = corev1.ConditionFalse
	starting.Status.Conditions[0].Message = "containers with unready status: [server]"
	leaving := serverPod("old", "node1", "10.0.0.9")
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	first := serverPod("a", "node1", "10.0.0.5", "fd00::5")

	for name, test := range map[string]struct {
		pods  []corev1.Pod
		peers []string
		err   string
	}{
		"on two nodes, sorted by node": {
			pods:  []corev1.Pod{serverPod("b", "node2", "10.0.1.5"), first, leaving},
			peers: []string{"node1 10.0.0.5 fd00::5", "node2 10.0.1.5"},
		},
		"two on one node are told apart": {
			pods:  []corev1.Pod{first, serverPod("c", "node1", "10.0.0.6"), serverPod("b", "node2", "10.0.1.5")},
			peers: []string{"node1 10.0.0.5 fd00::5", "node1/c 10.0.0.6", "node2 10.0.1.5"},
		},
		"on one node":            {pods: []corev1.Pod{first}, err: "pods run on 1 of the 2 nodes"},
		"one without a node":     {pods: []corev1.Pod{first, waiting}, err: "pod b has no node, as each needs one of its own: 0/1 nodes are available"},
		"one that is starting":   {pods: []corev1.Pod{first, starting}, err: "pod b on node2 is not ready: containers with unready status"},
		"none":                   {err: "pods run on 0 of the 2 nodes"},
		"one that was just made": {pods: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "new"}}}, err: "pod new has not started"},
	} {
		t.Run(name, func(t *testing.T) {
			peers, err := readyPeers(test.pods, 2)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range peers {
				line := p.Name
				for _, a := range p.Addrs {
					line += " " + a.String()
				}
				got = append(got, line)
			}
			if !slices.Equal(got, test.peers) {
				t.Errorf("got %q, want %q", got, test.peers)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	peers, err := checkOptions{targets: []string{"node1=10.0.0.5,fd00::5", "node2=10.0.1.5"}}.peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(peers) != 2 || peers[0].Name != "node1" || peers[0].Addrs[1] != netip.MustParseAddr("fd00::5") {
		t.Errorf("peers: %+v", peers)
	}
	for _, bad := range []string{"10.0.0.5", "=10.0.0.5", "node1=", "node1=10.0.0.5,", "node1=host"} {
		if _, err := (checkOptions{targets: []string{bad}}).peers(t.Context()); err == nil {
			t.Errorf("--target %s was taken", bad)
		}
	}
}
