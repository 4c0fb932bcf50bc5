package hack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A path or a target that a workflow names and that does not exist shows only when a release is tagged.
func TestWhatAReleaseNamesExists(t *testing.T) {
	makefile := read(t, "../Makefile")
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	files = append(files, "../Makefile", "release.sh", "release-check.sh", "make-image.sh", "../Dockerfile", "../CONTRIBUTING.md", "../docs/releasing.md")
	path := regexp.MustCompile(`(?:^|[\s"'=(:])(?:\./)?((?:cmd|hack|charts|config|docs|test|internal|agent|api|controllers|\.ci)/[A-Za-z0-9_./-]*[A-Za-z0-9_])`)
	target := regexp.MustCompile("(?m)(?:^|`|run: )make ([a-z][a-z-]*)")
	placeholder := regexp.MustCompile(`[A-Z]{4}`)
	found := 0
	for _, file := range files {
		text := read(t, file)
		for _, match := range path.FindAllStringSubmatch(text, -1) {
			if placeholder.MatchString(match[1]) && strings.HasSuffix(file, ".md") {
				continue
			}
			found++
			if _, err := os.Stat(filepath.Join("..", match[1])); err != nil {
				t.Errorf("%s names %s, which does not exist", file, match[1])
			}
		}
		if strings.HasSuffix(file, ".md") || strings.HasSuffix(file, ".yml") {
			for _, match := range target.FindAllStringSubmatch(text, -1) {
				if !strings.Contains(makefile, "\n"+match[1]+":") {
					t.Errorf("%s names make %s, and the Makefile has no such target", file, match[1])
				}
			}
		}
		if filepath.Base(file) == "Dockerfile" {
			found += copied(t, text)
		}
	}
	if found < 20 {
		t.Errorf("only %d paths were found: the pattern no longer finds them", found)
	}
}

// copied looks for what the Dockerfile copies out of the tree, and returns how much that is.
func copied(t *testing.T, dockerfile string) int {
	t.Helper()
	found := 0
	for line := range strings.Lines(dockerfile) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != "COPY" || strings.HasPrefix(fields[1], "--from=") {
			continue
		}
		for _, source := range fields[1 : len(fields)-1] {
			found++
			if _, err := os.Stat(filepath.Join("..", source)); err != nil {
				t.Errorf("the Dockerfile copies %s, which does not exist", source)
			}
		}
	}
	return found
}

// Each command is in the image, or built beside it.
func TestTheDockerfileAndMakeImageBuildTheSame(t *testing.T) {
	build := regexp.MustCompile(`\./cmd/[a-z-]+|github\.com/containernetworking/plugins/plugins/[a-z/]+`)
	docker, script := build.FindAllString(read(t, "../Dockerfile"), -1), build.FindAllString(read(t, "make-image.sh"), -1)
	if strings.Join(docker, " ") != strings.Join(script, " ") || len(docker) == 0 {
		t.Errorf("the Dockerfile builds %q, and make-image.sh %q", docker, script)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
