package envtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/podnet/podnet/agent/admission"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

const (
	nodeClaim = "authentication.kubernetes.io/node-name"
	// agentRole is the ClusterRole of the chart, and agentUser holds it and no other.
	agentRole = "podnet-agent"
	agentUser = "system:serviceaccount:podnet-system:podnet-agent"
)

// clientAs returns a client of a user whose token names a node, unless it is empty.
func clientAs(user, node string, groups ...string) client.Client {
	GinkgoHelper()
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	if node != "" {
		as.Impersonate.Extra = map[string][]string{nodeClaim: {node}}
	}
	c, err := client.New(as, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	return c
}

// reportAs writes the status of a NodeNetwork as an agent does.
func reportAs(ctx context.Context, c client.Client, node string) error {
	return c.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(node).WithStatus(podnetv1alpha1ac.NodeNetworkStatus().WithPods(1)),
		client.FieldOwner("podnet-agent"), client.ForceOwnership)
}

// grant binds a ClusterRole to a user until the spec ends. Rules make the role first.
func grant(ctx context.Context, user, role string, rules ...rbacv1.PolicyRule) {
	GinkgoHelper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "granted-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	made := []client.Object{binding}
	if len(rules) > 0 {
		made = append(made, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: rules})
	}
	for _, object := range made {
		Expect(api.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(api.Delete(ctx, object)).To(Succeed()) })
	}
}

