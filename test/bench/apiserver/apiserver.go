// Package apiserver runs Kubernetes' API server and etcd for benchmarks, with podnet's
// kinds. What the objects are is left to the benchmarks.
package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/test/envtest/lifeline"
)

// Server is an API server that holds no objects yet but its own.
type Server struct {
	*envtest.Environment
	Config *rest.Config
	API    client.WithWatch
}

// Start starts one, which ends with the benchmark. The root is the path of the
// repository.
func Start(b testing.TB, root string) *Server {
	b.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		b.Fatal("KUBEBUILDER_ASSETS must name a folder with kube-apiserver and etcd: " +
			"`make bench` sets it, and `hack/cluster/cluster envtest-assets` builds and prints one")
	}
	s := &Server{Environment: &envtest.Environment{
		CRDDirectoryPaths:        []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}}
	// Away from the ranges of pods.
	s.ControlPlane.GetAPIServer().Configure().Set("service-cluster-ip-range", "192.168.0.0/16")
	release, err := lifeline.Hold()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(release)
	b.Cleanup(func() {
		if err := s.Stop(); err != nil {
			b.Log(err)
		}
	})
	if s.Config, err = s.Environment.Start(); err != nil {
		b.Fatalf("starting the API server: %v", err)
	}
	// Benchmarks play thousands of clients: nothing but the server limits them.
	s.Config.QPS = -1
	scheme, err := Scheme()
	if err == nil {
		s.API, err = client.NewWithWatch(s.Config, client.Options{Scheme: scheme})
	}
	if err != nil {
		b.Fatalf("making a client: %v", err)
	}
	return s
}

// Scheme returns the kinds of which agents hear.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), podnetv1alpha1.AddToScheme(scheme), policyv1alpha2.Install(scheme))
}

// Smallest leaves the first of some sizes where `go test -short` asks for a short run, which
// shows that a benchmark works, and no figures.
func Smallest[T any](sizes []T) []T {
	if testing.Short() {
		return sizes[:1]
	}
	return sizes
}

// Few is a number of repetitions, or as few as will do in a short run.
func Few(number int) int {
	if testing.Short() {
		return min(number, 3)
	}
	return number
}

// writers is how many objects are written at a time.
const writers = 32

// Fill writes objects into etcd, by what comes after /registry/ in their keys, as from a
// backup: to create tens of thousands would take longer than all benchmarks. They have
// their kinds, and nobody validates them. Each is a transaction of its own, as the API
// server expects of etcd that no two changes have the same revision.
func (s *Server) Fill(b testing.TB, objects iter.Seq2[string, client.Object]) {
	b.Helper()
	type entry struct {
		key    string
		object client.Object
	}
	entries := make(chan entry)
	etcd := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: writers}}
	defer etcd.CloseIdleConnections()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for e := range entries {
				if err := s.put(etcd, "/registry/"+e.key, e.object); err != nil {
					b.Error(fmt.Errorf("writing %s into etcd: %w", e.key, err))
				}
			}
		})
	}
	for key, object := range objects {
		entries <- entry{key, object}
	}
	close(entries)
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// put writes an object as the API server would.
func (s *Server) put(etcd *http.Client, key string, object client.Object) error {
	value, err := json.Marshal(object)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string][]byte{"key": []byte(key), "value": value})
	if err != nil {
		return err
	}
	response, err := etcd.Post(s.ControlPlane.Etcd.URL.String()+"/v3/kv/put", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body) // or the connection is not used again
	return err
}
