package cluster

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// agnhostImage is on every node of the local cluster. It holds agnhost, which serves and asks, and a shell with tools.
const agnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.66.1"

// Ports of the actors' containers, and of services before them.
const (
	webPort, webUDPPort           = 8080, 8081
	hostWebPort, hostWebUDPPort   = 18080, 18081
	mappedPort, mappedUDPPort     = 18880, 18881
	servicePort, serviceUDPPort   = 80, 81
	firstStreamPort, streamPorts  = 5201, 8
	serviceStreamPort             = firstStreamPort
	webContainer, streamContainer = "web", "stream"
)

// actors are the pods that talk to each other, and a service before each. a1 and a2 are on the first node, b1 on the
// second, c1 on the third; host is on the first node's own network. c1 has ports on its node.
type actors struct {
	namespace string
	pods      map[string]*corev1.Pod
	services  map[string]*corev1.Service
}

// startActors makes a namespace with all actors, and returns when they are ready.
func startActors(ctx context.Context, namespace string) *actors {
	GinkgoHelper()
	a := &actors{namespace: namespace, pods: map[string]*corev1.Pod{}, services: map[string]*corev1.Service{}}
	makeNamespace(ctx, namespace)
	for _, name := range []string{"a1", "a2", "b1", "c1", "b1-local"} {
		a.services[name] = a.service(name)
		Expect(kube.Create(ctx, a.services[name])).To(Succeed())
	}
	first, second, third := local.nodes[0].name, local.nodes[1].name, local.nodes[2].name
	for name, node := range map[string]string{"a1": first, "a2": first, "b1": second, "c1": third, "host": first} {
		a.pods[name] = a.pod(name, node)
		Expect(kube.Create(ctx, a.pods[name])).To(Succeed())
	}
	a.expectRunning(ctx)
	a.expectServed(ctx)
	return a
}

func makeNamespace(ctx context.Context, name string) {
	GinkgoHelper()
	err := kube.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	Expect(client.IgnoreAlreadyExists(err)).To(Succeed())
	// A pod made sooner would be refused.
	Eventually(kube.Get).WithArguments(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{}).Should(Succeed())
}

// pod is the pod of an actor: in one container agnhost that serves, in the other servers for long streams.
func (a *actors) pod(name, node string) *corev1.Pod {
	p := newPod(a.namespace, name, node)
	web := &p.Spec.Containers[0]
	web.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(webPort)}},
		PeriodSeconds: 1,
	}
	if name == "host" {
		p.Spec.HostNetwork = true
		web.Args = netexec(hostWebPort, hostWebUDPPort)
		web.ReadinessProbe.HTTPGet.Port = intstr.FromInt32(hostWebPort)
		return p
	}
	if name == "c1" {
		web.Ports = []corev1.ContainerPort{
			{ContainerPort: webPort, HostPort: mappedPort, Protocol: corev1.ProtocolTCP},
			{ContainerPort: webUDPPort, HostPort: mappedUDPPort, Protocol: corev1.ProtocolUDP},
		}
	}
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
		Name: streamContainer, Image: agnhostImage, ImagePullPolicy: corev1.PullIfNotPresent,
		// A server of iperf3 serves one stream at a time.
		Command: []string{"bash", "-c", fmt.Sprintf("for port in $(seq %d %d); do iperf3 -s -p $port >/dev/null & done; wait",
			firstStreamPort, firstStreamPort+streamPorts-1)},
	})
	return p
}

func netexec(tcp, udp int) []string {
	return []string{"netexec", fmt.Sprintf("--http-port=%d", tcp), fmt.Sprintf("--udp-port=%d", udp)}
}

// newPod is a pod with one container that serves, bound to a node.
func newPod(namespace, name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"actor": name}},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			TerminationGracePeriodSeconds: ptr.To(int64(0)),
			// The node that a spec makes unfit keeps its pods.
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: webContainer, Image: agnhostImage, ImagePullPolicy: corev1.PullIfNotPresent,
				Args: netexec(webPort, webUDPPort),
			}},
		},
	}
}

// service is what stands before an actor; of "…-local", for clients outside, on the actor's own node only.
func (a *actors) service(name string) *corev1.Service {
	actor, isLocal := strings.CutSuffix(name, "-local")
	s := &corev1.Service{
		// A pod finds its own name in its /etc/hosts, so the service has another one.
		ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "to-" + name},
		Spec: corev1.ServiceSpec{
			Type:           corev1.ServiceTypeNodePort,
			IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyRequireDualStack),
			Selector:       map[string]string{"actor": actor},
			Ports: []corev1.ServicePort{
				{Name: "web", Port: servicePort, TargetPort: intstr.FromInt32(webPort)},
				{Name: "udp", Port: serviceUDPPort, TargetPort: intstr.FromInt32(webUDPPort), Protocol: corev1.ProtocolUDP},
				{Name: "stream", Port: serviceStreamPort, TargetPort: intstr.FromInt32(firstStreamPort + 4)},
				{Name: "stream-outside", Port: serviceStreamPort + 1, TargetPort: intstr.FromInt32(firstStreamPort + 5)},
				{Name: "stream-pod", Port: serviceStreamPort + 2, TargetPort: intstr.FromInt32(firstStreamPort + 6)},
				{Name: "stream-third", Port: serviceStreamPort + 3, TargetPort: intstr.FromInt32(firstStreamPort + 7)},
			},
		},
	}
	if isLocal {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	return s
}

