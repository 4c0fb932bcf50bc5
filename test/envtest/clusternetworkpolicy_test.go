package envtest

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/podnet/podnet/agent/source"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

type policyPeer = policyv1alpha2.ClusterNetworkPolicyEgressPeer

// noticed is when everybody has noticed that the kind has come or gone.
const noticed = time.Minute

var policyCRD = envtest.CRDInstallOptions{
	Paths: []string{filepath.Join("..", "..", "config", "crd", "network-policy-api", "policy.networking.k8s.io_clusternetworkpolicies.yaml")},
}

// installPolicies makes the API server have ClusterNetworkPolicies until the spec ends.
func installPolicies() {
	GinkgoHelper()
	crds, err := envtest.InstallCRDs(config, policyCRD)
	Expect(err).NotTo(HaveOccurred())
	Expect(crds).To(HaveLen(1))
	DeferCleanup(removePolicies)
}

// removePolicies returns when the API server has no ClusterNetworkPolicies.
func removePolicies(ctx context.Context) {
	GinkgoHelper()
	Expect(envtest.UninstallCRDs(config, policyCRD)).To(Succeed())
	Eventually(ctx, func() error { return api.List(ctx, &policyv1alpha2.ClusterNetworkPolicyList{}) }).ShouldNot(Succeed())
}

// clusterPolicy is one of the tier Admin for all pods, with one rule for each peer.
func clusterPolicy(name string, priority int32, peers ...policyPeer) *policyv1alpha2.ClusterNetworkPolicy {
	p := &policyv1alpha2.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1alpha2.ClusterNetworkPolicySpec{
			Tier: policyv1alpha2.AdminTier, Priority: priority,
			Subject: policyv1alpha2.ClusterNetworkPolicySubject{Namespaces: &metav1.LabelSelector{}},
		},
	}
	for _, peer := range peers {
		p.Spec.Egress = append(p.Spec.Egress, policyv1alpha2.ClusterNetworkPolicyEgressRule{
			Action: policyv1alpha2.ClusterNetworkPolicyRuleActionAccept, To: []policyPeer{peer},
		})
	}
	return p
}

// accepted returns podnet's condition of a ClusterNetworkPolicy that judges its present form; nil where there is none.
func accepted(ctx context.Context, name string) *metav1.Condition {
	p := &policyv1alpha2.ClusterNetworkPolicy{}
	Expect(api.Get(ctx, client.ObjectKey{Name: name}, p)).To(Succeed())
	c := apimeta.FindStatusCondition(p.Status.Conditions, podnetv1alpha1.ConditionPolicyAccepted)
	if c == nil || c.ObservedGeneration != p.Generation {
		return nil
	}
	return c
}

