package hack

import (
	"errors"
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// namedPath is a path in the tree, as scripts and pages write it.
	namedPath = regexp.MustCompile(`(?:^|[\s"'=(:` + "`" + `])(?:\./)?((?:cmd|hack|charts|config|docs|test|internal|agent|api|controllers|\.ci|\.github)/[A-Za-z0-9_./-]*[A-Za-z0-9_])`)
	// goPackage is one that is built or run.
	goPackage = regexp.MustCompile(`go (?:build|run|test|vet|install)\b[^\n]*? \./([a-z][A-Za-z0-9_/-]*[a-z0-9])(?:\s|$|"|` + "`" + `)`)
	target    = regexp.MustCompile("(?m)(?:^|`|run: )make ([a-z][a-z-]*)(?: [A-Za-z_]+=|$|`| +#)")
	link      = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	// placeholder stands for what whoever reads the page puts in.
	placeholder = regexp.MustCompile(`[A-Z]{4}`)
)

// A path, a link or a target that does not exist shows only when somebody follows it, and in a workflow only when a
// release is tagged.
func TestWhatIsNamedExists(t *testing.T) {
	makefile := read(t, "../Makefile")
	found := 0
	for _, file := range thoseThatName(t) {
		text, page := read(t, file), strings.HasSuffix(file, ".md")
		exists := func(path, what string) {
			found++
			if _, err := os.Stat(path); err != nil && (!page || !placeholder.MatchString(path)) {
				t.Errorf("%s %s %s, which does not exist", file, what, path)
			}
		}
		// What was decided, or changed, then had the names of then.
		if !strings.HasPrefix(file, "../docs/adr/") && file != "../CHANGELOG.md" {
			for _, match := range namedPath.FindAllStringSubmatch(text, -1) {
				exists(filepath.Join("..", match[1]), "names")
			}
		}
		for _, match := range goPackage.FindAllStringSubmatch(text, -1) {
			found++
			if _, err := build.ImportDir(filepath.Join("..", match[1]), 0); err != nil && !isTestsOnly(err) {
				t.Errorf("%s builds ./%s: %v", file, match[1], err)
			}
		}
		if page {
			for _, match := range link.FindAllStringSubmatch(text, -1) {
				exists(filepath.Join(filepath.Dir(file), match[1]), "links to")
			}
		}
		if page || strings.HasSuffix(file, ".yml") {
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
	if found < 300 {
		t.Errorf("only %d names were found: the patterns no longer find them", found)
	}
}

// thoseThatName are the workflows, what builds and tests, and all pages.
func thoseThatName(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	files = append(files, "../Makefile", "../Dockerfile", "../.ci/run")
	for _, folder := range []string{"../docs", "../hack", "../charts"} {
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".md" {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"../*.md", "*.sh", "tools/*.sh"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	// It names what is in config, from there.
	return slices.DeleteFunc(files, func(file string) bool { return file == "deploy-manifests.sh" })
}

// isTestsOnly reports whether a folder has no Go files but tests.
func isTestsOnly(err error) bool {
	var none *build.NoGoError
	if !errors.As(err, &none) {
		return false
	}
	tests, _ := filepath.Glob(filepath.Join(none.Dir, "*_test.go"))
	return len(tests) > 0
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
