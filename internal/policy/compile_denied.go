package policy

import (
	"fmt"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// DeniedCounter is the name of the counter of the packets that were denied.
const DeniedCounter = "denied"

// toDenied is the verdict on what is denied: it leads to the one chain in which that ends.
const (
	deniedChain = "denied"
	toDenied    = "goto " + deniedChain
)

const (
	// sampleRate is how many denied packets a second the kernel gives to the agent at most,
	// and sampleBurst how many at once after a while without any.
	sampleRate, sampleBurst = 5, 10
	// sampleBytes are those of a packet that are given: enough for its addresses and ports.
	sampleBytes = 128
)

// denied is where packets end that policies do not allow. With a sample, one limit bounds
// all that the kernel gives to the agent.
func denied(sample bool) nft.Chain {
	count := `counter name "` + DeniedCounter + `"`
	if !sample {
		return chain(deniedChain, count+" drop")
	}
	give := func(condition string, way model.PacketWay) string {
		return fmt.Sprintf("%s log prefix %q group %d snaplen %d", condition, way, model.DeniedGroup, sampleBytes)
	}
	return chain(deniedChain,
		count,
		fmt.Sprintf("limit rate over %d/second burst %d packets drop", sampleRate, sampleBurst),
		give("ct state { invalid, untracked }", model.WayStray),
		give("ct direction original", model.WayOriginal),
		give("ct direction reply", model.WayReply),
		"drop")
}
