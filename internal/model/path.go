package model

import "net/netip"

// Path is the way that packets to another node's block take.
type Path string

// The paths.
const (
	PathRouted  Path = "routed"
	PathOverlay Path = "overlay"
	PathDown    Path = "down"
)

// Ways are the paths that packets can take, in the order in which arrays hold
// something for each.
var Ways = [2]Path{RoutedWay: PathRouted, OverlayWay: PathOverlay}

// Indexes into Ways and such arrays.
const (
	RoutedWay  = 0
	OverlayWay = 1
)

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
	// as the interface carries, or not known.
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
	// Proofs are those of the Ways.
	Proofs [2]Proof
}

// PathQuestion is what the choice of a path depends on besides the evidence.
type PathQuestion struct {
	// Want is the mode that the objects ask for.
	Want Mode
	// Forced says that the mode's path is to be taken whatever its probes say.
	Forced bool
	// Obstacles say for each of the Ways why it is impossible, as a clause that can
	// follow "because"; empty where it is possible.
	Obstacles [2]string
}

// Possible says which of the Ways are possible.
func (q PathQuestion) Possible() [2]bool {
	return [2]bool{q.Obstacles[RoutedWay] == "", q.Obstacles[OverlayWay] == ""}
}

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
	// Message says why Path is what it is, where there is something to say.
	Message string
	// Proof is what is known of Path.
	Proof Proof
	// Limits are the largest packets in bytes that the interfaces of the Ways carry.
	Limits [2]int
	// Hops name for each of the Ways where its packets go: what was proven of one is
	// not of another.
	Hops [2]string
	// Corrupter is the name of the VXLAN device whose packets to the other node, or from
	// there, have wrong checksums; empty for none.
	Corrupter string
}
