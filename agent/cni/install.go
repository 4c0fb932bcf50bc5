package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/cni/protocol"
)

// The folders in which runtimes look for CNI configurations and binaries.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

const (
	// networkName is the network's name in the configuration.
	networkName = "podnet"
	// ConflistName is the name of podnet's CNI configuration. It sorts before the names that other networks use: runtimes take
	// the first file.
	ConflistName = "05-podnet.conflist"
	conflistMode = 0o600

	pluginName = "podnet-cni"
	// bandwidthName is the name under which the plugin bandwidth is installed. Many
	// nodes have one named bandwidth, of their distribution's kubernetes-cni, which
	// is not podnet's to replace, and which may not know CNI 1.1. podnet-cni executes it for
	// pods that have limits.
	bandwidthName = "podnet-bandwidth"
	// loopbackName is the plugin that containerd executes to set up lo, whatever the
	// network. A node that has none gets a symbolic link of that name to podnet's
	// own, by which it is known to be podnet's.
	loopbackName       = "loopback"
	podnetLoopbackName = "podnet-loopback"
	binaryMode         = 0o755
)

// binaries maps the names in the image to those on the node.
var binaries = []struct{ source, target string }{
	{pluginName, pluginName},
	{"bandwidth", bandwidthName},
	{loopbackName, podnetLoopbackName},
}

// InstallConfig says what is put where. Empty fields have their defaults.
type InstallConfig struct {
	// SourceDir is the folder of the image with podnet-cni, bandwidth and loopback.
	// It has no default.
	SourceDir string
	// BinDir and ConfDir are the node's folders of CNI binaries and
	// configurations; DefaultBinDir and DefaultConfDir by default.
	BinDir  string
	ConfDir string
	// Socket is the path of the agent's socket on the node;
	// protocol.DefaultSocket by default.
	Socket string
}

func (c *InstallConfig) setDefaults() {
	for field, value := range map[*string]string{
		&c.BinDir:  DefaultBinDir,
		&c.ConfDir: DefaultConfDir,
		&c.Socket:  protocol.DefaultSocket,
	} {
		if *field == "" {
			*field = value
		}
	}
}

// Install puts the CNI binaries, then the configuration in place, so that the
// runtime sends pods. It is for an agent that can serve, and may be repeated:
// what is there already is not written again.
func Install(ctx context.Context, config InstallConfig) error {
	config.setDefaults()
	if config.SourceDir == "" {
		return errors.New("install the CNI plugin: no folder to copy it from was given")
	}
	for _, dir := range []string{config.BinDir, config.ConfDir} {
		if err := prepareFolder(dir); err != nil {
			return fmt.Errorf("install the CNI plugin: %w", err)
		}
	}
	for _, binary := range binaries {
		content, err := os.ReadFile(filepath.Join(config.SourceDir, binary.source))
		if err != nil {
			return fmt.Errorf("install the CNI plugin: %w", err)
		}
		if err := ensureFile(ctx, filepath.Join(config.BinDir, binary.target), content, binaryMode); err != nil {
			return fmt.Errorf("install the CNI plugin: %w", err)
		}
	}
	if err := linkLoopback(ctx, config.BinDir); err != nil {
		return fmt.Errorf("install the CNI plugin: %w", err)
	}
	conflist, err := conflist(config.Socket)
	if err != nil {
		return fmt.Errorf("install the CNI configuration: %w", err)
	}
	if err := ensureFile(ctx, filepath.Join(config.ConfDir, ConflistName), conflist, conflistMode); err != nil {
		return fmt.Errorf("install the CNI configuration: %w", err)
	}
	return nil
}

// Uninstall removes what Install put in place, and nothing else: first the
// configuration, so that the runtime sends no more pods.
func Uninstall(ctx context.Context, config InstallConfig) error {
	config.setDefaults()
	paths := []string{filepath.Join(config.ConfDir, ConflistName)}
	loopback := filepath.Join(config.BinDir, loopbackName)
	if target, err := os.Readlink(loopback); err == nil && target == podnetLoopbackName {
		paths = append(paths, loopback)
	}
	for _, binary := range binaries {
		paths = append(paths, filepath.Join(config.BinDir, binary.target))
	}
	for _, path := range paths {
		if err := (osDisk{}).remove(path); err != nil {
			return fmt.Errorf("uninstall the CNI plugin: %w", err)
		}
		log.FromContext(ctx).Info("removed", "file", path)
	}
	return nil
}

// linkLoopback gives the node a plugin named loopback unless it has one.
func linkLoopback(ctx context.Context, binDir string) error {
	path := filepath.Join(binDir, loopbackName)
	err := os.Symlink(podnetLoopbackName, path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	log.FromContext(ctx).Info("installed", "file", path)
	return syncFolder(binDir)
}

// conflist returns the network configuration. It names 1.0.0 as cniVersion for
// runtimes whose libcni is older than 1.2 (containerd 1.7), which know neither
// 1.1.0 nor cniVersions; the others take the highest version of both.
func conflist(socket string) ([]byte, error) {
	type plugin struct {
		Type         string          `json:"type"`
		Socket       string          `json:"socket,omitempty"`
		Capabilities map[string]bool `json:"capabilities"`
	}
	content, err := json.MarshalIndent(struct {
		CNIVersion  string   `json:"cniVersion"`
		CNIVersions []string `json:"cniVersions"`
		Name        string   `json:"name"`
		Plugins     []plugin `json:"plugins"`
	}{
		CNIVersion:  "1.0.0",
		CNIVersions: []string{"1.0.0", "1.1.0"},
		Name:        networkName,
		Plugins: []plugin{
			{Type: pluginName, Socket: socket, Capabilities: map[string]bool{"portMappings": true, "bandwidth": true}},
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(content, '\n'), nil
}

// prepareFolder makes a folder if need be, and removes files from it that were
// being written when an agent ended.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), temporaryPrefix) {
			if err := (osDisk{}).remove(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// ensureFile makes path hold content, and writes nothing where it does.
func ensureFile(ctx context.Context, path string, content []byte, mode fs.FileMode) error {
	found, err := os.ReadFile(path)
	if err == nil && bytes.Equal(found, content) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := (osDisk{}).write(path, content, mode); err != nil {
		return err
	}
	log.FromContext(ctx).Info("installed", "file", path)
	return nil
}
