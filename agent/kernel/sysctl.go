package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/podnet/podnet/internal/model"
)

// sysctlRoots are where the kernel may show its parameters, in the order in which
// they are tried: those below net are the ones of the reading thread's network
// namespace (net/sysctl_net.c, net_ctl_header_lookup). Runtimes let no container write
// below /proc/sys that is not privileged, so the agent's has the node's in /host.
var sysctlRoots = []string{"/host/proc/sys", "/proc/sys"}

// sysctlFile returns the file of a parameter.
var sysctlFile = func() func(key string) string {
	root := sync.OnceValue(func() string { return firstWithNet(sysctlRoots) })
	return func(key string) string { return filepath.Join(root(), key) }
}()

// firstWithNet returns the first folder that shows parameters of the network, and the
// last one where none does.
func firstWithNet(roots []string) string {
	for _, root := range roots {
		if info, err := os.Stat(filepath.Join(root, "net")); err == nil && info.IsDir() {
			return root
		}
	}
	return roots[len(roots)-1]
}

// ipv6Conf is the key of an interface's IPv6 parameter.
func ipv6Conf(link, name string) string { return "net/ipv6/conf/" + link + "/" + name }

// ipv4Conf is the key of an interface's IPv4 parameter.
func ipv4Conf(link, name string) string { return "net/ipv4/conf/" + link + "/" + name }

// ReadSysctl returns a parameter's value, its fields parted by single spaces, and
// whether the kernel has it.
func ReadSysctl(key string) (string, bool, error) {
	text, err := os.ReadFile(sysctlFile(key))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return strings.Join(strings.Fields(string(text)), " "), true, nil
}

var sysctlKind = kind{
	of: model.KindSysctl,
	find: func(_ context.Context, _ *Kernel, _ *pass, want model.State, have *model.State) (err error) {
		have.Sysctls, err = readSysctls(want.Sysctls)
		return err
	},
	put: func(ctx context.Context, k *Kernel, p *pass, o model.Object) error {
		return by(k.putSysctl)(ctx, k, p, o)
	},
}

// readSysctls returns the values of those parameters in want that the kernel has.
func readSysctls(want []model.Sysctl) ([]model.Sysctl, error) {
	var have []model.Sysctl
	for _, s := range want {
		value, there, err := ReadSysctl(s.Key)
		if err != nil {
			return nil, err
		}
		if there {
			have = append(have, model.Sysctl{Key: s.Key, Value: value})
		}
	}
	return have, nil
}

func writeSysctl(key, value string) error {
	// The file is not created where it is missing: procfs has no such operation.
	f, err := os.OpenFile(sysctlFile(key), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write sysctl %s: %w", key, err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// writeIfThere writes a parameter and is content where the kernel has none of that name.
func writeIfThere(key, value string) error {
	if err := writeSysctl(key, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// putSysctl writes a parameter, after noting the value that it had before podnet
// first changed it. Parameters of podnet's own links go with these.
func (k *Kernel) putSysctl(p *pass, want model.Sysctl) error {
	value, there, err := ReadSysctl(want.Key)
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("the kernel has no sysctl %s", want.Key)
	}
	if value == want.Value {
		return nil
	}
	own, err := p.onOwnLink(want.Key)
	if err != nil {
		return err
	}
	if !own {
		if err := k.notePrevious(want.Key, value); err != nil {
			return err
		}
	}
	return writeSysctl(want.Key, want.Value)
}

// onOwnLink reports whether a parameter is one of a link that podnet made: its key is
// net/FAMILY/conf/LINK/NAME, or the same with neigh.
func (p *pass) onOwnLink(key string) (bool, error) {
	steps := strings.Split(key, "/")
	if len(steps) != 5 || steps[2] != "conf" && steps[2] != "neigh" || steps[3] == "all" || steps[3] == "default" {
		return false, nil
	}
	l, err := p.link(steps[3])
	if err != nil || l == nil {
		return false, err
	}
	return isOwn(l.Attrs().Alias), nil
}

func (k *Kernel) notePrevious(key, value string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	previous, err := k.readPrevious()
	if err != nil {
		return err
	}
	if _, noted := previous[key]; noted {
		return nil
	}
	previous[key] = value
	return k.writePrevious(previous)
}

// Previous returns the values that sysctls had before podnet changed them.
func (k *Kernel) Previous() (map[string]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.readPrevious()
}

// maxPrevious is the size in bytes of the largest file of former values that makes sense.
const maxPrevious = 1 << 20

// readPrevious returns the values that parameters had before podnet changed them. A
// file of them that makes no sense is set aside, which is told as a finding: what
// they were is unknown then.
func (k *Kernel) readPrevious() (map[string]string, error) {
	f, err := os.Open(k.previousFile)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read previous values of sysctls: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPrevious))
	if err != nil {
		return nil, fmt.Errorf("read previous values of sysctls: %w", err)
	}
	if previous, ok := parsePrevious(text); ok {
		return previous, nil
	}
	if err := os.Rename(k.previousFile, k.previousFile+model.DamagedSuffix); err != nil {
		return nil, fmt.Errorf("set previous values of sysctls aside that cannot be read: %w", err)
	}
	return map[string]string{}, nil
}

// parsePrevious reads former values, and reports whether they are what podnet writes.
func parsePrevious(text []byte) (map[string]string, bool) {
	var previous map[string]string
	if err := json.Unmarshal(text, &previous); err != nil || previous == nil {
		return nil, false
	}
	for key := range previous {
		if !filepath.IsLocal(key) || !strings.HasPrefix(key, "net/") || filepath.Clean(key) != key {
			return nil, false
		}
	}
	return previous, true
}

func (k *Kernel) writePrevious(previous map[string]string) error {
	text, err := json.MarshalIndent(previous, "", "  ")
	if err != nil {
		return fmt.Errorf("note previous values of sysctls: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(k.previousFile), 0o700); err != nil {
		return fmt.Errorf("note previous values of sysctls: %w", err)
	}
	next := k.previousFile + ".new"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("note previous values of sysctls: %w", err)
	}
	if err := os.Rename(next, k.previousFile); err != nil {
		return fmt.Errorf("note previous values of sysctls: %w", err)
	}
	return nil
}

// restoreSysctls gives parameters back the values that they had before podnet
// changed them, and forgets these.
func (k *Kernel) restoreSysctls() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	previous, err := k.readPrevious()
	if err != nil {
		return err
	}
	keys := slices.SortedFunc(maps.Keys(previous), restoreOrder)
	var errs []error
	for _, key := range keys {
		// An interface that is gone has taken its parameters along.
		errs = append(errs, writeIfThere(key, previous[key]))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(k.previousFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget previous values of sysctls: %w", err)
	}
	return nil
}

// restoreOrder puts forwarding first: changing it changes other parameters
// (net/ipv4/devinet.c, inet_forward_change; net/ipv6/addrconf.c,
// addrconf_forward_change).
func restoreOrder(a, b string) int {
	forwarding := func(key string) int {
		if strings.HasSuffix(key, "forward") || strings.HasSuffix(key, "forwarding") {
			return 0
		}
		return 1
	}
	if d := forwarding(a) - forwarding(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// HasIPv6 reports whether the kernel has IPv6 and it is not turned off.
func HasIPv6() bool {
	value, there, err := ReadSysctl(ipv6Conf("all", "disable_ipv6"))
	return err == nil && there && value == "0"
}
