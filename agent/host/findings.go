package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/internal/model"
)

// The types of findings.
const (
	// FindingForwardDrop: forwarded packets of pods are dropped, by the rule or the policy that the message names.
	FindingForwardDrop = "ForwardDrop"
	// FindingIPTablesLegacy: tables of iptables-legacy are loaded, which nft does not show.
	FindingIPTablesLegacy = "IPTablesLegacy"
	// FindingOtherCNIConfig: a CNI configuration that runtimes take before podnet's.
	FindingOtherCNIConfig = "OtherCNIConfig"
	// FindingOtherNetwork: interfaces of another pod network.
	FindingOtherNetwork = "OtherNetwork"
	// FindingNeighbourTable: the kernel's neighbour table is too small for the nodes that are routed to.
	FindingNeighbourTable = "NeighbourTable"
	// FindingForeignRoute: routes of others inside this node's blocks.
	FindingForeignRoute = "ForeignRoute"
	// FindingRangeOverlap: networks or addresses of the node's interfaces overlap the ranges.
	FindingRangeOverlap = "RangeOverlap"
	// FindingVXLANPort: another VXLAN device uses podnet's UDP port.
	FindingVXLANPort = "VXLANPort"
)

// Search says what Findings looks for.
type Search struct {
	// Ranges are those of the network, Blocks the node's own blocks.
	Ranges []netip.Prefix
	Blocks []netip.Prefix
	// ConfDir is the folder of CNI configurations; empty where it is not looked at.
	ConfDir string
	// Conflist is the name of podnet's own file in it.
	Conflist string
	// Probe is the attachment of the probes, from which packets are sent through the
	// node to see whether it forwards them; nil for none.
	Probe *model.Pod
}

// Findings returns what is, or may come, in the network's way. It changes nothing, but
// that it has nftables trace a packet of its own which the node does not forward. Where
// some of it cannot be looked for it returns the rest with the error, and nil where none can.
func (h *Host) Findings(ctx context.Context, s Search) ([]model.Finding, error) {
	v, err := h.cfg.Kernel.View()
	if err != nil {
		return nil, err
	}
	all := []model.Finding{}
	var errs []error
	for _, look := range []func() ([]model.Finding, error){
		func() ([]model.Finding, error) {
			if s.Probe == nil {
				return nil, nil
			}
			return h.forwardFindings(ctx, *s.Probe)
		},
		legacyFindings,
		func() ([]model.Finding, error) { return configFindings(s.ConfDir, s.Conflist) },
		func() ([]model.Finding, error) { return networkFindings(v.Links), nil },
		func() ([]model.Finding, error) { return neighbourFindings(v.Own) },
		func() ([]model.Finding, error) { return routeFindings(v.Routes, s.Blocks), nil },
		func() ([]model.Finding, error) { return overlapFindings(v, s.Ranges), nil },
		func() ([]model.Finding, error) { return portFindings(v.Links), nil },
		h.damagedFindings,
	} {
		found, err := look()
		if err != nil {
			errs = append(errs, fmt.Errorf("look for what is in the way: %w", err))
		}
		all = append(all, found...)
	}
	return all, errors.Join(errs...)
}

func finding(kind, format string, args ...any) model.Finding {
	return model.Finding{Type: kind, Message: fmt.Sprintf(format, args...)}
}

// legacyFindings looks for tables of iptables-legacy, whose rules nft does not show.
func legacyFindings() ([]model.Finding, error) {
	var out []model.Finding
	for _, f := range []struct{ file, command string }{
		// /proc/net is that of the process's first thread.
		{"/proc/thread-self/net/ip_tables_names", "iptables-legacy"},
		{"/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"},
	} {
		text, err := os.ReadFile(f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if names := strings.Fields(string(text)); len(names) > 0 {
			out = append(out, finding(FindingIPTablesLegacy,
				"Tables of %s are loaded beside nftables (%s), and packets pass both: see with %s-save that they let the pods' "+
					"packets through, or move their rules to iptables-nft.", f.command, strings.Join(names, ", "), f.command))
		}
	}
	return out, nil
}

// configFindings looks for CNI configurations that sort before podnet's: runtimes
// take the first one.
func configFindings(folder, ours string) ([]model.Finding, error) {
	if folder == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var first []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && e.Name() < ours {
			first = append(first, e.Name())
		}
	}
	if len(first) == 0 {
		return nil, nil
	}
	return []model.Finding{finding(FindingOtherCNIConfig,
		"The CNI configuration %s in %s sorts before podnet's %s, so that the container runtime uses it instead: remove what another network left behind.",
		strings.Join(first, ", "), folder, ours)}, nil
}

