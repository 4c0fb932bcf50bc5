package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"go4.org/netipx"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// podInterface is the index of the pod's end in the interfaces of a result.
const podInterface = 1

// newResult returns the result of ADD for a pod that is attached. netns is the
// path of its network namespace as the runtime gave it.
func newResult(pod model.Pod, netns string) *types100.Result {
	result := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: pod.HostLink, Mac: pod.HostMAC.String(), Mtu: pod.MTU},
			podInterface: {Name: pod.IfName, Mac: pod.PodMAC.String(), Mtu: pod.MTU, Sandbox: netns},
		},
	}
	for i, addr := range pod.Addrs {
		length, gateway := addr.BitLen(), ipam.LinkGateway(addr.Is4())
		if pod.Attachment == model.Bridge {
			length, gateway = pod.Blocks[i].Bits(), ipam.GatewayAddress(pod.Blocks[i])
		}
		result.IPs = append(result.IPs, &types100.IPConfig{
			Interface: types100.Int(podInterface),
			Address:   net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(length, addr.BitLen())},
			Gateway:   gateway.AsSlice(),
		})
		result.Routes = append(result.Routes, &types.Route{
			Dst: net.IPNet{IP: make(net.IP, addr.BitLen()/8), Mask: net.CIDRMask(0, addr.BitLen())},
			GW:  gateway.AsSlice(),
		})
	}
	return result
}

// checkPrevResult returns an error where the runtime takes the pod's addresses
// for others than were recorded.
func checkPrevResult(raw json.RawMessage, pod model.Pod) error {
	if len(raw) == 0 {
		return nil
	}
	// Only what is compared is decoded: it looks the same in all versions.
	var prev struct {
		IPs []struct {
			Address types.IPNet `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(raw, &prev); err != nil {
		return fmt.Errorf("decode prevResult: %w", err)
	}
	var got []netip.Addr
	for _, ip := range prev.IPs {
		if addr, ok := netipx.FromStdIP(ip.Address.IP); ok {
			got = append(got, addr)
		}
	}
	for _, addr := range pod.Addrs {
		if !slices.Contains(got, addr) {
			return fmt.Errorf("the runtime has addresses %v for the pod, which has %v", got, pod.Addrs)
		}
	}
	return nil
}
