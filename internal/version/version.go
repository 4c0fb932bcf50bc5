// Package version says which podnet this is. It leaves to the linker, or to what
// the Go tool writes into a binary, to know it.
package version

import "runtime/debug"

// Version is the version of podnet. A release sets it by
// -ldflags "-X github.com/podnet/podnet/internal/version.Version=v1.2.3".
var Version string

// development is the version of a binary that was built from a working tree.
const development = "v0.1.0-dev"

// The linker sets only variables that the program does not initialise, hence this function.
func init() {
	if Version == "" {
		Version = fromBuild()
	}
}

// fromBuild is the version that the Go tool wrote into the binary.
func fromBuild() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return development
	}
	return info.Main.Version
}
