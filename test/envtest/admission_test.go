package envtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

var _ = Describe("An agent", func() {
	const nodeClaim = "authentication.kubernetes.io/node-name"

	// write reports on a NodeNetwork under a user's name. The user may do everything,
	// so that only the admission policy stands in its way.
	write := func(ctx context.Context, user, claim, node string) error {
		as := rest.CopyConfig(config)
		as.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
		if claim != "" {
			as.Impersonate.Extra = map[string][]string{nodeClaim: {claim}}
		}
		c, err := client.New(as, client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())
		return c.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(node).WithStatus(podnetv1alpha1ac.NodeNetworkStatus().WithPods(1)),
			client.FieldOwner("podnet-agent"), client.ForceOwnership)
	}
	const agent = "system:serviceaccount:podnet-system:podnet-agent"

	BeforeEach(func(ctx context.Context) {
		cleanAfterwards(ctx)
		for _, name := range []string{"one", "two"} {
			Expect(api.Create(ctx, &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
		}
	})

	It("reports on its own node and on no other", func(ctx context.Context) {
		// The API server takes a moment to put a policy in force.
		Eventually(write).WithArguments(ctx, agent, "one", "two").Should(
			beRefusedWith("the agent of node one may write the NodeNetwork of its own node only, not two"))
		Expect(write(ctx, agent, "one", "one")).To(Succeed())
		Expect(write(ctx, agent, "", "one")).To(beRefusedWith("an agent's token must name the node that its pod runs on"))
		Expect(write(ctx, "system:serviceaccount:kube-system:podnet-agent", "one", "two")).To(beRefusedWith("of its own node only"))
	})

	It("is the only one that is held to that", func(ctx context.Context) {
		Expect(write(ctx, "system:serviceaccount:podnet-system:podnet-manager", "one", "two")).To(Succeed())
		Expect(write(ctx, "admin", "", "two")).To(Succeed())
	})
})

// applyManifests creates every object of the files in config that match a pattern.
func applyManifests(ctx context.Context, pattern string, options ...client.CreateOption) {
	files, err := filepath.Glob(filepath.Join("..", "..", "config", pattern))
	Expect(err).NotTo(HaveOccurred())
	Expect(files).NotTo(BeEmpty())
	for _, file := range files {
		content, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			Expect(err).NotTo(HaveOccurred())
			object := &unstructured.Unstructured{}
			Expect(yaml.Unmarshal(document, &object.Object)).To(Succeed(), file)
			if object.GetKind() == "" || object.GetKind() == "Kustomization" {
				continue
			}
			Expect(api.Create(ctx, object, options...)).To(Succeed(), file)
		}
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