var _ = Describe("An agent", func() {
	BeforeEach(func(ctx context.Context) {
		cleanAfterwards(ctx)
		for _, name := range []string{"one", "two"} {
			Expect(api.Create(ctx, &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
		}
	})

	It("reports on its own node and on no other", func(ctx context.Context) {
		const words = "the agent of node one may write the status of its own node only, not that of two"
		agent := clientAs(agentUser, "one")
		// The API server takes a moment to put a policy in force.
		Eventually(reportAs).WithArguments(ctx, agent, "two").Should(beRefusedWith(words))
		Expect(reportAs(ctx, agent, "one")).To(Succeed())
		Expect(reportAs(ctx, clientAs(agentUser, ""), "one")).To(beRefusedWith("an agent's token must name the node that its pod runs on"))
	})

	It("is held to that by its rights, whatever it is called", func(ctx context.Context) {
		const renamed = "system:serviceaccount:net:acme-agent-of-podnet"
		grant(ctx, renamed, agentRole)
		Eventually(reportAs).WithArguments(ctx, clientAs(renamed, "one"), "one").Should(Succeed())
		Expect(reportAs(ctx, clientAs(renamed, "one"), "two")).To(beRefusedWith("of its own node only"))
	})

	It("is what nobody else is by rights to the status alone", func(ctx context.Context) {
		const other = "system:serviceaccount:default:other"
		grant(ctx, other, "writes-statuses", rbacv1.PolicyRule{
			APIGroups: []string{podnetv1alpha1.GroupVersion.Group}, Resources: []string{"nodenetworks/status"}, Verbs: []string{"patch", "update"},
		})
		Eventually(reportAs).WithArguments(ctx, clientAs(other, "one"), "one").Should(
			beRefusedWith(other + " may not report on nodes"))
		grant(ctx, other, "reports-on-all", rbacv1.PolicyRule{
			APIGroups: []string{podnetv1alpha1.GroupVersion.Group}, Resources: []string{"nodenetworks"}, Verbs: []string{"report-any"},
		})
		Eventually(reportAs).WithArguments(ctx, clientAs(other, "one"), "two").Should(Succeed())
	})

	It("does not stand in the way of who may do everything", func(ctx context.Context) {
		Expect(reportAs(ctx, clientAs("admin", "", "system:masters"), "two")).To(Succeed())
	})

	It("notices when nothing holds it to its node", func(ctx context.Context) {
		guard := &admission.Guard{
			Client: clientAs(agentUser, "one"), Node: "one", Changed: func() {},
			Nodes: func(context.Context) ([]string, error) { return []string{"one", "two"}, nil },
		}
		found := func(ctx context.Context) []model.Finding {
			Expect(guard.Check(ctx)).To(Succeed())
			return guard.Findings()
		}
		Eventually(found).WithArguments(ctx).Should(BeEmpty())
		before := &podnetv1alpha1.NodeNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "two"}, before)).To(Succeed())

		binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "podnet-agent-own-node"}, binding)).To(Succeed())
		Expect(api.Delete(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx context.Context) {
			binding.ResourceVersion, binding.UID = "", ""
			Expect(api.Create(ctx, binding)).To(Succeed())
			Eventually(found).WithArguments(ctx).Should(BeEmpty())
		})
		Eventually(found).WithArguments(ctx).Should(ConsistOf(HaveField("Type", admission.FindingAdmissionOff)))
		after := &podnetv1alpha1.NodeNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "two"}, after)).To(Succeed())
		Expect(after.ResourceVersion).To(Equal(before.ResourceVersion), "asking changes nothing")
	})

	It("makes Events in its own name only, on its node and on pods", func(ctx context.Context) {
		agent := clientAs(agentUser, "one")
		event := func(change func(*eventsv1.Event)) *eventsv1.Event {
			return with(&eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "made-", Namespace: "default"},
				EventTime:  metav1.NowMicro(), Reason: "DriftRepaired", Action: "RepairDrift", Type: "Warning", Note: "Told.",
				ReportingController: "podnet-agent", ReportingInstance: "podnet-agent-one",
				Regarding: corev1.ObjectReference{APIVersion: podnetv1alpha1.GroupVersion.String(), Kind: "NodeNetwork", Name: "one"},
			}, change)
		}
		create := func(c client.Client, e *eventsv1.Event) error { return c.Create(ctx, e.DeepCopy()) }
		for words, change := range map[string]func(*eventsv1.Event){
			"Events of its own only: reportingController podnet-agent":            func(e *eventsv1.Event) { e.ReportingController = "kubelet" },
			"reportingInstance podnet-agent-one":                                  func(e *eventsv1.Event) { e.ReportingInstance = "podnet-agent-two" },
			"may make Events on pods and on the NodeNetwork of its own node only": func(e *eventsv1.Event) { e.Regarding.Name = "two" },
			"the agent of node one may make Events on pods":                       func(e *eventsv1.Event) { e.Regarding.Kind = "Node" },
		} {
			Eventually(create).WithArguments(agent, event(change)).Should(beRefusedWith(words))
		}
		Expect(create(clientAs(agentUser, ""), event(func(*eventsv1.Event) {}))).To(beRefusedWith("must name the node"))
		Expect(create(agent, event(func(e *eventsv1.Event) { e.Regarding.Kind, e.Regarding.Name = "Pod", "p" }))).To(Succeed())
		own := event(func(*eventsv1.Event) {})
		Expect(agent.Create(ctx, own)).To(Succeed())

		By("changing those of others neither")
		others := event(func(e *eventsv1.Event) { e.ReportingController, e.ReportingInstance = "kubelet", "kubelet-one" })
		Expect(api.Create(ctx, others)).To(Succeed())
		series := client.RawPatch(types.MergePatchType, []byte(`{"series":{"count":2,"lastObservedTime":"2026-01-01T00:00:00.000000Z"}}`))
		Expect(agent.Patch(ctx, others, series)).To(beRefusedWith("may make and change Events of its own only"))
		Expect(agent.Patch(ctx, own, series)).To(Succeed())

		By("leaving everybody else alone")
		kubelet := event(func(e *eventsv1.Event) { e.ReportingController, e.Regarding.Kind = "kubelet", "Node" })
		Expect(create(clientAs("admin", "one", "system:masters"), kubelet)).To(Succeed())
		const other = "system:serviceaccount:default:other"
		grant(ctx, other, "makes-events", rbacv1.PolicyRule{
			APIGroups: []string{eventsv1.GroupName}, Resources: []string{"events"}, Verbs: []string{"create"},
		})
		Eventually(create).WithArguments(clientAs(other, "one"), kubelet).Should(Succeed())
	})
})

