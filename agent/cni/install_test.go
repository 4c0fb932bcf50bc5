package cni

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
)

func installFolders(t *testing.T) InstallConfig {
	t.Helper()
	dir := t.TempDir()
	config := InstallConfig{
		SourceDir: filepath.Join(dir, "image"), BinDir: dir + "/opt/cni/bin",
		ConfDir: dir + "/etc/cni/net.d", Socket: "/run/podnet/cni.sock",
	}
	for path, content := range map[string]string{
		filepath.Join(config.SourceDir, "podnet-cni"):  "podnet-cni 1",
		filepath.Join(config.SourceDir, "loopback"):    "loopback 1",
		filepath.Join(config.SourceDir, "bandwidth"):   "bandwidth 1",
		filepath.Join(config.BinDir, "bandwidth"):      "the distribution's",
		filepath.Join(config.ConfDir, "10-other.conf"): `{"name": "other"}`,
		// An agent ended while it wrote these.
		filepath.Join(config.BinDir, temporaryPrefix+"1"):  "podnet-c",
		filepath.Join(config.ConfDir, temporaryPrefix+"2"): "{",
	} {
		writeFile(t, path, content)
	}
	return config
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contents returns the files of a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(content)
	}
	return files
}

func TestInstallPutsBinariesAndConfigurationInPlace(t *testing.T) {
	config := installFolders(t)
	if err := Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"podnet-cni": "podnet-cni 1", "podnet-bandwidth": "bandwidth 1", "bandwidth": "the distribution's",
		"podnet-loopback": "loopback 1", "loopback": "loopback 1",
	}
	if got := contents(t, config.BinDir); !reflect.DeepEqual(got, want) {
		t.Errorf("binaries: %v", got)
	}
	for path, mode := range map[string]os.FileMode{
		filepath.Join(config.BinDir, "podnet-cni"):          0o755,
		filepath.Join(config.BinDir, "podnet-bandwidth"):    0o755,
		filepath.Join(config.ConfDir, "05-podnet.conflist"): 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	// The runtime takes the first file.
	files, err := libcni.ConfFiles(config.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) != 2 || filepath.Base(files[0]) != "05-podnet.conflist" {
		t.Errorf("configurations: %v, %v", files, err)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if list.Name != "podnet" || list.CNIVersion != "1.1.0" || len(list.Plugins) != 1 ||
		!list.Plugins[0].Network.Capabilities["portMappings"] || !list.Plugins[0].Network.Capabilities["bandwidth"] {
		t.Errorf("network %s of version %s: %s", list.Name, list.CNIVersion, list.Bytes)
	}
}

func TestInstallLeavesWhatIsThereAlone(t *testing.T) {
	config := installFolders(t)
	if err := Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	times := func() map[string]bool {
		changed := map[string]bool{}
		for _, path := range []string{config.BinDir + "/podnet-cni", config.BinDir + "/podnet-bandwidth", config.ConfDir + "/05-podnet.conflist"} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.ModTime().After(past.Add(time.Minute)) {
				changed[filepath.Base(path)] = true
			}
			if err := os.Chtimes(path, past, past); err != nil {
				t.Fatal(err)
			}
		}
		return changed
	}
	times()
	if err := Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if changed := times(); len(changed) != 0 {
		t.Errorf("wrote %v again", changed)
	}
	writeFile(t, filepath.Join(config.SourceDir, "podnet-cni"), "podnet-cni 2")
	if err := Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if changed := times(); !reflect.DeepEqual(changed, map[string]bool{"podnet-cni": true}) {
		t.Errorf("wrote %v", changed)
	}
	config.Socket = "/run/other.sock"
	if err := Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if changed := times(); !reflect.DeepEqual(changed, map[string]bool{"05-podnet.conflist": true}) {
		t.Errorf("wrote %v", changed)
	}
}

func TestNoConfigurationWithoutBinaries(t *testing.T) {
	config := installFolders(t)
	if err := os.Remove(filepath.Join(config.SourceDir, "bandwidth")); err != nil {
		t.Fatal(err)
	}
	if err := Install(t.Context(), config); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(config.ConfDir, "05-podnet.conflist")); !os.IsNotExist(err) {
		t.Errorf("the configuration is there: %v", err)
	}
	config.SourceDir = ""
	if err := Install(t.Context(), config); err == nil {
		t.Error("no error without a source")
	}
}

func TestUninstallLeavesWhatOthersPutThere(t *testing.T) {
	config := installFolders(t)
	if err := Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Uninstall(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	if got := contents(t, config.BinDir); !reflect.DeepEqual(got, map[string]string{"bandwidth": "the distribution's"}) {
		t.Errorf("binaries: %v", got)
	}
	if got := contents(t, config.ConfDir); !reflect.DeepEqual(got, map[string]string{"10-other.conf": `{"name": "other"}`}) {
		t.Errorf("configurations: %v", got)
	}
}

func TestLoopbackOfTheDistributionStays(t *testing.T) {
	config := installFolders(t)
	writeFile(t, filepath.Join(config.BinDir, "loopback"), "the distribution's")
	for range 2 {
		if err := Install(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, config.BinDir)["loopback"]; got != "the distribution's" {
			t.Errorf("after the installation: %q", got)
		}
	}
	if err := Uninstall(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"bandwidth": "the distribution's", "loopback": "the distribution's"}
	if got := contents(t, config.BinDir); !reflect.DeepEqual(got, want) {
		t.Errorf("after the removal: %v", got)
	}
}
