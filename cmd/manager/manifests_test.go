package main

import (
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/podnet/podnet/internal/model"
)

// containers are those of every pod template in a manifest.
func containers(t *testing.T, path string) []corev1.Container {
	t.Helper()
	var found []corev1.Container
	for _, pod := range pods(t, path) {
		found = append(found, pod.Containers...)
	}
	return found
}

// pods are those of every pod template in a manifest.
func pods(t *testing.T, path string) []corev1.PodSpec {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var found []corev1.PodSpec
	decoder := yaml.NewYAMLOrJSONDecoder(file, 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		template, ok, err := unstructured.NestedMap(object.Object, "spec", "template")
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if !ok {
			continue
		}
		var pod corev1.PodTemplateSpec
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(template, &pod, true); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		found = append(found, pod.Spec)
	}
}

// The manifests are made from the chart, so that this is about the chart too.
func TestManifestsUseFlagsThatExist(t *testing.T) {
	for path, command := range map[string][]string{
		"../../config/manager/deployment.yaml":  {"/manager"},
		"../../config/uninstall/uninstall.yaml": {"/manager", "uninstall"},
	} {
		all := containers(t, path)
		if len(all) != 1 {
			t.Fatalf("%s has %d containers", path, len(all))
		}
		if !slices.Equal(all[0].Command, command) {
			t.Errorf("%s runs %q, want %q", path, all[0].Command, command)
		}
		cmd, args, err := rootCommand().Find(append(slices.Clone(all[0].Command[1:]), all[0].Args...))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if left := cmd.Flags().Args(); len(left) > 0 {
			t.Errorf("%s: %q are no flags", path, left)
		}
	}
}

// What is not on a loopback address is served to those alone whom the API server knows and allows.
func TestProbesAreServedOnLoopbackOnly(t *testing.T) {
	for _, path := range []string{"../../config/manager/deployment.yaml", "../../config/agent/daemonset.yaml"} {
		for _, c := range containers(t, path) {
			i := slices.IndexFunc(c.Args, func(arg string) bool { return strings.HasPrefix(arg, "--health-probe-bind-address=") })
			if i < 0 || !strings.HasPrefix(c.Args[i], "--health-probe-bind-address=127.0.0.1:") {
				t.Errorf("%s: %q", path, c.Args)
			}
			for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
				if probe.HTTPGet.Host != "127.0.0.1" {
					t.Errorf("%s: a probe asks %q, and the program answers on 127.0.0.1", path, probe.HTTPGet.Host)
				}
			}
		}
	}
	if flag := rootCommand().Flags().Lookup("health-probe-bind-address"); flag.DefValue != "127.0.0.1:8081" {
		t.Errorf("without the flag probes are served on %s", flag.DefValue)
	}
}

func TestAgentHasNoMoreOfItsNodeThanItNeeds(t *testing.T) {
	for _, pod := range pods(t, "../../config/agent/daemonset.yaml") {
		for _, c := range pod.Containers {
			if s := c.SecurityContext; s.Privileged != nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("privileged: %v, without %v", s.Privileged, s.Capabilities.Drop)
			}
		}
		for _, v := range pod.Volumes {
			if v.HostPath != nil && slices.Contains([]string{"/", "/run", "/var/run", "/proc", "/etc", "/dev"}, v.HostPath.Path) {
				t.Errorf("the agent has all of the node's %s", v.HostPath.Path)
			}
		}
	}
}

func TestUsersAreToldThePrefixOfPodLinks(t *testing.T) {
	for _, path := range []string{"../../charts/podnet/templates/NOTES.txt", "../../docs/install.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		told := regexp.MustCompile(`interfaceNamePrefix: (\w+)`).FindSubmatch(text)
		if len(told) != 2 || string(told[1]) != model.PodLinkPrefix {
			t.Errorf("%s says %q, and the prefix is %s", path, told, model.PodLinkPrefix)
		}
	}
}
