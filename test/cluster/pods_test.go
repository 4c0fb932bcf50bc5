package cluster

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// podSpecs are about what a pod finds inside, and what the kubelet does with it.
func podSpecs(a *actors) {
	It("lets the containers of a pod talk over localhost", func(ctx context.Context) {
		other := inContainer{namespace: a.namespace, pod: "a1", container: streamContainer, port: webPort}
		expectAnswers(ctx, other, []ask{
			askWeb("TCP to 127.0.0.1", "127.0.0.1", webPort, "/hostname", "a1"),
			askWeb("TCP to ::1", "::1", webPort, "/hostname", "a1"),
			askWeb("TCP to localhost", "localhost", webPort, "/hostname", "a1"),
		})
	}, SpecTimeout(time.Minute))

	It("finds a service by its DNS name", func(ctx context.Context) {
		expectDNS(ctx)
		for _, from := range []string{"a1", "b1", "c1"} {
			expectAnswersSoon(ctx, a.in(from), []ask{
				askWeb("the name", "to-b1", servicePort, "/hostname", "b1"),
				askWeb("the full name", fmt.Sprintf("to-c1.%s.svc.cluster.local", a.namespace), servicePort, "/hostname", "c1"),
			})
		}
	}, SpecTimeout(2*time.Minute))

	It("finds a service by its environment variables", func(ctx context.Context) {
		output, err := a.in("a1").shell(ctx, `curl -gsS --max-time 5 "http://$TO_B1_SERVICE_HOST:$TO_B1_SERVICE_PORT/hostname"`)
		Expect(err).NotTo(HaveOccurred())
		Expect(output).To(Equal("b1"))
	}, SpecTimeout(time.Minute))

	It("carries the probes of the kubelet", func(ctx context.Context) {
		sound := newPod(a.namespace, "sound", local.nodes[1].name)
		web := &sound.Spec.Containers[0]
		web.StartupProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}})
		web.ReadinessProbe = probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(webPort)}})
		web.LivenessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(webPort)}})
		dead := newPod(a.namespace, "dead", local.nodes[1].name)
		dead.Spec.Containers[0].LivenessProbe = probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(9)}})
		for _, pod := range []*corev1.Pod{sound, dead} {
			Expect(kube.Create(ctx, pod)).To(Succeed())
		}
		Eventually(func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(dead), dead)).To(Succeed())
			g.Expect(dead.Status.ContainerStatuses).To(ContainElement(HaveField("RestartCount", BeNumerically(">", 0))))
		}).Should(Succeed())
		expectPodReady(ctx, sound)
		Expect(sound.Status.ContainerStatuses[0].RestartCount).To(BeZero())
		Expect(kube.Delete(ctx, sound)).To(Succeed())
		Expect(kube.Delete(ctx, dead)).To(Succeed())
	}, SpecTimeout(3*time.Minute))

	It("shows logs, runs commands and forwards ports", func(ctx context.Context) {
		for _, pod := range []string{"a1", "b1", "c1"} {
			output, err := local.kubectl(ctx, "logs", "--namespace", a.namespace, pod, "--container", webContainer)
			Expect(err).NotTo(HaveOccurred())
			Expect(output).To(ContainSubstring("Started HTTP server"))
			output, err = local.kubectl(ctx, "exec", "--namespace", a.namespace, pod, "--container", webContainer, "--", "hostname")
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.TrimSpace(output)).To(Equal(pod))
			Expect(forwarded(ctx, a.namespace, pod)).To(Equal(pod))
		}
	}, SpecTimeout(2*time.Minute))
}

func probe(handler corev1.ProbeHandler) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 3}
}

// forwarded asks a pod for its name through a port that kubectl forwards.
func forwarded(ctx context.Context, namespace, pod string) string {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(ctx)
	forward := local.command(ctx, "kubectl", "port-forward", "--namespace", namespace, "--address", "127.0.0.1", "pod/"+pod, fmt.Sprintf(":%d", webPort))
	stdout, err := forward.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(forward.Start()).To(Succeed())
	defer func() {
		cancel()
		_ = forward.Wait() // It was killed, which is no news.
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	Expect(err).NotTo(HaveOccurred())
	// "Forwarding from 127.0.0.1:41234 -> 8080"
	words := strings.Fields(line)
	Expect(len(words)).To(BeNumerically(">", 2), line)
	output, err := local.run(ctx, "curl", "-gsS", "--max-time", "5", "http://"+words[2]+"/hostname")
	Expect(err).NotTo(HaveOccurred())
	return output
}
