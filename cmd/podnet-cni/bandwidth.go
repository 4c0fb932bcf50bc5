package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// bandwidthPlugin is the plugin that limits what a pod sends and gets: the reference plugin
// bandwidth, which the agent installs beside podnet-cni. It is executed for pods that have limits.
const bandwidthPlugin = "podnet-bandwidth"

// bandwidth is what a runtime asks for by the capability of that name, in bits per second
// and bits. Zero stands for no limit.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

const (
	// burstShare is the share of a second, as its inverse, that may pass at once after a
	// while without traffic.
	burstShare = 10
	// leastBurst is enough for the largest packet that a pod hands over (64 KiB, before it
	// is cut for the wire): a smaller one would have each cut here.
	leastBurst = 64 << 10 * 8
)

// fit returns the burst for a rate: what was asked for, if that is no more than fits it.
// containerd asks for the most there is, which lets seconds of traffic pass at any rate.
func fit(rate, burst uint64) uint64 {
	if rate == 0 {
		return burst
	}
	fits := min(max(rate/burstShare, leastBurst), math.MaxUint32)
	if burst == 0 {
		return fits
	}
	return min(burst, fits)
}

// limits returns the bandwidth that a configuration asks for; nil where it asks for none.
func (c *config) limits() *bandwidth {
	b := c.RuntimeConfig.Bandwidth
	if b == nil || b.IngressRate == 0 && b.EgressRate == 0 {
		return nil
	}
	return &bandwidth{
		IngressRate: b.IngressRate, IngressBurst: fit(b.IngressRate, b.IngressBurst),
		EgressRate: b.EgressRate, EgressBurst: fit(b.EgressRate, b.EgressBurst),
	}
}

// limit has the bandwidth plugin do its part of a request. Its result is that of ADD, which
// says what was there before; other requests have it from the runtime.
func (c *config) limit(command string, args *skel.CmdArgs, result *types100.Result) (types.Result, error) {
	raw := map[string]any{}
	if err := json.Unmarshal(args.StdinData, &raw); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode the network configuration: %v", err), "")
	}
	raw["type"] = bandwidthPlugin
	delete(raw, "runtimeConfig")
	if limits := c.limits(); limits != nil {
		raw["runtimeConfig"] = map[string]any{"bandwidth": limits}
	}
	if result != nil {
		before, err := result.GetAsVersion(c.CNIVersion)
		if err != nil {
			return nil, fmt.Errorf("convert the result to version %s: %w", c.CNIVersion, err)
		}
		raw["prevResult"] = before
	}
	stdin, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of %s: %w", bandwidthPlugin, err)
	}
	path, err := invoke.FindInPath(bandwidthPlugin, filepath.SplitList(args.Path))
	if err != nil {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("look for the plugin that limits bandwidth: %v", err), "")
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	with := &invoke.Args{
		Command: command, ContainerID: args.ContainerID, NetNS: args.Netns, IfName: args.IfName, PluginArgsStr: args.Args, Path: args.Path,
	}
	if command == "ADD" {
		return invoke.ExecPluginWithResult(ctx, path, stdin, with, nil)
	}
	return nil, invoke.ExecPluginWithoutResult(ctx, path, stdin, with, nil)
}

// unlimit takes the limits of a pod away, if it had any: also where the runtime does not
// say so any more.
func (c *config) unlimit(args *skel.CmdArgs) error {
	_, err := c.limit("DEL", args, nil)
	var e *types.Error
	if errors.As(err, &e) && e.Code == types.ErrInvalidEnvironmentVariables && c.limits() == nil {
		return nil
	}
	return err
}
