package cri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fake is a container runtime that knows some sandboxes, or answers with an error.
type fake struct {
	runtimev1.UnimplementedRuntimeServiceServer
	ids []string
	err error
}

func (f *fake) ListPodSandbox(_ context.Context, r *runtimev1.ListPodSandboxRequest) (*runtimev1.ListPodSandboxResponse, error) {
	if f.err != nil {
		return nil, f.err
	}
	if r.GetFilter() != nil {
		return nil, errors.New("asked for some only")
	}
	out := &runtimev1.ListPodSandboxResponse{}
	for i, id := range f.ids {
		out.Items = append(out.Items, &runtimev1.PodSandbox{Id: id, State: runtimev1.PodSandboxState(i % 2)})
	}
	return out, nil
}

// start serves a runtime and returns its socket.
func start(t *testing.T, server runtimev1.RuntimeServiceServer) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri-") // t.TempDir is too long for a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "runtime.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtimev1.RegisterRuntimeServiceServer(s, server)
	go s.Serve(listener) //nolint:errcheck // it ends when it is stopped
	t.Cleanup(s.Stop)
	return socket
}

func TestSandboxesOfEveryState(t *testing.T) {
	var many []string
	for i := range 5000 {
		many = append(many, strings.Repeat("0", 60)+string(rune('a'+i%26))+strings.Repeat("f", i%4))
	}
	for name, ids := range map[string][]string{"some": {"a", "b", "c"}, "none": nil, "many": many} {
		t.Run(name, func(t *testing.T) {
			socket := start(t, &fake{ids: ids})
			for _, endpoint := range []string{socket, "unix://" + socket} {
				got, err := New(endpoint).Sandboxes(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				want := slices.Compact(slices.Sorted(slices.Values(ids)))
				if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) {
					t.Errorf("%d sandboxes, want %d", len(have), len(want))
				}
			}
		})
	}
}

func TestRuntimeThatCannotBeAskedIsAnError(t *testing.T) {
	gone := start(t, &fake{})
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ socket, word string }{
		"starts":          {start(t, &fake{err: status.Error(codes.Unavailable, "server is not initialized yet")}), "not initialized"},
		"does not speak":  {start(t, runtimev1.UnimplementedRuntimeServiceServer{}), "Unimplemented"},
		"is gone":         {gone, "no container runtime has its socket at /host" + gone},
		"is not a socket": {file, "no container runtime has its socket at /host" + file},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := New(tc.socket).Sandboxes(t.Context())
			if err == nil || got != nil || !strings.Contains(err.Error(), tc.word) {
				t.Errorf("%v, error %v", got, err)
			}
		})
	}
}

func TestSocketsOfDistributionsAreLookedForFirst(t *testing.T) {
	if want := "/host/run/k3s/containerd/containerd.sock"; New("").sockets[0] != want {
		t.Errorf("%v, want %s first", New("").sockets, want)
	}
	if got := New("unix:///var/lib/own.sock").sockets; !slices.Equal(got, []string{"/host/var/lib/own.sock", "/var/lib/own.sock"}) {
		t.Errorf("of the one that is named: %v", got)
	}
}

