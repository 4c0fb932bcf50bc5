package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// localCluster is a cluster of hack/cluster, whose nodes are namespaces.
type localCluster struct {
	root       string // of this repository
	script     string // hack/cluster/cluster
	bin        string // folder of kubectl, helm and agnhost
	kubeconfig string
	artifacts  string // folder for what failed
	nodes      []node
}

// node is a node of the cluster and its addresses.
type node struct{ name, v4, v6 string }

func (n node) address(is4 bool) string {
	if is4 {
		return n.v4
	}
	return n.v6
}

// findCluster finds the cluster that CLUSTER_NAME names, which is to be up.
func findCluster(ctx context.Context) (*localCluster, error) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return nil, err
	}
	l := &localCluster{
		root:      root,
		script:    filepath.Join(root, "hack", "cluster", "cluster"),
		artifacts: os.Getenv("ARTIFACTS"),
	}
	if l.artifacts == "" {
		l.artifacts = filepath.Join(root, "bin", "artifacts")
	}
	if _, err := l.run(ctx, l.script, "build", "kubectl", "helm", "agnhost"); err != nil {
		return nil, err
	}
	if l.bin, err = l.run(ctx, l.script, "bin"); err != nil {
		return nil, err
	}
	l.bin = strings.TrimSpace(l.bin)
	l.kubeconfig = filepath.Join(filepath.Dir(l.bin), "kubeconfig")
	if _, err := os.Stat(l.kubeconfig); errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no cluster to test on: run `make test-cluster`, which makes one," +
			" or `" + callAgain() + " up` before `go test`")
	} else if err != nil {
		return nil, err
	}
	return l, nil
}

// callAgain is how to call the script for the same cluster, in what is told to people.
func callAgain() string {
	if name := os.Getenv("CLUSTER_NAME"); name != "" {
		return "CLUSTER_NAME=" + name + " hack/cluster/cluster"
	}
	return "hack/cluster/cluster"
}

func (l *localCluster) setNodes(list []corev1.Node) {
	for i := range list {
		n := node{name: list[i].Name}
		for _, address := range list[i].Status.Addresses {
			switch {
			case address.Type != corev1.NodeInternalIP:
			case strings.Contains(address.Address, ":"):
				n.v6 = address.Address
			default:
				n.v4 = address.Address
			}
		}
		l.nodes = append(l.nodes, n)
	}
	slices.SortFunc(l.nodes, func(a, b node) int { return strings.Compare(a.name, b.name) })
}

// command prepares a command that finds the cluster and its programs.
func (l *localCluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "kubectl" || name == "helm" {
		name = filepath.Join(l.bin, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.kubeconfig)
	return cmd
}

// run runs a command and returns what it printed. The error holds what it said of its failure.
func (l *localCluster) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := l.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s%s", filepath.Base(name), strings.Join(args, " "), err,
			stderr.String(), stdout.String())
	}
	return stdout.String(), nil
}

func (l *localCluster) kubectl(ctx context.Context, args ...string) (string, error) {
	return l.run(ctx, "kubectl", args...)
}

// helm shows in the report what Helm says.
func (l *localCluster) helm(ctx context.Context, args ...string) (string, error) {
	output, err := l.run(ctx, "helm", args...)
	GinkgoWriter.Printf("helm %s\n%s\n", strings.Join(args, " "), output)
	return output, err
}

// onNode runs a command in the namespaces of a node.
func (l *localCluster) onNode(ctx context.Context, node string, args ...string) (string, error) {
	return l.run(ctx, l.script, append([]string{"exec", node}, args...)...)
}

// process is the process of a component, of which the cluster keeps a record.
func (l *localCluster) process(name string) (int, error) {
	record, err := os.ReadFile(filepath.Join(filepath.Dir(l.bin), "pids", name))
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(string(record), " ")
	command, err := os.ReadFile(filepath.Join("/proc", number, "comm"))
	if err != nil {
		return 0, fmt.Errorf("%s does not run any more: %w", name, err)
	}
	if got := strings.TrimSpace(string(command)); got != name {
		return 0, fmt.Errorf("process %s is not %s any more but %s", number, name, got)
	}
	return strconv.Atoi(number)
}

// loadImage puts the image that `make image` assembles on every node.
func (l *localCluster) loadImage(ctx context.Context) error {
	image := filepath.Join(l.root, "bin", "podnet-image.tar")
	if _, err := os.Stat(image); err != nil {
		return fmt.Errorf("there is no image to install: run `make image` first: %w", err)
	}
	_, err := l.run(ctx, l.script, "load", image)
	return err
}

// origin is a place from which packets are sent.
type origin interface {
	// shell runs a script there and returns what it printed.
	shell(ctx context.Context, script string) (string, error)
	// agnhost is the address of an agnhost that serves there.
	agnhost() string
	String() string
}

// outside is the network beyond the nodes' gateway.
type outside struct{}

func (outside) shell(ctx context.Context, script string) (string, error) {
	return local.run(ctx, local.script, "outside", "bash", "-c", script)
}

func (outside) agnhost() string { return hostPort("127.0.0.1", hostWebPort) }

func (outside) String() string { return "outside" }

// address is one that the Internet would have.
func (outside) address(is4 bool) string {
	if is4 {
		return "192.0.2.1"
	}
	return "2001:db8::1"
}

// gateway is outside's address in the network of the nodes.
func (outside) gateway(is4 bool) string {
	if is4 {
		return "172.31.255.1"
	}
	return "fd31:255:0:1::1"
}

// serve runs an agnhost outside until the suite ends.
func (o outside) serve(ctx context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	args := append([]string{"outside", "agnhost"}, netexec(hostWebPort, hostWebUDPPort)...)
	server := local.command(serving, local.script, args...)
	if err := server.Start(); err != nil {
		stop()
		return err
	}
	DeferCleanup(func() {
		stop()
		_ = server.Wait() // It was killed, which is no news.
	})
	_, err := o.shell(ctx, "curl -gsS --retry 50 --retry-delay 1 --retry-connrefused http://"+o.agnhost()+"/healthz")
	return err
}

// inContainer is a container of a pod.
type inContainer struct {
	namespace, pod, container string
	// port is where the agnhost of the pod serves.
	port int
}

func (c inContainer) shell(ctx context.Context, script string) (string, error) {
	return local.kubectl(ctx, "exec", "--namespace", c.namespace, c.pod, "--container", c.container, "--", "bash", "-c", script)
}

func (c inContainer) agnhost() string { return hostPort("127.0.0.1", c.port) }

func (c inContainer) String() string { return c.pod }

// byRuntime is a container that is entered by its runtime: the API server need not be there.
type byRuntime struct {
	inContainer
	node, id string
}

func (c byRuntime) shell(ctx context.Context, script string) (string, error) {
	return local.onNode(ctx, c.node, "ctr", "--namespace", "k8s.io", "tasks", "exec",
		"--exec-id", string(uuid.NewUUID()), c.id, "bash", "-c", script)
}