var _ = Describe("The PodNetwork", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	It("is deleted while nodes hold blocks only by those who say that they mean it", func(ctx context.Context) {
		network := podNetwork(blockRange("10.244.0.0/16", 24), blockRange("fd00:a:244::/48", 64))
		Expect(api.Create(ctx, network)).To(Succeed())
		remove := func() error { return api.Delete(ctx, network.DeepCopy(), client.DryRunAll) }
		holds := func(blocks int64) {
			network.Status.Ranges = []podnetv1alpha1.RangeStatus{
				{CIDR: "10.244.0.0/16", BlocksAllocated: &blocks}, {CIDR: "fd00:a:244::/48", BlocksAllocated: ptr.To[int64](0)},
			}
			Expect(api.Status().Update(ctx, network)).To(Succeed())
		}
		annotate := func(key, value string) {
			network.Annotations = map[string]string{key: value}
			Expect(api.Update(ctx, network)).To(Succeed())
		}
		Expect(remove()).To(Succeed(), "no status")
		holds(2)
		Eventually(remove).Should(beRefusedWith("nodes hold 2 blocks of PodNetwork default"))
		Expect(remove()).To(beRefusedWith("kubectl annotate podnetwork default podnet.dev/allow-deletion=true"))
		annotate(podnetv1alpha1.AllowDeletionAnnotation, "false")
		Expect(remove()).To(beRefusedWith("nodes hold 2 blocks"))
		annotate(podnetv1alpha1.AllowDeletionAnnotation, "true")
		Expect(remove()).To(Succeed())
		annotate(podnetv1alpha1.UninstallAnnotation, "requested")
		Expect(remove()).To(Succeed(), "podnet is being uninstalled")
		annotate("other", "")
		Expect(remove()).To(beRefusedWith("nodes hold 2 blocks"))
		holds(0)
		Expect(remove()).To(Succeed(), "nobody holds a block")
	})
})

var _ = Describe("The manifests", func() {
	It("keep policies in force under another prefix of all names", func() {
		overlay := GinkgoT().TempDir()
		base, err := filepath.Abs(filepath.Join("..", "..", "config"))
		Expect(err).NotTo(HaveOccurred())
		relative, err := filepath.Rel(overlay, filepath.Join(base, "default"))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte("namePrefix: acme-\nresources: ["+relative+"]\n"), 0o600)).To(Succeed())
		made, err := exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "kustomize", overlay).Output()
		Expect(err).NotTo(HaveOccurred())
		policies, bound := []string{}, []string{}
		documents(made, func(object *unstructured.Unstructured) {
			switch object.GetKind() {
			case "ValidatingAdmissionPolicy":
				policies = append(policies, object.GetName())
			case "ValidatingAdmissionPolicyBinding":
				name, _, err := unstructured.NestedString(object.Object, "spec", "policyName")
				Expect(err).NotTo(HaveOccurred())
				bound = append(bound, name)
			}
		})
		Expect(policies).To(ContainElement("acme-podnet-agent-own-node"))
		Expect(bound).To(ConsistOf(policies))
	})

	It("add nothing to the roles that namespaces' editors and admins hold", func() {
		content, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", "user_roles.yaml"))
		Expect(err).NotTo(HaveOccurred())
		labels := map[string][]string{}
		documents(content, func(object *unstructured.Unstructured) {
			for label := range object.GetLabels() {
				if strings.HasPrefix(label, "rbac.authorization.k8s.io/") {
					labels[object.GetName()] = append(labels[object.GetName()], label)
				}
			}
		})
		Expect(labels).To(Equal(map[string][]string{"podnet-viewer": {"rbac.authorization.k8s.io/aggregate-to-view"}}))
	})
})

// documents calls a function with each object of a file of manifests.
func documents(content []byte, each func(*unstructured.Unstructured)) {
	GinkgoHelper()
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		Expect(err).NotTo(HaveOccurred())
		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal(document, &object.Object)).To(Succeed())
		if object.GetKind() != "" {
			each(object)
		}
	}
}

// applyManifests creates every object of the files in config that match a pattern.
func applyManifests(ctx context.Context, pattern string, options ...client.CreateOption) {
	files, err := filepath.Glob(filepath.Join("..", "..", "config", pattern))
	Expect(err).NotTo(HaveOccurred())
	Expect(files).NotTo(BeEmpty())
	for _, file := range files {
		content, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		documents(content, func(object *unstructured.Unstructured) {
			if object.GetKind() != "Kustomization" {
				Expect(api.Create(ctx, object, options...)).To(Succeed(), file)
			}
		})
	}
}

// ruleMessages returns the messages of the rules that the API types carry.
func ruleMessages() []string {
	files, err := filepath.Glob(filepath.Join("..", "..", "api", "v1alpha1", "*_types.go"))
	Expect(err).NotTo(HaveOccurred())
	var messages []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		rules := regexp.MustCompile(`XValidation:rule=`).FindAllIndex(content, -1)
		found := regexp.MustCompile(`XValidation:rule=.*,message="([^"]+)"`).FindAllSubmatch(content, -1)
		Expect(found).To(HaveLen(len(rules)), "every rule in "+file+" has a message")
		for _, m := range found {
			messages = append(messages, string(m[1]))
		}
	}
	Expect(messages).NotTo(BeEmpty())
	return messages
}
