package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// faultSpecs are about what goes wrong, and what must go on meanwhile.
func faultSpecs(a *actors) {
	It("carries packets while agents crash and come back", func(ctx context.Context) {
		crash := 0
		changes := a.under(ctx, 12, func() {
			crashAgent(ctx, local.nodes[crash%len(local.nodes)].name)
			crash++
		})
		Expect(changes).To(BeNumerically(">=", 2), "crashes while the traffic went on")
		expectReady(ctx)
	}, SpecTimeout(4*time.Minute))

	It("carries packets while agents crash in the middle of changes of mode", Label("budget:2m"), func(ctx context.Context) {
		crashed := 0
		a.underEnough(ctx, func() {
			// One agent comes back into the change, the others crash somewhere on the way of it.
			mode := otherMode(ctx)
			first := crashed % len(local.nodes)
			killAgent(ctx, local.nodes[first].name)
			patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.RouteMode = mode })
			for i, node := range local.nodes {
				if i != first {
					killAgent(ctx, node.name)
				}
			}
			crashed++
			for _, node := range local.nodes {
				expectPaths(ctx, node.name, mode, len(local.nodes)-1)
			}
		})
		expectReady(ctx)
	}, SpecTimeout(10*time.Minute))

	It("carries packets while the API server hangs, agents crash and a change of mode is half done", func(ctx context.Context) {
		mode := otherMode(ctx)
		crashes := 0
		expectUnnoticed(ctx, a.flows(35), func() {
			var agents []*corev1.Pod
			for _, node := range local.nodes {
				agents = append(agents, agentOf(ctx, Default, node.name))
			}
			patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.RouteMode = mode })
			withoutAPIServer(func() {
				for until := time.Now().Add(15 * time.Second); time.Now().Before(until); time.Sleep(time.Second) {
					crashes += killThoseThatRun(agents)
				}
			})
			for _, node := range local.nodes {
				expectPaths(ctx, node.name, mode, len(local.nodes)-1)
			}
			expectReady(ctx)
		})
		Expect(crashes).To(BeNumerically(">=", 2*len(local.nodes)), "crashes while the API server did not answer")
		a.expectUnharmed(ctx)
		AddReportEntry("crashes", crashes)
	}, SpecTimeout(5*time.Minute))

	It("carries packets of pods that outlive their Node object", func(ctx context.Context) {
		node := local.nodes[1]
		blocks := blocksOf(ctx, Default, node.name)
		// Kubernetes takes pods off services as long as their Node is gone: these flows go from pod to pod.
		flows := slices.DeleteFunc(a.flows(30), func(f flow) bool { return strings.Contains(f.what, "service") || strings.Contains(f.what, "through") })
		Expect(flows).To(HaveLen(8))
		expectUnnoticed(ctx, flows, func() {
			former := &corev1.Node{}
			Expect(kube.Get(ctx, client.ObjectKey{Name: node.name}, former)).To(Succeed())
			Expect(kube.Delete(ctx, former)).To(Succeed())
			time.Sleep(5 * time.Second) // As long as somebody takes to restart the kubelet.
			_, err := local.run(ctx, local.script, "node-ip", node.name, node.v4+","+node.v6)
			Expect(err).NotTo(HaveOccurred())
			Eventually(func(g Gomega) {
				is := &corev1.Node{}
				g.Expect(kube.Get(ctx, client.ObjectKey{Name: node.name}, is)).To(Succeed())
				g.Expect(is.UID).NotTo(Equal(former.UID))
				list := &podnetv1alpha1.NodeSubnetList{}
				g.Expect(kube.List(ctx, list, client.MatchingFields{"spec.node": node.name})).To(Succeed())
				for _, s := range list.Items {
					g.Expect(s.Spec).To(And(HaveField("NodeUID", is.UID), HaveField("State", podnetv1alpha1.SubnetActive)), s.Name)
				}
			}).Should(Succeed())
		})
		Expect(blocksOf(ctx, Default, node.name)).To(ConsistOf(blocks))
		a.expectUnharmed(ctx)
		expectReady(ctx)
	}, SpecTimeout(4*time.Minute))

	It("carries packets while it is upgraded, and keeps its network as kubectl made it", func(ctx context.Context) {
		before, upgraded := network(ctx, Default), false
		a.under(ctx, 20, func() {
			if !upgraded {
				_, err := local.helm(ctx, "upgrade", releaseName, filepath.Join(local.root, "charts", "podnet"), "--namespace", releaseNamespace,
					"--reuse-values", "--set", "agent.logLevel=debug,manager.logLevel=debug", "--wait", "--timeout", "2m")
				Expect(err).NotTo(HaveOccurred())
				upgraded = true
			}
			expectReady(ctx)
		})
		after := network(ctx, Default)
		Expect(after.UID).To(Equal(before.UID))
		Expect(after.Spec).To(Equal(before.Spec))
	}, SpecTimeout(4*time.Minute))

	It("says at once why no pod starts without an agent, and starts it when the agent is back", func(ctx context.Context) {
		node := local.nodes[2].name
		label(ctx, node, withoutAgent, "true")
		DeferCleanup(func(ctx context.Context) { label(ctx, node, withoutAgent, "") })
		Eventually(func(g Gomega) { g.Expect(agentOf(ctx, g, node)).To(BeNil()) }).Should(Succeed())

		pod := newPod(a.namespace, "early", node)
		Expect(kube.Create(ctx, pod)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(eventsOf(ctx, g, "Pod", pod.Name)).To(ContainElement(ContainSubstring("podnet's agent does not answer on this node")))
		}).Should(Succeed())
		for _, f := range families {
			expectAnswers(ctx, a.in("a1"), a.askActor("c1", f.is4))
			expectAnswers(ctx, a.in("c1"), a.askActor("b1", f.is4))
		}

		label(ctx, node, withoutAgent, "")
		expectPodReady(ctx, pod)
		expectReady(ctx)
		a.expectUnharmed(ctx)
		Expect(kube.Delete(ctx, pod)).To(Succeed())
	}, SpecTimeout(4*time.Minute))

	It("refuses a NodeSubnet that overlaps another, and says so", func(ctx context.Context) {
		block := blockOf4(ctx, local.nodes[0].name)
		half := netip.PrefixFrom(block.Addr(), block.Bits()+1)
		thief := local.nodes[2]
		subnet := &podnetv1alpha1.NodeSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(half.String(), "/", "-")},
			Spec: podnetv1alpha1.NodeSubnetSpec{
				Network: podnetv1alpha1.DefaultPodNetwork, Node: thief.name, CIDR: half.String(), Endpoints: []string{thief.v4},
			},
		}
		DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(kube.Delete(ctx, subnet))).To(Succeed()) })
		created := false
		a.under(ctx, 8, func() {
			if !created {
				Expect(kube.Create(ctx, subnet)).To(Succeed())
				created = true
			}
			expectConflict(ctx, metav1.ConditionTrue, half.String())
		})
		Expect(kube.Delete(ctx, subnet)).To(Succeed())
		expectConflict(ctx, metav1.ConditionFalse, "")
	}, SpecTimeout(3*time.Minute))
}

