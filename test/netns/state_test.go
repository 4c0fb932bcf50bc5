package netns

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
)

// The file of the values that parameters had before is set aside where it makes no sense:
// neither a pass nor an uninstall fails of it.
func TestDamagedFileOfFormerSysctlsIsSetAside(t *testing.T) {
	for what, content := range map[string]string{
		"empty": "", "cut off": "{", "null": "null", "a list": "[]", "a number for a value": `{"net/ipv4/ip_forward":1}`,
		"a path out of the parameters": `{"net/../../../../tmp/x":"1"}`, "another parameter": `{"kernel/core_pattern":"x"}`,
		"huge": `{"net/ipv4/ip_forward":"` + strings.Repeat("0", 2<<20) + `"}`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
			n := c.nodes[0]
			file := filepath.Join(n.stateDir, "sysctls.json")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			n.restart(t)
			// What is changed from now on is noted.
			n.Sysctl(t, "net/ipv4/conf/eth0/rp_filter", "1")
			n.sync(t)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var noted map[string]string
			if err := json.Unmarshal(text, &noted); err != nil || noted["net/ipv4/conf/eth0/rp_filter"] != "1" {
				t.Errorf("noted is %s: %v", text, err)
			}
			aside := file + model.DamagedSuffix
			if got, err := os.ReadFile(aside); err != nil || string(got) != content {
				t.Errorf("set aside are %d bytes: %v", len(got), err)
			}
			damaged := func() []model.Finding {
				var found []model.Finding
				n.Do(t, func() (err error) {
					found, err = n.host.Findings(context.Background(), host.Search{})
					return err
				})
				return slices.DeleteFunc(found, func(f model.Finding) bool { return f.Type != host.FindingDamagedState })
			}
			if found := damaged(); len(found) != 1 || !strings.Contains(found[0].Message, aside) {
				t.Errorf("found %v", found)
			}
			n.Do(t, func() error { return n.kernel.Remove(context.Background()) })
			if got := n.ReadSysctl(t, "net/ipv4/conf/eth0/rp_filter"); got != "1" {
				t.Errorf("after the removal rp_filter is %s", got)
			}
			if err := os.Remove(aside); err != nil {
				t.Fatal(err)
			}
			if found := damaged(); len(found) > 0 {
				t.Errorf("found is still %v", found)
			}
		})
	}
}
