// Package cri asks the node's container runtime which pod sandboxes it knows, by
// the Container Runtime Interface, and the kernel whether processes are in a
// network namespace. What follows from the answers is left to agent/cni.
package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sockets are where runtimes serve the interface, in the order in which they are
// tried: first those of distributions that bring a runtime of their own (k3s and RKE2,
// MicroK8s), since nodes may have another one besides, which knows no pods.
var Sockets = []string{
	"/run/k3s/containerd/containerd.sock", "/var/snap/microk8s/common/run/containerd.sock",
	"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock",
}

// nodeRoot is where the agent's container has what it sees of the node's files.
const nodeRoot = "/host"

const (
	// answerTimeout bounds the wait for the runtime's answer: it may be busy with pods.
	answerTimeout = 10 * time.Second
	// maxAnswer is the size in bytes of the largest answer that is read, as kubelet has it.
	maxAnswer = 16 << 20
)

// Runtime is a container runtime. It keeps no connection: between two looks the
// runtime may have been started again.
type Runtime struct {
	// sockets are tried in order; the first that exists counts.
	sockets []string
	// proc is where processes are seen.
	proc string
}

// New returns the runtime that serves at an endpoint: the path of a Unix socket on the
// node, with or without unix://. The empty one stands for the first of Sockets that exists
// when the runtime is asked.
func New(endpoint string) *Runtime {
	paths := Sockets
	if endpoint != "" {
		paths = []string{strings.TrimPrefix(endpoint, "unix://")}
	}
	r := &Runtime{proc: "/proc"}
	for _, root := range []string{nodeRoot, ""} {
		for _, path := range paths {
			r.sockets = append(r.sockets, root+path)
		}
	}
	return r
}

// Sandboxes returns the IDs of all sandboxes that the runtime knows, of those that
// were stopped too.
func (r *Runtime) Sandboxes(ctx context.Context) (map[string]bool, error) {
	socket, err := r.socket()
	if err != nil {
		return nil, err
	}
	// The name is not resolved, and no proxy is asked.
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("reach the container runtime at %s: %w", socket, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := runtimev1.NewRuntimeServiceClient(conn).ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the container runtime at %s for its sandboxes: %w", socket, err)
	}
	sandboxes := map[string]bool{}
	for _, s := range answer.GetItems() {
		sandboxes[s.GetId()] = true
	}
	return sandboxes, nil
}

func (r *Runtime) socket() (string, error) {
	for _, socket := range r.sockets {
		if info, err := os.Stat(socket); err == nil && info.Mode().Type() == os.ModeSocket {
			return socket, nil
		}
	}
	return "", fmt.Errorf("no container runtime has its socket at %s", strings.Join(r.sockets, ", "))
}

// errBlind is why nothing can be said about processes.
var errBlind = errors.New("the agent does not see the processes of the node: its pod needs hostPID")

// seesProcesses returns an error unless the agent sees the processes of all
// containers of the runtime: those are descendants of the runtime, so that it sees
// them if it sees the runtime itself. The kernel tells the number of the process at
// the other end of a Unix socket as it is in the caller's PID namespace, and 0 where
// it has none there (pid_namespaces(7)).
func (r *Runtime) seesProcesses(ctx context.Context) error {
	socket, err := r.socket()
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: answerTimeout}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("reach the container runtime at %s: %w", socket, err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return fmt.Errorf("look who serves %s: %w", socket, err)
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("look who serves %s: %w", socket, err)
	}
	if peer.Pid <= 0 {
		return errBlind
	}
	return nil
}