// otherNetworks are names of interfaces, or their beginnings with a star, that
// other pod networks make.
var otherNetworks = []struct{ pattern, network string }{
	{"cni0", "flannel or another network of the bridge plugin"},
	{"flannel*", "flannel"},
	{"cilium_*", "Cilium"},
	{"cali*", "Calico"},
	{"vxlan.calico", "Calico"},
	{"kube-bridge", "kube-router"},
	{"weave", "Weave Net"},
	{"antrea-gw0", "Antrea"},
	{"ovn-k8s-mp0", "OVN-Kubernetes"},
}

// networkFindings looks for interfaces of other pod networks.
func networkFindings(links []kernel.ViewedLink) []model.Finding {
	names := map[string][]string{}
	for _, l := range links {
		if l.Own {
			continue
		}
		for _, o := range otherNetworks {
			prefix, open := strings.CutSuffix(o.pattern, "*")
			if l.Name == o.pattern || open && strings.HasPrefix(l.Name, prefix) {
				names[o.network] = append(names[o.network], l.Name)
				break
			}
		}
	}
	var out []model.Finding
	for _, o := range otherNetworks {
		found := names[o.network]
		if len(found) == 0 {
			continue
		}
		delete(names, o.network)
		out = append(out, finding(FindingOtherNetwork,
			"Interfaces of another pod network, %s, are on this node (%s): uninstall it, and restart the node or delete its interfaces, routes and rules.",
			o.network, shorten(found)))
	}
	return out
}

// shorten names the first few of many.
func shorten(names []string) string {
	const few = 5
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// neighbourFindings compares the number of nodes that packets are routed to
// directly, each of which takes an entry, with the size of the neighbour tables.
// Permanent entries do not count (net/core/neighbour.c, gc_entries).
func neighbourFindings(own []model.Route) ([]model.Finding, error) {
	hops := map[netip.Addr]bool{}
	for _, r := range own {
		if r.Via.IsValid() && model.PathBy(r.Link) == model.PathRouted {
			hops[r.Via] = true
		}
	}
	var needed [2]int
	for hop := range hops {
		needed[model.FamilyIndex(hop)]++
	}
	var out []model.Finding
	for i, key := range []string{"net/ipv4/neigh/default/gc_thresh3", "net/ipv6/neigh/default/gc_thresh3"} {
		value, there, err := kernel.ReadSysctl(key)
		if err != nil {
			return nil, err
		}
		// Namespaces other than the first share its table and do not show its size.
		if limit, err := strconv.Atoi(value); there && err == nil {
			out = append(out, neighbourFinding(key, needed[i], limit)...)
		}
	}
	return out, nil
}

// neighbourReserve are the neighbours that a node is granted beside other nodes.
const neighbourReserve = 256

func neighbourFinding(key string, needed, limit int) []model.Finding {
	if needed+neighbourReserve <= limit {
		return nil
	}
	return []model.Finding{finding(FindingNeighbourTable,
		"The kernel's neighbour table holds %d entries, and the network routes to %d nodes directly: raise the sysctl %s to at least %d, and gc_thresh1 and gc_thresh2 with it.",
		limit, needed, strings.ReplaceAll(key, "/", "."), 2*(needed+neighbourReserve))}
}

// routeFindings looks for routes of others inside the node's blocks.
func routeFindings(routes []model.UnderlayRoute, blocks []netip.Prefix) []model.Finding {
	var inside []string
	for _, r := range routes {
		if slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Bits() <= r.Dst.Bits() && b.Contains(r.Dst.Addr()) }) {
			inside = append(inside, fmt.Sprintf("%s on %s", r.Dst, r.Link))
		}
	}
	if len(inside) == 0 {
		return nil
	}
	return []model.Finding{finding(FindingForeignRoute,
		"Routes that are not podnet's lead into this node's own pod addresses (%s) and are not followed as long as podnet's are there: delete them, or give the network another range.",
		shorten(inside))}
}

// portFindings looks for VXLAN devices of others that take podnet's UDP port.
func portFindings(links []kernel.ViewedLink) []model.Finding {
	ports := map[int]bool{}
	for _, l := range links {
		if l.Own && l.Kind == string(model.LinkVXLAN) {
			ports[l.Port] = true
		}
	}
	var out []model.Finding
	for _, l := range links {
		if l.Own || l.Kind != string(model.LinkVXLAN) || l.Name == probeLink || !ports[l.Port] {
			continue
		}
		out = append(out, finding(FindingVXLANPort,
			"The VXLAN device %s, which is not podnet's, uses UDP port %d too (VNI %d), and podnet drops packets to that port from "+
				"addresses that are no nodes: delete it, or give the network another port (spec.overlay.port).", l.Name, l.Port, l.VNI))
	}
	return out
}
