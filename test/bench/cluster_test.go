package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/podnet/podnet/test/bench/apiserver"
)

// patience is how long a benchmark waits for what must come.
const patience = 5 * time.Minute

// managerBinary is the manager, built once.
var managerBinary string

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (int, error) {
	ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard)))
	folder, err := os.MkdirTemp("", "podnet-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	managerBinary = filepath.Join(folder, "manager")
	build := exec.Command("go", "build", "-o", managerBinary, "github.com/podnet/podnet/cmd/manager")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 0, fmt.Errorf("building the manager: %w", err)
	}
	return m.Run(), nil
}

// cluster is an API server with podnet's kinds, policies and roles, and no nodes.
type cluster struct {
	*apiserver.Server
	// token reads metrics.
	token string
}

// startCluster starts one, with the agents of all nodes that will come, which ends with the benchmark. Each has its own, so
// that none finds what another left.
func startCluster(b *testing.B) *cluster {
	b.Helper()
	c := &cluster{Server: apiserver.Start(b, filepath.Join("..", ".."))}
	for _, pattern := range []string{"admission/*.yaml", "rbac/role.yaml"} {
		must(b, "applying "+pattern, c.applyManifests(b.Context(), filepath.Join("..", "..", "config", pattern)))
	}
	c.grant(b)
	c.runAgents(b)
	return c
}

func must(b *testing.B, what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// The users of the benchmarks: the manager has the rights of its role, and the
// reader those to read metrics.
const (
	managerRole  = "podnet-manager"
	managerUser  = "system:serviceaccount:podnet-system:podnet-manager"
	metricsRole  = "bench-metrics"
	metricsUser  = "bench"
	usersDefault = "default"
)

// grant gives the users their roles and gets the reader's token.
func (c *cluster) grant(b *testing.B) {
	b.Helper()
	reader := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: metricsUser, Namespace: usersDefault}}
	for _, object := range []client.Object{
		reader,
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: metricsRole},
			Rules:      []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
		},
		binding(metricsRole, "system:serviceaccount:"+usersDefault+":"+metricsUser),
		binding(managerRole, managerUser),
	} {
		must(b, "creating "+object.GetName(), c.API.Create(b.Context(), object))
	}
	request := &authenticationv1.TokenRequest{}
	must(b, "asking for a token", c.API.SubResource("token").Create(b.Context(), reader, request))
	c.token = request.Status.Token
}

func binding(role, user string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
}

// applyManifests creates every object of the files that match a pattern.
func (c *cluster) applyManifests(ctx context.Context, pattern string) error {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no files match %s (%w)", pattern, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("reading %s: %w", file, err)
			}
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(document, &object.Object); err != nil {
				return fmt.Errorf("reading %s: %w", file, err)
			}
			if object.GetKind() == "" || object.GetKind() == "Kustomization" {
				continue
			}
			if err := c.API.Create(ctx, object); err != nil {
				return fmt.Errorf("creating what %s asks for: %w", file, err)
			}
		}
	}
	return nil
}
