package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"sort"
	"strconv"
	"strings"
)

// entry is one member of the layer: a directory, a link (when target is set) or a file (when source is set).
type entry struct {
	mode   int64
	source string
	target string
}

// layer maps absolute, clean paths in the image to what is there.
type layer struct {
	entries map[string]entry
}

func newLayer() *layer { return &layer{entries: map[string]entry{}} }

// add puts an entry at a path, and the directories above it that nothing else has put there.
func (l *layer) add(at string, e entry) error {
	if !path.IsAbs(at) {
		return fmt.Errorf("%q is not an absolute path in the image", at)
	}
	at = path.Clean(at)
	if old, taken := l.entries[at]; taken && old.source != "" && old != e {
		return fmt.Errorf("%s is put there twice, with different content", at)
	}
	l.entries[at] = e
	for dir := path.Dir(at); dir != "/"; dir = path.Dir(dir) {
		if _, taken := l.entries[dir]; !taken {
			l.entries[dir] = entry{mode: 0o755}
		}
	}
	return nil
}

// addDir takes "/path" or "/path:1777".
func (l *layer) addDir(spec string) error {
	at, octal, found := strings.Cut(spec, ":")
	mode := int64(0o755)
	if found {
		parsed, err := strconv.ParseInt(octal, 8, 64)
		if err != nil {
			return fmt.Errorf("mode %q is not octal", octal)
		}
		mode = parsed
	}
	return l.add(at, entry{mode: mode})
}

func (l *layer) addLink(target, at string) error {
	return l.add(at, entry{mode: 0o777, target: target})
}

// addFile follows symbolic links of the source. Of its mode only the executable bit counts, as the rest is the
// business of whoever checked it out.
func (l *layer) addFile(source, at string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", source)
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return l.add(at, entry{mode: mode, source: source})
}

// addLibraries adds the shared libraries of a program at the paths where the dynamic linker looks for them, which ldd
// prints. A static program has none.
func (l *layer) addLibraries(program string) error {
	// ldd reports a static program by failing with a message, in the language of the user's locale.
	ldd := exec.Command("ldd", program)
	ldd.Env = append(os.Environ(), "LC_ALL=C")
	output, err := ldd.CombinedOutput()
	if err != nil {
		if bytes.Contains(output, []byte("not a dynamic executable")) {
			return nil
		}
		return fmt.Errorf("ldd: %w: %s", err, bytes.TrimSpace(output))
	}
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		library, err := libraryOf(lines.Text())
		if err != nil {
			return err
		}
		if library == "" {
			continue
		}
		if err := l.addFile(library, library); err != nil {
			return err
		}
	}
	return lines.Err()
}

// libraryOf reads a line of ldd: "libm.so.6 => /lib/libm.so.6 (0x…)", "/lib64/ld-linux.so.2 (0x…)", or one without a
// file such as the kernel's vDSO.
func libraryOf(line string) (string, error) {
	if strings.Contains(line, "not found") {
		return "", errors.New(strings.TrimSpace(line))
	}
	for _, field := range strings.Fields(line) {
		if path.IsAbs(field) {
			return field, nil
		}
	}
	return "", nil
}

// writeTo writes the layer as a tar stream in the order of the paths.
func (l *layer) writeTo(w io.Writer) error {
	paths := make([]string, 0, len(l.entries))
	for at := range l.entries {
		paths = append(paths, at)
	}
	sort.Strings(paths)
	archive := tar.NewWriter(w)
	for _, at := range paths {
		if err := writeEntry(archive, at, l.entries[at]); err != nil {
			return fmt.Errorf("writing %s: %w", at, err)
		}
	}
	return archive.Close()
}

func writeEntry(archive *tar.Writer, at string, e entry) error {
	header := &tar.Header{Name: strings.TrimPrefix(at, "/"), Mode: e.mode, ModTime: epoch}
	switch {
	case e.target != "":
		header.Typeflag = tar.TypeSymlink
		header.Linkname = e.target
		return archive.WriteHeader(header)
	case e.source == "":
		header.Typeflag = tar.TypeDir
		header.Name += "/"
		return archive.WriteHeader(header)
	}
	file, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Typeflag = tar.TypeReg
	header.Size = info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}