// expectRunning waits until every actor is ready, and remembers their addresses.
func (a *actors) expectRunning(ctx context.Context) {
	GinkgoHelper()
	for _, pod := range a.pods {
		expectPodReady(ctx, pod)
	}
}

// expectServed waits until kube-proxy has put all services into force on all nodes, which takes it up to a second.
func (a *actors) expectServed(ctx context.Context) {
	GinkgoHelper()
	var asks []ask
	for name := range a.services {
		if strings.HasSuffix(name, "-local") {
			continue
		}
		for _, node := range local.nodes {
			port := a.nodePort(name, "web")
			asks = append(asks, askWeb("service "+name+" on "+node.name, node.v4, port, "/hostname", name))
		}
	}
	expectAnswersSoon(ctx, outside{}, asks)
}

func expectPodReady(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))),
			"%s is not ready", pod.Name)
	}).Should(Succeed())
}

// expectUnharmed checks that no container of an actor was started again.
func (a *actors) expectUnharmed(ctx context.Context) {
	GinkgoHelper()
	for name := range a.pods {
		pod := &corev1.Pod{}
		Expect(kube.Get(ctx, client.ObjectKey{Namespace: a.namespace, Name: name}, pod)).To(Succeed())
		Expect(pod.UID).To(Equal(a.pods[name].UID))
		for _, container := range pod.Status.ContainerStatuses {
			Expect(container.RestartCount).To(BeZero(), "%s of %s was started again", container.Name, name)
		}
	}
}

// removeNamespace does not wait until it is gone: its pods go when the runtime has a plugin that lets them go.
func removeNamespace(ctx context.Context, name string) {
	GinkgoHelper()
	err := kube.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	Expect(client.IgnoreNotFound(err)).To(Succeed())
}

func expectNamespaceGone(ctx context.Context, name string) {
	GinkgoHelper()
	Eventually(func() bool {
		return apierrors.IsNotFound(kube.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{}))
	}).WithTimeout(2*time.Minute).Should(BeTrue(), "namespace %s is still there", name)
}

// in is the serving container of an actor.
func (a *actors) in(name string) origin { return a.container(name) }

func (a *actors) container(name string) inContainer {
	port := webPort
	if name == "host" {
		port = hostWebPort
	}
	return inContainer{namespace: a.namespace, pod: name, container: webContainer, port: port}
}

// byRuntime is the serving container of an actor, entered without the API server.
func (a *actors) byRuntime(name string) origin {
	GinkgoHelper()
	for _, c := range a.pods[name].Status.ContainerStatuses {
		if c.Name == webContainer {
			return byRuntime{a.container(name), a.pods[name].Spec.NodeName, strings.TrimPrefix(c.ContainerID, "containerd://")}
		}
	}
	Fail(name + " does not run")
	return nil
}

// address is an actor's address of a family.
func (a *actors) address(name string, is4 bool) string {
	GinkgoHelper()
	for _, ip := range a.pods[name].Status.PodIPs {
		if strings.Contains(ip.IP, ":") != is4 {
			return ip.IP
		}
	}
	Fail(fmt.Sprintf("%s has no address of the family that was asked for: %v", name, a.pods[name].Status.PodIPs))
	return ""
}

// clusterIP is the address of the service before an actor.
func (a *actors) clusterIP(name string, is4 bool) string {
	GinkgoHelper()
	for _, ip := range a.services[name].Spec.ClusterIPs {
		if strings.Contains(ip, ":") != is4 {
			return ip
		}
	}
	Fail(fmt.Sprintf("service %s has no address of the family that was asked for: %v", name, a.services[name].Spec.ClusterIPs))
	return ""
}

// nodePort is the port of the service on every node.
func (a *actors) nodePort(name, port string) int {
	GinkgoHelper()
	for _, p := range a.services[name].Spec.Ports {
		if p.Name == port {
			return int(p.NodePort)
		}
	}
	Fail(fmt.Sprintf("service %s has no port %s", name, port))
	return 0
}

// families have names for messages.
var families = []struct {
	name string
	is4  bool
}{{"IPv4", true}, {"IPv6", false}}

func hostPort(address string, port int) string { return net.JoinHostPort(address, fmt.Sprint(port)) }
