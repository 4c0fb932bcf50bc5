package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podnet/podnet/agent/cni/protocol"
)

const (
	// timeout ends what the agent does not answer before a runtime loses patience.
	timeout = 55 * time.Second
	// statusTimeout is shorter: runtimes ask for STATUS every few seconds, and
	// answer nothing else about the node meanwhile.
	statusTimeout = 5 * time.Second
)

// plugin serves the verbs of the CNI specification.
type plugin struct{}

func (plugin) add(args *skel.CmdArgs) error {
	conf, err := parse(args)
	if err != nil {
		return err
	}
	result := &types100.Result{}
	if err := conf.call(protocol.Add, args, timeout, result); err != nil {
		return err
	}
	var all types.Result = result
	if conf.limits() != nil {
		if all, err = conf.limit("ADD", args, result); err != nil {
			return err
		}
	}
	if err := types.PrintResult(all, conf.CNIVersion); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("print the result in version %s: %v", conf.CNIVersion, err), "")
	}
	return nil
}

func (plugin) check(args *skel.CmdArgs) error {
	conf, err := parse(args)
	if err != nil {
		return err
	}
	if err := conf.call(protocol.Check, args, timeout, nil); err != nil || conf.limits() == nil {
		return err
	}
	_, err = conf.limit("CHECK", args, nil)
	return err
}

func (plugin) gc(args *skel.CmdArgs) error { return forward(protocol.GC, args, timeout) }

// del keeps words out of its errors by which containerd's go-cni takes a failed
// DEL for a success, and forgets the pod, whose address would be lost.
func (plugin) del(args *skel.CmdArgs) error {
	conf, err := parse(args)
	if err == nil {
		err = conf.unlimit(args)
	}
	if err == nil {
		err = conf.call(protocol.Del, args, timeout, nil)
	}
	var e *types.Error
	if !errors.As(err, &e) {
		return err
	}
	words := strings.NewReplacer("not found", "missing", "no such file or directory", "missing file")
	return types.NewError(e.Code, words.Replace(e.Msg), words.Replace(e.Details))
}

// status says that the network is ready while an agent restarts: see
// protocol.RestartGrace.
func (plugin) status(args *skel.CmdArgs) error {
	conf, err := parse(args)
	if err != nil {
		return err
	}
	err = conf.call(protocol.Status, args, statusTimeout, nil)
	if err == nil {
		return nil
	}
	served, statErr := os.Stat(protocol.ServedPath(conf.Socket))
	if statErr == nil && time.Since(served.ModTime()) < protocol.RestartGrace {
		return nil
	}
	var e *types.Error
	if errors.As(err, &e) && e.Code == types.ErrTryAgainLater {
		return types.NewError(types.ErrPluginNotAvailable, e.Msg, e.Details)
	}
	return err
}

// config is what podnet-cni itself reads of the network configuration.
type config struct {
	types.PluginConf
	Socket string `json:"socket"`
	// RuntimeConfig is what the runtime adds, by the capabilities of the configuration.
	RuntimeConfig struct {
		Bandwidth *bandwidth `json:"bandwidth"`
	} `json:"runtimeConfig"`
}

func parse(args *skel.CmdArgs) (*config, error) {
	conf := &config{}
	if err := json.Unmarshal(args.StdinData, conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode the network configuration: %v", err), "")
	}
	if conf.Socket == "" {
		conf.Socket = protocol.DefaultSocket
	}
	return conf, nil
}

// forward hands a request to the agent whose answer is empty.
func forward(verb protocol.Verb, args *skel.CmdArgs, limit time.Duration) error {
	conf, err := parse(args)
	if err != nil {
		return err
	}
	return conf.call(verb, args, limit, nil)
}

func (c *config) call(verb protocol.Verb, args *skel.CmdArgs, limit time.Duration, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return protocol.Call(ctx, c.Socket, verb, protocol.Request{
		ContainerID: args.ContainerID,
		IfName:      args.IfName,
		Netns:       args.Netns,
		Args:        args.Args,
		Config:      args.StdinData,
	}, result)
}
