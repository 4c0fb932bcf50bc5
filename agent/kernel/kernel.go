// Package kernel reads what podnet made of a node's kernel (Observe), changes it
// by operations (Execute), gives pods their links (Attach, Detach) and reads which links,
// addresses and routes there are besides (View). It takes podnet off the node again
// (Remove).
//
// It works on the network namespace of the calling thread, step by step, and
// keeps no picture of the kernel in memory: what is podnet's own is known by its
// marks (see internal/model), so that a restarted agent finds it again. What the
// kernel shall be is left to internal/plan, and the order of changes to
// agent/diff.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Tables reads and writes podnet's own table, in all families (see nft.Writer of agent/nft).
type Tables interface {
	Read(ctx context.Context) ([]nft.Table, error)
	Do(ctx context.Context, step nft.Step) error
}

// NFT is nftables beside that table (see nft.Conn of agent/nft).
type NFT interface {
	// Noted returns the keys of the elements that rules have added to a set.
	Noted(ctx context.Context, family nft.Family, table, set string) ([][]string, error)
	// Notices subscribes to changes of the tables of a name, and returns what reports them until
	// that fails or stop is called. missed is called when some were lost.
	Notices(name string, seen func(nft.Notice), missed func()) (receive func() error, stop func(), err error)
	// Remove removes the tables of a name.
	Remove(ctx context.Context, name string) error
}

// Config is what a Kernel works with.
type Config struct {
	// StateDir is a folder, made when needed, that lives as long as the kernel
	// does, such as /run/podnet: the values that sysctls had before podnet changed
	// them are kept there.
	StateDir string
	Tables   Tables
	NFT      NFT
}

// Kernel is the network part of the kernel, as seen from the calling thread. Its
// methods may be called concurrently; that two of them do not undo each other's
// changes is up to the caller.
type Kernel struct {
	tables Tables
	nft    NFT

	// mu guards the file of previous values.
	mu           sync.Mutex
	previousFile string
}

// New returns a Kernel.
func New(cfg Config) (*Kernel, error) {
	if cfg.StateDir == "" {
		return nil, errors.New("no folder given for the previous values of sysctls")
	}
	if cfg.NFT == nil || cfg.Tables == nil {
		return nil, errors.New("no nftables given")
	}
	return &Kernel{tables: cfg.Tables, nft: cfg.NFT, previousFile: filepath.Join(cfg.StateDir, "sysctls.json")}, nil
}

// moduleMissing is the error where the kernel cannot make a device for want of a module, whose
// name is as modprobe takes it.
func moduleMissing(module string, err error) error {
	return fmt.Errorf("the kernel has no %s devices: load its module (modprobe %s) or use a kernel that has it: %w", module, module, err)
}

// isOwn reports whether a link's alias marks it as made by podnet.
func isOwn(alias string) bool {
	return alias == model.LinkAlias || isPodAlias(alias)
}

// isPodAlias reports whether a link's alias marks it as the host end of a pod's link.
func isPodAlias(alias string) bool {
	return strings.HasPrefix(alias, model.LinkAlias+" ")
}

// podAlias is the alias of a pod's link.
func podAlias(pod model.Pod) string {
	return fmt.Sprintf("%s %s/%s", model.LinkAlias, pod.ContainerID, pod.IfName)
}
