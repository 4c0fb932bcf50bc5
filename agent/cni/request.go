package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/internal/model"
)

// config is what the agent reads of the network configuration.
type config struct {
	RuntimeConfig struct {
		PortMappings []portMapping `json:"portMappings"`
	} `json:"runtimeConfig"`
	PrevResult json.RawMessage `json:"prevResult"`
	// ValidAttachments is nil where the runtime does not say which are valid.
	ValidAttachments []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// portMapping is an element of the capability portMappings (CNI conventions).
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

func parseConfig(request protocol.Request) (config, error) {
	var conf config
	if err := json.Unmarshal(request.Config, &conf); err != nil {
		return config{}, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode the network configuration: %v", err), "")
	}
	return conf, nil
}

// keyOfRequest returns the key of the attachment that a request is about.
func keyOfRequest(request protocol.Request) (Key, error) {
	if request.ContainerID == "" || request.IfName == "" {
		return Key{}, types.NewError(types.ErrInvalidEnvironmentVariables, "the request names no container or no interface", "")
	}
	return Key{ContainerID: request.ContainerID, IfName: request.IfName}, nil
}

// parsePod returns the pod that a request is about, without the addresses and
// what else the node decides.
func parsePod(request protocol.Request) (model.Pod, error) {
	key, err := keyOfRequest(request)
	if err != nil {
		return model.Pod{}, err
	}
	if err := checkNames(request); err != nil {
		return model.Pod{}, err
	}
	conf, err := parseConfig(request)
	if err != nil {
		return model.Pod{}, err
	}
	ports, err := hostPorts(conf.RuntimeConfig.PortMappings)
	if err != nil {
		return model.Pod{}, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	args := parseArgs(request.Args)
	return model.Pod{
		ContainerID: key.ContainerID,
		IfName:      key.IfName,
		Namespace:   args["K8S_POD_NAMESPACE"],
		Name:        args["K8S_POD_NAME"],
		UID:         args["K8S_POD_UID"],
		Netns:       netnsPath(request.Netns),
		HostLink:    key.HostLink(),
		HostMAC:     model.DeriveMAC(key.ContainerID + "/" + key.IfName + "/host"),
		PodMAC:      model.DeriveMAC(key.ContainerID + "/" + key.IfName + "/pod"),
		HostPorts:   ports,
	}, nil
}

// maxContainerID is the length in bytes of the longest container ID: with the interface it
// is the alias of the link, which has at most 255.
const maxContainerID = 200

// checkNames returns an error where what names an attachment to be made cannot.
func checkNames(request protocol.Request) error {
	if err := utils.ValidateContainerID(request.ContainerID); err != nil {
		return err
	}
	if err := utils.ValidateInterfaceName(request.IfName); err != nil {
		return err
	}
	if len(request.ContainerID) > maxContainerID {
		return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("the container's ID has %d bytes, and at most %d are taken",
			len(request.ContainerID), maxContainerID), "")
	}
	if !filepath.IsAbs(request.Netns) {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("the request names no network namespace by a path from the root: %q", request.Netns), "")
	}
	return nil
}

// parseArgs reads CNI_ARGS: pairs of name=value between semicolons.
func parseArgs(args string) map[string]string {
	values := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			values[name] = value
		}
	}
	return values
}

// netnsPath returns the path by which the agent reaches a network namespace:
// /var/run of its image is not the host's, whereas /run is mounted.
func netnsPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}

// maxHostPorts is how many ports of the node a pod may have: each is an element of a map of
// nftables in each family, and what changes that map waits while they are added.
const maxHostPorts = 4096

// hostPorts reads port mappings. Those without a port of the host are left out,
// as are repeated ones.
func hostPorts(mappings []portMapping) ([]model.HostPort, error) {
	var ports []model.HostPort
	seen := map[model.HostPort]bool{}
	for _, m := range mappings {
		if m.HostPort == 0 {
			continue
		}
		port, err := m.hostPort()
		if err != nil {
			return nil, fmt.Errorf("read the port mapping of host port %d: %w", m.HostPort, err)
		}
		if seen[port] {
			continue
		}
		seen[port] = true
		ports = append(ports, port)
		if len(ports) > maxHostPorts {
			return nil, fmt.Errorf("the pod has more than %d host ports: give it fewer, or the network of its node (hostNetwork)", maxHostPorts)
		}
	}
	return ports, nil
}

func (m portMapping) hostPort() (model.HostPort, error) {
	const most = 1<<16 - 1
	if m.HostPort < 1 || m.HostPort > most || m.ContainerPort < 1 || m.ContainerPort > most {
		return model.HostPort{}, fmt.Errorf("ports are between 1 and %d, not %d and %d", most, m.HostPort, m.ContainerPort)
	}
	port := model.HostPort{Host: uint16(m.HostPort), Pod: uint16(m.ContainerPort), Protocol: strings.ToLower(m.Protocol)}
	switch port.Protocol {
	case "":
		port.Protocol = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return model.HostPort{}, fmt.Errorf("protocol %q is none of tcp, udp and sctp", m.Protocol)
	}
	if m.HostIP == "" {
		return port, nil
	}
	addr, err := netip.ParseAddr(m.HostIP)
	if err != nil {
		return model.HostPort{}, fmt.Errorf("parse hostIP: %w", err)
	}
	// 0.0.0.0 and :: stand for all addresses of the node.
	if addr = addr.Unmap(); !addr.IsUnspecified() {
		port.HostIP = addr
	}
	return port, nil
}