var _ = Describe("A ClusterNetworkPolicy", func() {
	networks := policyPeer{Networks: []policyv1alpha2.CIDR{"10.0.0.0/8"}}

	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	It("is told whether podnet enforces it", func(ctx context.Context) {
		installPolicies()
		startManager()
		Expect(api.Create(ctx, clusterPolicy("alone", 1, networks))).To(Succeed())
		Eventually(ctx, accepted).WithArguments("alone").Should(beCondition(metav1.ConditionTrue, "Accepted", Equal("The policy is in force.")))

		By("asking for what podnet cannot do")
		Expect(api.Create(ctx, clusterPolicy("names", 2, networks, policyPeer{DomainNames: []policyv1alpha2.DomainName{"example.org"}}))).To(Succeed())
		says := HavePrefix("egress[1].to[0]: domainNames are not supported: this part of the rule matches nothing.")
		Eventually(ctx, accepted).WithArguments("names").Should(beCondition(metav1.ConditionFalse, "Unsupported", says))
		Eventually(ctx, eventsAbout).WithArguments("ClusterNetworkPolicy", "names", "NotAccepted").Should(ConsistOf(says))

		By("having a selector that the schema lets through")
		Expect(api.Create(ctx, clusterPolicy("bad", 3, policyPeer{Namespaces: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}},
		}}))).To(Succeed())
		Eventually(ctx, accepted).WithArguments("bad").Should(beCondition(metav1.ConditionFalse, "Invalid", HavePrefix("egress[0].to[0].namespaces:")))

		By("being mended")
		mended := &policyv1alpha2.ClusterNetworkPolicy{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "bad"}, mended)).To(Succeed())
		mended.Spec.Egress[0].To[0] = networks
		Expect(api.Update(ctx, mended)).To(Succeed())
		Eventually(ctx, accepted).WithArguments("bad").Should(beCondition(metav1.ConditionTrue, "Accepted", Equal("The policy is in force.")))
	})

	It("is in force as users find it in the documentation", func(ctx context.Context) {
		installPolicies()
		startManager()
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", "network-policy.md"))
		Expect(err).NotTo(HaveOccurred())
		blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
		Expect(blocks).To(HaveLen(2))
		for _, block := range blocks {
			p := &unstructured.Unstructured{}
			Expect(yaml.Unmarshal(block[1], &p.Object)).To(Succeed())
			Expect(api.Create(ctx, p, client.FieldValidation(metav1.FieldValidationStrict))).To(Succeed())
			Eventually(ctx, accepted).WithArguments(p.GetName()).Should(beCondition(metav1.ConditionTrue, "Accepted", Equal("The policy is in force.")))
		}
	})

	It("names others of its priority, also when these come and go", func(ctx context.Context) {
		installPolicies()
		startManager()
		second := clusterPolicy("second", 5)
		Expect(api.Create(ctx, clusterPolicy("first", 5))).To(Succeed())
		Eventually(ctx, accepted).WithArguments("first").Should(beCondition(metav1.ConditionTrue, "Accepted", Equal("The policy is in force.")))
		Expect(api.Create(ctx, second)).To(Succeed())
		Eventually(ctx, accepted).WithArguments("first").Should(beCondition(metav1.ConditionTrue, "Accepted",
			HaveSuffix("Other policies of the tier Admin have the priority 5 too: second. The one whose name sorts first is asked first.")))
		Expect(api.Delete(ctx, second)).To(Succeed())
		Eventually(ctx, accepted).WithArguments("first").Should(beCondition(metav1.ConditionTrue, "Accepted", Equal("The policy is in force.")))
	})

	It("keeps the conditions of others who enforce it", func(ctx context.Context) {
		installPolicies()
		p := clusterPolicy("shared", 1, networks)
		Expect(api.Create(ctx, p)).To(Succeed())
		other := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{map[string]any{
			"type": "example.org/Programmed", "status": "True", "reason": "Programmed", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z",
		}}}}}
		other.SetAPIVersion(policyv1alpha2.GroupVersion.String())
		other.SetKind("ClusterNetworkPolicy")
		other.SetName(p.Name)
		Expect(api.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(other), client.FieldOwner("other"))).To(Succeed())
		startManager()
		Eventually(ctx, accepted).WithArguments("shared").ShouldNot(BeNil())
		Expect(api.Get(ctx, client.ObjectKeyFromObject(p), p)).To(Succeed())
		Expect(p.Status.Conditions).To(ConsistOf(HaveField("Type", "example.org/Programmed"), HaveField("Type", "podnet.dev/Accepted")))
	})

	It("makes NodeSubnets say what it selects nodes by, and their addresses", func(ctx context.Context) {
		installPolicies()
		startManager()
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		node := makeNode(ctx, "node-1", map[string]string{"rack": "1", "zone": "x"}, "192.0.2.1")
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "203.0.113.7"}, corev1.NodeAddress{Type: corev1.NodeHostName, Address: "node-1"})
		Expect(api.Status().Update(ctx, node)).To(Succeed())
		spec := func(ctx context.Context) podnetv1alpha1.NodeSubnetSpec {
			subnets := &podnetv1alpha1.NodeSubnetList{}
			Expect(api.List(ctx, subnets)).To(Succeed())
			if len(subnets.Items) != 1 {
				return podnetv1alpha1.NodeSubnetSpec{}
			}
			return subnets.Items[0].Spec
		}
		of := func(labels, addresses OmegaMatcher) OmegaMatcher {
			return And(HaveField("Endpoints", ConsistOf("192.0.2.1")), HaveField("NodeLabels", labels), HaveField("NodeAddresses", addresses))
		}
		Expect(api.Create(ctx, clusterPolicy("no-nodes", 1, networks))).To(Succeed())
		Eventually(ctx, spec).Should(of(BeEmpty(), BeEmpty()))

		byRack := clusterPolicy("rack", 2, policyPeer{Nodes: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "2"}}})
		Expect(api.Create(ctx, byRack)).To(Succeed())
		Eventually(ctx, spec).Should(of(Equal(map[string]string{"rack": "1"}), ConsistOf("203.0.113.7")))

		By("the node getting another address")
		node.Status.Addresses[1].Address = "203.0.113.8"
		Expect(api.Status().Update(ctx, node)).To(Succeed())
		Eventually(ctx, spec).Should(of(Equal(map[string]string{"rack": "1"}), ConsistOf("203.0.113.8")))

		Expect(api.Delete(ctx, byRack)).To(Succeed())
		Eventually(ctx, spec).Should(of(BeEmpty(), BeEmpty()))
	})

	It("may be of a kind that comes and goes while the manager and an agent run", Label("budget:40s"), func(ctx context.Context) {
		startManager()
		policies := startSource(ctx)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		makeNodes(ctx, 1)
		Eventually(ctx, blocksOf).WithArguments("node-1").Should(HaveLen(1), "the manager works without the kind")
		Eventually(ctx, policies).Should(BeEmpty(), "and so does the agent")

		installPolicies()
		Expect(api.Create(ctx, clusterPolicy("late", 1, networks))).To(Succeed())
		Eventually(ctx, accepted).WithArguments("late").WithTimeout(noticed).ShouldNot(BeNil())
		Eventually(ctx, policies).WithTimeout(noticed).Should(ConsistOf("late"))
		Expect(api.Create(ctx, clusterPolicy("later", 2, networks))).To(Succeed())
		Eventually(ctx, policies).Should(ConsistOf("late", "later"))

		removePolicies(ctx)
		Eventually(ctx, policies).WithTimeout(noticed).Should(BeEmpty())
		makeNode(ctx, "node-2", nil, "192.0.2.2")
		Eventually(ctx, blocksOf).WithArguments("node-2").Should(HaveLen(1))
	})
})

// startSource plays what an agent reads policies by until the spec ends, and returns
// what gives the names of the ClusterNetworkPolicies that it knows; an error as long as
// it knows nothing.
func startSource(ctx context.Context) func(context.Context) ([]string, error) {
	GinkgoHelper()
	src := source.New(func() (cache.Cache, error) {
		return cache.New(config, cache.Options{Scheme: scheme, ByObject: source.CacheOptions()})
	}, api)
	src.WatchPolicies(func() {})
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- src.Run(running, func() {}) }()
	DeferCleanup(func() {
		cancel()
		Eventually(ended).Should(Receive(BeNil()))
	})
	return func(ctx context.Context) ([]string, error) {
		all, err := src.Policies(ctx)
		var names []string
		for _, p := range all.Objects.ClusterPolicies {
			names = append(names, p.Name)
		}
		return names, err
	}
}
