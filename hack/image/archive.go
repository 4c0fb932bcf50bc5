package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// epoch is the time of everything in an image, so that the same inputs give the same bytes.
var epoch = time.Unix(0, 0).UTC()

// The parts of an image's configuration that this program writes, as the OCI image specification names them.
type (
	imageConfig struct {
		Created      time.Time     `json:"created"`
		Architecture string        `json:"architecture"`
		OS           string        `json:"os"`
		Config       processConfig `json:"config"`
		RootFS       rootFS        `json:"rootfs"`
	}
	processConfig struct {
		User       string   `json:"User,omitempty"`
		Env        []string `json:"Env,omitempty"`
		Entrypoint []string `json:"Entrypoint,omitempty"`
		Cmd        []string `json:"Cmd,omitempty"`
		WorkingDir string   `json:"WorkingDir,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
)

// manifest is the only element of manifest.json in a docker archive.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// writeArchive writes the image beside its destination and renames it, so that a reader never sees half an archive.
func writeArchive(o options, l *layer) (err error) {
	folder := filepath.Dir(o.out)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	blob, err := os.CreateTemp(folder, ".layer-*")
	if err != nil {
		return err
	}
	defer os.Remove(blob.Name())
	defer blob.Close()
	sum := sha256.New()
	if err := l.writeTo(io.MultiWriter(blob, sum)); err != nil {
		return err
	}
	digest := fmt.Sprintf("%x", sum.Sum(nil))

	out, err := os.CreateTemp(folder, ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := writeMembers(out, o, blob, digest); err != nil {
		return fmt.Errorf("writing %s: %w", o.out, err)
	}
	if err := out.Chmod(0o644); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), o.out)
}

func writeMembers(out io.Writer, o options, blob *os.File, digest string) error {
	env := o.env
	if len(env) == 0 {
		env = list{defaultPath}
	}
	config, err := json.Marshal(imageConfig{
		Created:      epoch,
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Config: processConfig{
			User: o.user, Env: env, Entrypoint: o.entrypoint, Cmd: o.cmd, WorkingDir: o.workdir,
		},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{"sha256:" + digest}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	layerName := digest + "/layer.tar"
	index, err := json.Marshal([]manifest{{Config: configName, RepoTags: o.tags, Layers: []string{layerName}}})
	if err != nil {
		return err
	}

	size, err := blob.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	for _, member := range []struct {
		name    string
		size    int64
		content io.Reader
	}{
		{"manifest.json", int64(len(index)), bytes.NewReader(index)},
		{configName, int64(len(config)), bytes.NewReader(config)},
		{layerName, size, blob},
	} {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: member.name, Mode: 0o644, Size: member.size, ModTime: epoch,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(archive, member.content); err != nil {
			return err
		}
	}
	return archive.Close()
}
