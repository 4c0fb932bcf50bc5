// Package hack holds what the scripts of this folder are tested by.
package hack

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a script prints for people to run next must be about the cluster that it was about itself.
func TestPrintedCommandsNameTheCluster(t *testing.T) {
	for name, want := range map[string]string{
		"podnet":       "start it with: hack/cluster/cluster up\n",
		"nowhere-here": "start it with: CLUSTER_NAME=nowhere-here hack/cluster/cluster up\n",
	} {
		if _, err := os.Stat("../.cluster/pids"); name == "podnet" && err == nil {
			continue // It may be up.
		}
		command := exec.Command("cluster/cluster", "shell")
		command.Env = append(os.Environ(), "CLUSTER_NAME="+name)
		output, err := command.CombinedOutput()
		if err == nil || !strings.HasSuffix(string(output), want) {
			t.Errorf("with the name %s: %v: %q does not end in %q", name, err, output, want)
		}
	}

	scripts, err := filepath.Glob("*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatal(err, scripts)
	}
	target := regexp.MustCompile(`(\S*)make cluster-(up|down|shell)`)
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range target.FindAllStringSubmatch(string(text), -1) {
			if found[1] != "${as}" {
				t.Errorf("%s prints %q, which is about the cluster of the usual name whatever CLUSTER_NAME is", script, found[0])
			}
		}
	}
}
