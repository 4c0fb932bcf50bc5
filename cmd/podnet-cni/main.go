// Command podnet-cni is the CNI plugin that container runtimes execute. It hands
// each request to podnet's agent on the node, over a Unix socket, and prints the
// answer, and nothing else, on stdout.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

func main() {
	os.Exit(run())
}

func run() int {
	p := plugin{}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    p.add,
		Del:    p.del,
		Check:  p.check,
		GC:     p.gc,
		Status: p.status,
	}, version.VersionsStartingFrom("0.3.1"), "CNI plugin podnet-cni: hands requests to podnet's agent")
	if err == nil {
		return 0
	}
	// The specification has errors on stdout too. Whether this can be printed or
	// not, the exit status says that there is one.
	_ = err.Print()
	return 1
}
