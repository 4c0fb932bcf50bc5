package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes a file for an image to contain.
func write(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns the members of a tar stream by name, and their headers.
func read(t *testing.T, stream []byte) (content map[string]string, headers map[string]*tar.Header) {
	t.Helper()
	content, headers = map[string]string{}, map[string]*tar.Header{}
	for archive := tar.NewReader(bytes.NewReader(stream)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return content, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		content[header.Name], headers[header.Name] = string(data), header
	}
}

func TestSameInputsGiveSameBytes(t *testing.T) {
	folder := t.TempDir()
	one := write(t, filepath.Join(folder, "one"), "1", 0o600)
	two := write(t, filepath.Join(folder, "two"), "2", 0o755)
	arguments := [][]string{
		{"-file", one + ":/etc/one", "-file", two + ":/bin/two", "-dir", "/tmp:1777", "-link", "two:/bin/zwei"},
		{"-link", "two:/bin/zwei", "-dir", "/tmp:1777", "-file", two + ":/bin/two", "-file", one + ":/etc/one"},
	}
	var archives [][]byte
	for i, given := range arguments {
		out := filepath.Join(folder, "image.tar")
		// Neither the order of the flags nor the age of the files is to be seen.
		later := time.Now().Add(time.Duration(i) * time.Hour)
		if err := os.Chtimes(one, later, later); err != nil {
			t.Fatal(err)
		}
		if err := run(append([]string{"-o", out, "-tag", "example.org/app:v1"}, given...)); err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same image differ")
	}
}

func TestArchiveHoldsLayerAndConfiguration(t *testing.T) {
	folder := t.TempDir()
	app := write(t, filepath.Join(folder, "app"), "program", 0o700)
	out := filepath.Join(folder, "new", "image.tar")
	err := run([]string{
		"-o", out, "-tag", "example.org/app:v1", "-tag", "example.org/app:latest", "-file", app + ":/opt/app/run",
		"-entrypoint", "/opt/app/run", "-cmd", "serve", "-user", "65532:65532", "-link", "/opt/app/run:/app",
	})
	if err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	members, _ := read(t, archive)
	var manifests []manifest
	if err := json.Unmarshal([]byte(members["manifest.json"]), &manifests); err != nil {
		t.Fatal(err)
	}
	if want := []string{"example.org/app:v1", "example.org/app:latest"}; !slices.Equal(manifests[0].RepoTags, want) {
		t.Errorf("tags are %v, want %v", manifests[0].RepoTags, want)
	}
	var config imageConfig
	if err := json.Unmarshal([]byte(members[manifests[0].Config]), &config); err != nil {
		t.Fatal(err)
	}
	if c := config.Config; !slices.Equal(c.Entrypoint, []string{"/opt/app/run"}) ||
		!slices.Equal(c.Cmd, []string{"serve"}) || c.User != "65532:65532" {
		t.Errorf("configuration is %+v", c)
	}

	content, headers := read(t, []byte(members[manifests[0].Layers[0]]))
	want := []string{"app", "opt/", "opt/app/", "opt/app/run"}
	if got := slices.Sorted(maps.Keys(content)); !slices.Equal(got, want) {
		t.Errorf("layer holds %v, want %v", got, want)
	}
	if run := headers["opt/app/run"]; content["opt/app/run"] != "program" || run.Mode != 0o755 || run.Uid != 0 {
		t.Errorf("program is %q with header %+v", content["opt/app/run"], run)
	}
	if link := headers["app"]; link.Typeflag != tar.TypeSymlink || link.Linkname != "/opt/app/run" {
		t.Errorf("link is %+v", link)
	}
}

func TestWrongInputsAreRefused(t *testing.T) {
	folder := t.TempDir()
	one := write(t, filepath.Join(folder, "one"), "1", 0o600)
	two := write(t, filepath.Join(folder, "two"), "2", 0o600)
	for _, test := range []struct {
		name, want string
		arguments  []string
	}{
		{"file without destination", "SOURCE:/DESTINATION", []string{"-file", one}},
		{"relative destination", "not an absolute path", []string{"-file", one + ":etc/one"}},
		{"missing file", "no such file", []string{"-file", folder + "/none:/none"}},
		{"directory as a file", "not a regular file", []string{"-file", folder + ":/folder"}},
		{"two files at one path", "twice", []string{"-file", one + ":/a", "-file", two + ":/a"}},
		{"mode that is not octal", "not octal", []string{"-dir", "/tmp:9"}},
		{"stray word", "unexpected argument", []string{"word"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := filepath.Join(folder, "image.tar")
			err := run(append([]string{"-o", out, "-tag", "example.org/app:v1"}, test.arguments...))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an archive was written all the same")
			}
		})
	}
}

func TestLibraryOfLineOfLdd(t *testing.T) {
	for line, want := range map[string]string{
		"\tlinux-vdso.so.1 (0x00007ffd)":                            "",
		"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)": "/lib/x86_64-linux-gnu/libc.so.6",
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f)":                  "/lib64/ld-linux-x86-64.so.2",
		"\tstatically linked":                                       "",
	} {
		got, err := libraryOf(line)
		if err != nil || got != want {
			t.Errorf("libraryOf(%q) = %q, %v, want %q", line, got, err, want)
		}
	}
	if _, err := libraryOf("\tlibgone.so.1 => not found"); err == nil {
		t.Error("a library that is not found is no error")
	}
}