func blockOf4(ctx context.Context, node string) netip.Prefix {
	GinkgoHelper()
	for _, block := range blocksOf(ctx, Default, node) {
		if block.Addr().Is4() {
			return block
		}
	}
	Fail(node + " has no block of IPv4 addresses")
	return netip.Prefix{}
}

func expectConflict(ctx context.Context, status metav1.ConditionStatus, named string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		c := meta.FindStatusCondition(network(ctx, g).Status.Conditions, podnetv1alpha1.ConditionSubnetsConflict)
		g.Expect(c).NotTo(BeNil())
		g.Expect(c.Status).To(Equal(status), c.Message)
		g.Expect(c.Message).To(ContainSubstring(named))
	}).Should(Succeed())
}

// agentOf is the pod of a node's agent, nil where there is none.
func agentOf(ctx context.Context, g Gomega, node string) *corev1.Pod {
	pods := &corev1.PodList{}
	g.Expect(kube.List(ctx, pods, client.InNamespace(releaseNamespace), client.MatchingLabels{
		"app.kubernetes.io/name": "podnet", "app.kubernetes.io/component": "agent",
	})).To(Succeed())
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName == node {
			return &pods.Items[i]
		}
	}
	return nil
}

// crashAgent ends the agent of a node by a signal that it cannot catch, and returns when it serves again.
func crashAgent(ctx context.Context, node string) {
	GinkgoHelper()
	restarts := killAgent(ctx, node).Status.ContainerStatuses[0].RestartCount
	Eventually(func(g Gomega) {
		pod := agentOf(ctx, g, node)
		g.Expect(pod).NotTo(BeNil())
		g.Expect(pod.Status.ContainerStatuses).To(HaveLen(1))
		g.Expect(pod.Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", restarts))
		g.Expect(pod.Status.ContainerStatuses[0].Ready).To(BeTrue())
	}).Should(Succeed())
}

// killAgent ends the agent of a node, as soon as there is one, and returns its pod as it was.
func killAgent(ctx context.Context, node string) *corev1.Pod {
	GinkgoHelper()
	var pod *corev1.Pod
	Eventually(func(g Gomega) {
		pod = agentOf(ctx, g, node)
		g.Expect(pod).NotTo(BeNil())
		process, err := processOf(pod)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(syscall.Kill(process, syscall.SIGKILL)).To(Succeed())
	}).Should(Succeed())
	return pod
}

// killThoseThatRun ends the agents in these pods that run at this moment, and returns how many did.
func killThoseThatRun(pods []*corev1.Pod) int {
	killed := 0
	for _, pod := range pods {
		if process, err := processOf(pod); err == nil && syscall.Kill(process, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// withoutAPIServer does something while the API server is halted: it takes requests, and answers none.
func withoutAPIServer(do func()) {
	GinkgoHelper()
	process, err := local.process("kube-apiserver")
	Expect(err).NotTo(HaveOccurred())
	goOn := func() { Expect(syscall.Kill(process, syscall.SIGCONT)).To(Succeed()) }
	// The cleanup is for a spec whose time is over; one that fails goes on here, before the cluster is looked at.
	DeferCleanup(goOn)
	Expect(syscall.Kill(process, syscall.SIGSTOP)).To(Succeed())
	defer goOn()
	do()
}

// processOf finds the agent's process among those of this machine, as its nodes share them: by the pod's cgroup, which
// holds its UID, and the program's name.
func processOf(pod *corev1.Pod) (int, error) {
	commands, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, path := range commands {
		// Processes come and go while we look.
		command, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(command)) != "agent" {
			continue
		}
		process := filepath.Dir(path)
		groups, err := os.ReadFile(filepath.Join(process, "cgroup"))
		if err == nil && strings.Contains(string(groups), string(pod.UID)) {
			return strconv.Atoi(filepath.Base(process))
		}
	}
	return 0, fmt.Errorf("no process of pod %s was found", pod.Name)
}