func TestFirstSocketThatExists(t *testing.T) {
	r := &Runtime{sockets: []string{"/nowhere.sock", start(t, &fake{ids: []string{"a"}}), start(t, &fake{ids: []string{"b"}})}}
	got, err := r.Sandboxes(t.Context())
	if err != nil || !got["a"] || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestOwnNamespaceIsNotIdle(t *testing.T) {
	r := New(start(t, &fake{}))
	idle, err := r.Idle(t.Context(), "/proc/self/ns/net")
	if err != nil || idle {
		t.Errorf("%t, %v", idle, err)
	}
}

// processes makes what /proc shows of processes, one for each of the files that
// stand for their namespaces.
func processes(t *testing.T, namespaces ...string) string {
	t.Helper()
	dir := t.TempDir()
	link := func(to string, path ...string) {
		t.Helper()
		name := filepath.Join(append([]string{dir}, path...)...)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.Symlink(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("/proc/self/ns/net", "self/ns/net")
	for i, to := range namespaces {
		link("/proc/self/ns/mnt", fmt.Sprint(i+1), "task", fmt.Sprint(i+1), "ns/net")
		link(to, fmt.Sprint(i+1), "task", fmt.Sprint(i+100), "ns/net")
	}
	return dir
}

func TestIdleNamespaceHasNoThread(t *testing.T) {
	// Of the namespaces that a test has without being root, the one of users is idle.
	for name, tc := range map[string]struct {
		namespaces []string
		idle, fail bool
	}{
		"no process":           {nil, true, false},
		"others":               {[]string{"/proc/self/ns/mnt", "/proc/self/ns/pid"}, true, false},
		"one thread":           {[]string{"/proc/self/ns/mnt", "/proc/self/ns/user"}, false, false},
		"one that ended":       {[]string{"/nowhere"}, true, false},
		"one that is hidden":   {[]string{"/proc/self/ns/net/hidden"}, false, true},
		"one and a hidden one": {[]string{"/proc/self/ns/net/hidden", "/proc/self/ns/user"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(start(t, &fake{}))
			r.proc = processes(t, tc.namespaces...)
			if idle, err := r.Idle(t.Context(), "/proc/self/ns/user"); idle != tc.idle || (err != nil) != tc.fail {
				t.Errorf("%t, %v", idle, err)
			}
		})
	}
}

func TestIdleAmongSeveral(t *testing.T) {
	const mnt, pid, user, gone = "/proc/self/ns/mnt", "/proc/self/ns/pid", "/proc/self/ns/user", "/nowhere"
	for name, tc := range map[string]struct {
		namespaces, asked, idle []string
		word                    string
	}{
		"none asked":                 {nil, nil, nil, ""},
		"some idle":                  {[]string{pid}, []string{pid, user}, []string{user}, ""},
		"none idle":                  {[]string{pid, user}, []string{pid, user}, nil, ""},
		"two paths of one":           {[]string{pid}, []string{user, user, "/proc/thread-self/ns/user"}, []string{user, "/proc/thread-self/ns/user"}, ""},
		"one path is gone":           {[]string{pid}, []string{gone, user}, []string{user}, gone},
		"a process is hidden":        {[]string{pid, mnt + "/hidden"}, []string{pid, user}, nil, "hidden"},
		"hidden, and all are busy":   {[]string{mnt + "/hidden", pid}, []string{pid}, nil, ""},
		"hidden, and nothing to see": {[]string{mnt + "/hidden"}, []string{gone}, nil, gone},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(start(t, &fake{}))
			r.proc = processes(t, tc.namespaces...)
			idle, err := r.IdleAmong(t.Context(), tc.asked)
			if have := slices.Sorted(maps.Keys(idle)); !slices.Equal(have, tc.idle) {
				t.Errorf("%v are idle, want %v", have, tc.idle)
			}
			if (err != nil) != (tc.word != "") || err != nil && !strings.Contains(err.Error(), tc.word) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestLookAtProcessesEndsWithTheContext(t *testing.T) {
	r := New(start(t, &fake{}))
	r.proc = processes(t, "/proc/self/ns/mnt")
	suspects := map[namespace][]string{{1, 1}: {"a"}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeBusy(ctx, r.proc, suspects); !errors.Is(err, context.Canceled) || len(suspects) != 1 {
		t.Errorf("%v, left %v", err, suspects)
	}
}

func TestNothingIsSaidOfWhatIsNoNamespace(t *testing.T) {
	r := New(start(t, &fake{}))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{file: "no network namespace", "/nowhere": "no such file"} {
		if idle, err := r.Idle(t.Context(), path); err == nil || idle || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %t, %v", path, idle, err)
		}
	}
	if idle, err := New("/nowhere.sock").Idle(t.Context(), "/proc/self/ns/net"); err == nil || idle {
		t.Errorf("without a runtime: %t, %v", idle, err)
	}
}
