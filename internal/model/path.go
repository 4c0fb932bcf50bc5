package model

import (
	"net/netip"
	"slices"
)

// Path is the way that packets to another node's block take.
type Path string

// The paths.
const (
	PathRouted  Path = "routed"
	PathOverlay Path = "overlay"
	PathDown    Path = "down"
)

// Way is one of the ways in which packets can reach other nodes' blocks.
type Way struct {
	Path Path
	// Mode is the mode that asks for the way.
	Mode Mode
	// Name is its name in sentences.
	Name string
	// NeedsProof says that the way leads on only where the network between the nodes knows the
	// pods' addresses. An encapsulation works wherever nodes reach each other.
	NeedsProof bool
	// Devices are the links by which its packets leave; none where they are not encapsulated.
	Devices []string
	// Table, Mark, Port and Source are those of its probes (see ProbeRoutedTable and so on).
	Table        int
	Mark         uint32
	Port, Source uint16
}

// Ways are the ways that there are, the one that costs packets least first. Lists that hold something
// for each are in this order, which messages between nodes know too.
var Ways = []Way{
	{
		Path: PathRouted, Mode: ModeRouted, Name: "the routed path", NeedsProof: true,
		Table: ProbeRoutedTable, Mark: ProbeRoutedMark, Port: ProbeRoutedPort, Source: ProbeRoutedSource,
	},
	{
		Path: PathOverlay, Mode: ModeOverlay, Name: "the overlay", Devices: []string{VXLANLink4, VXLANLink6},
		Table: ProbeOverlayTable, Mark: ProbeOverlayMark, Port: ProbeOverlayPort, Source: ProbeOverlaySource,
	},
}

// PathBy returns the path that a route by a link of this node's takes.
func PathBy(link string) Path {
	for _, w := range Ways {
		if slices.Contains(w.Devices, link) {
			return w.Path
		}
	}
	return PathRouted
}

// IsOwnLink reports whether a name is that of a link that a State may hold.
func IsOwnLink(name string) bool { return name == BridgeLink || PathBy(name) != PathRouted }

// Standing says what is known of a path by its probes.
type Standing string

// The standings.
const (
	// Unproven is a path of which nothing is known.
	Unproven Standing = "unproven"
	// Proven is a path whose probes come back.
	Proven Standing = "proven"
	// Suspect is a path that was proven, or was found in force, and whose last probes
	// did not come back.
	Suspect Standing = "suspect"
	// Failed is a path whose probes do not come back while those of the other path do.
	Failed Standing = "failed"
)

// Proof is what is known of one path to a block.
type Proof struct {
	Standing Standing
	// Fresh says that a probe came back just now.
	Fresh bool
	// Answers says that the last few probes have all come back. A path that failed may
	// have to be steady for longer before it is proven again.
	Answers bool
	// Unheard says that no probe has come back for some seconds, Silent that none has for a
	// minute, and New that the path is known for less than that and was never proven.
	Unheard, Silent, New bool
	// MTU is the largest packet in bytes that comes back; 0 where that is as large
	// as the interface carries, or unknown.
	MTU int
	// Corrupted says that only probes without a checksum come back: something computes
	// wrong ones for packets in the tunnel.
	Corrupted bool
}

// Holds reports whether the path carries packets, as far as is known.
func (p Proof) Holds() bool { return p.Standing == Proven || p.Standing == Suspect }

// Evidence is what is known of the paths to a block.
type Evidence struct {
	// Node is the node that holds the block.
	Node string
	// Taken is the path in force; empty where there is none yet.
	Taken Path
	// Proofs are those of the ways; none at all where nothing is known.
	Proofs []Proof
}

// Proof returns what is known of one of the ways.
func (e Evidence) Proof(way int) Proof {
	if way >= len(e.Proofs) {
		return Proof{}
	}
	return e.Proofs[way]
}

// Corrupted reports whether packets of a way have wrong checksums.
func (e Evidence) Corrupted() bool {
	return slices.ContainsFunc(e.Proofs, func(p Proof) bool { return p.Corrupted })
}

// PathQuestion is what the choice of a path depends on besides the evidence.
type PathQuestion struct {
	// Want is the mode that the objects ask for.
	Want Mode
	// Forced says that the mode's path is to be taken whatever its probes say.
	Forced bool
	// Ways are those to the block, in the order of Ways.
	Ways []WayTo
}

// WayTo is a way to one block.
type WayTo struct {
	*Way
	// Obstacle is why the way is impossible, if it is.
	Obstacle Obstacle
	// Limit is the largest packet in bytes that its interface carries, and Hop names where its
	// packets go: what was proven of one is not of another.
	Limit int
	Hop   string
}

// Possible reports whether packets can take the way.
func (w WayTo) Possible() bool { return w.Obstacle.Reason == "" }

// Obstacle is why a way is impossible.
type Obstacle struct {
	Reason ObstacleReason
	// Text is a clause that can follow "because".
	Text string
}

// ObstacleReason tells obstacles from each other; empty for none.
type ObstacleReason string

// The reasons why a way is impossible.
const (
	NoDevice       ObstacleReason = "NoDevice"
	NoEndpoint     ObstacleReason = "NoEndpoint"
	NoRoute        ObstacleReason = "NoRoute"
	OwnEndpoint    ObstacleReason = "OwnEndpoint"
	PacketTooLarge ObstacleReason = "PacketTooLarge"
)

// PathReason is why a path is what it is; empty where there is nothing to say.
type PathReason string

// The reasons for a path.
const (
	// PathImpossible is for what no way, or not the one that is taken unproven, leads to.
	PathImpossible PathReason = "Impossible"
	// PathUnproven is for a path that is taken unproven, for want of another.
	PathUnproven PathReason = "Unproven"
	// PathFallback is for a path that is taken because the preferred one is impossible, and
	// PathSecond for one that is because the preferred one is not proven.
	PathFallback PathReason = "Fallback"
	PathSecond   PathReason = "Second"
	// PathKept is for a path that failed and is kept, and PathSilent for one that is kept
	// although nothing comes back by any.
	PathKept   PathReason = "Kept"
	PathSilent PathReason = "Silent"
	// PathSmall is for a path that carries smaller packets than its interfaces do.
	PathSmall PathReason = "Small"
)

// PathChoice is the path to one block of another node.
type PathChoice struct {
	PathQuestion
	Node  string
	Block netip.Prefix
	// NodeSilent says that the other node's agent does not respond.
	NodeSilent bool
	// Cell is the prefix by which the kernel notes that this node sends to the block.
	Cell netip.Prefix
	// RouteMode is the name of the RouteMode that asks; empty where the PodNetwork does.
	RouteMode string
	Path      Path
	// Diverges says that Path is not what was asked for.
	Diverges bool
	// Reason is why Path is what it is, and Message says it.
	Reason  PathReason
	Message string
	// Proof is what is known of Path.
	Proof Proof
	// Corrupter is the name of the VXLAN device whose packets to the other node, or from
	// there, have wrong checksums; empty for none.
	Corrupter string
}
