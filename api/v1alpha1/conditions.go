package v1alpha1

// Types of conditions, and the reasons that each can have.
const (
	// ConditionAccepted says, on a PodNetwork and on a RouteMode, whether podnet acts on the object.
	ConditionAccepted = "Accepted"
	// ReasonAccepted: the object is in force.
	ReasonAccepted = "Accepted"
	// ReasonNotServed: a PodNetwork that is not named default; this version serves one network.
	ReasonNotServed = "NotServed"
	// ReasonInvalidSelector: a label selector of the object does not parse.
	ReasonInvalidSelector = "InvalidSelector"

	// ConditionPolicyAccepted says, on a ClusterNetworkPolicy, whether podnet enforces all of it. Others who
	// enforce the policy write conditions of their own.
	ConditionPolicyAccepted = "podnet.dev/Accepted"
	// ReasonUnsupported: a part of the policy asks for what podnet cannot do; the message says which, and what follows.
	ReasonUnsupported = "Unsupported"
	// ReasonInvalid: a part of the policy cannot be read; the message says which, and what follows.
	ReasonInvalid = "Invalid"

	// ConditionConverged says, on a RouteMode, whether all paths that it decides are as it asks, and on a PodNetwork
	// whether all paths are as the PodNetwork and the RouteModes ask.
	ConditionConverged = "Converged"
	// ReasonConverged: they are.
	ReasonConverged = "Converged"
	// ReasonNodesDiverge: some are not; the message counts the nodes and says why for the first few.
	ReasonNodesDiverge = "NodesDiverge"
	// ReasonNodesPending: agents have not put the present RouteMode in force yet; the message names the first few nodes.
	ReasonNodesPending = "NodesPending"

	// ConditionOverridden says, on a RouteMode, whether another one decides for pairs of nodes that it selects too.
	ConditionOverridden = "Overridden"
	// ReasonNotOverridden: none does.
	ReasonNotOverridden = "NotOverridden"
	// ReasonStrongerRouteMode: one with a higher priority, or as high and older, asks for another mode; the message names it.
	ReasonStrongerRouteMode = "StrongerRouteMode"

	// ConditionReady says, on a PodNetwork, whether every node carries pods.
	ConditionReady = "Ready"
	// ReasonAllNodesReady: every node's agent has programmed the network.
	ReasonAllNodesReady = "AllNodesReady"
	// ReasonNodesNotReady: some nodes' agents have not, or do not respond; the message names the first few.
	ReasonNodesNotReady = "NodesNotReady"
	// ReasonNoNodes: the cluster has no node yet.
	ReasonNoNodes = "NoNodes"

	// ConditionExhausted says, on a PodNetwork, whether nodes wait for a block that no range has.
	ConditionExhausted = "Exhausted"
	// ReasonBlocksFree: every node has its blocks.
	ReasonBlocksFree = "BlocksFree"
	// ReasonNoFreeBlock: nodes wait for a block; the message counts blocks and names the first few nodes.
	ReasonNoFreeBlock = "NoFreeBlock"

	// ConditionRunningLow says, on a PodNetwork, whether the Active ranges of a family have few blocks left.
	ConditionRunningLow = "RunningLow"
	// ReasonEnoughFree: every family has more than a tenth of its blocks free.
	ReasonEnoughFree = "EnoughFree"
	// ReasonFewFree: a tenth or less is free; the message says of which ranges.
	ReasonFewFree = "FewFree"

	// ConditionAllocating says, on a PodNetwork, whether the manager gives out blocks.
	ConditionAllocating = "Allocating"
	// ReasonAllocating: it does.
	ReasonAllocating = "Allocating"
	// ReasonRollCall: it waits until the agents have said which blocks they use; the message names the first few that have not.
	ReasonRollCall = "RollCall"

	// ConditionRangesOverlap says, on a PodNetwork, whether its ranges overlap what the cluster uses for something else.
	ConditionRangesOverlap = "RangesOverlap"
	// ReasonNoOverlap: they do not.
	ReasonNoOverlap = "NoOverlap"
	// ReasonRangesOverlap: they do; the message names both sides.
	ReasonRangesOverlap = "RangesOverlap"

	// ConditionEndpointsRefused says, on a PodNetwork, whether nodes claim addresses that other nodes are not told to send to.
	ConditionEndpointsRefused = "EndpointsRefused"
	// ReasonEndpointsAccepted: none does.
	ReasonEndpointsAccepted = "EndpointsAccepted"
	// ReasonEndpointsRefused: some are pods', Services', another node's, or none that packets can be sent to; the message says which and why.
	ReasonEndpointsRefused = "EndpointsRefused"

	// ConditionSubnetsConflict says, on a PodNetwork, whether NodeSubnets contradict each other or the ranges.
	ConditionSubnetsConflict = "SubnetsConflict"
	// ReasonNoConflict: no two NodeSubnets overlap, and all lie within ranges.
	ReasonNoConflict = "NoConflict"
	// ReasonOverlap: NodeSubnets overlap; the older one is served, the younger refused.
	ReasonOverlap = "Overlap"
	// ReasonOutsideRanges: a NodeSubnet lies in no range of its network and is refused.
	ReasonOutsideRanges = "OutsideRanges"

	// ConditionProgrammed says, on a NodeNetwork, whether the node's kernel is as the objects ask.
	ConditionProgrammed = "Programmed"
	// ReasonProgrammed: it is.
	ReasonProgrammed = "Programmed"
	// ReasonNoNetwork: there is no PodNetwork named default yet.
	ReasonNoNetwork = "NoNetwork"
	// ReasonNoBlock: the node holds no block yet; the message says how many blocks the ranges have.
	ReasonNoBlock = "NoBlock"
	// ReasonNoEndpoint: the node has no address that other nodes could send to.
	ReasonNoEndpoint = "NoEndpoint"
	// ReasonModuleMissing: the kernel lacks a module; the message names it.
	ReasonModuleMissing = "ModuleMissing"
	// ReasonKernelError: the kernel refused a change; the message says which and why.
	ReasonKernelError = "KernelError"
	// ReasonDegraded: the node carries pods, yet some of what was asked could not be done.
	ReasonDegraded = "Degraded"
	// ReasonAgentNotResponding, on Programmed=Unknown and PathsProven=Unknown: the node's agent has not reported for a
	// minute. The manager says so, and the agent overwrites it when it is back.
	ReasonAgentNotResponding = "AgentNotResponding"

	// ConditionAddressesServed says, on a NodeNetwork, whether all addresses of the node's pods lie in blocks that the node holds.
	ConditionAddressesServed = "AddressesServed"
	// ReasonAddressesServed: they do.
	ReasonAddressesServed = "AddressesServed"
	// ReasonAddressesUnserved: some do not, and other nodes do not reach them; the message names the first few pods.
	ReasonAddressesUnserved = "AddressesUnserved"

	// ConditionPathsProven says, on a NodeNetwork, whether probes come back by every path that is in force.
	ConditionPathsProven = "PathsProven"
	// ReasonPathsProven: they do.
	ReasonPathsProven = "PathsProven"
	// ReasonSecondPath: they do, and Auto has taken the path that it does not prefer to some nodes; the message names the first few.
	ReasonSecondPath = "SecondPath"
	// ReasonOtherPath: they do, and to some nodes it is not the path that was asked for; the message names the first few.
	ReasonOtherPath = "OtherPath"
	// ReasonPathDown: to some blocks there is no path, or no probe comes back by any; the message names the first few nodes.
	ReasonPathDown = "PathDown"
	// ReasonUnproven: some paths have not been proven yet, or failed; the message names the first few nodes.
	ReasonUnproven = "Unproven"

	// ConditionPathMTUReduced says, on a NodeNetwork, whether paths carry smaller packets than their interfaces.
	ConditionPathMTUReduced = "PathMTUReduced"
	// ReasonFullMTU: none does.
	ReasonFullMTU = "FullMTU"
	// ReasonSmallerPathMTU: some do; the message names the first few nodes and sizes.
	ReasonSmallerPathMTU = "SmallerPathMTU"

	// ConditionHostUnobstructed says, on a NodeNetwork, whether nothing on the node is in the network's way.
	ConditionHostUnobstructed = "HostUnobstructed"
	// ReasonNothingFound: nothing is.
	ReasonNothingFound = "NothingFound"
	// ReasonFindings: something is; see status.findings.
	ReasonFindings = "Findings"

	// ReasonPodnetProgrammed, on a Node's condition NetworkUnavailable=False: its agent has programmed the network.
	ReasonPodnetProgrammed = "PodnetProgrammed"
	// ReasonPodnetNoFreeBlock, on a Node's condition NetworkUnavailable=True: no range has a block left for the node.
	ReasonPodnetNoFreeBlock = "PodnetNoFreeBlock"
	// ReasonPodnetNotProgrammed, on a Node's condition NetworkUnavailable=True: the node waited for a block, has
	// one now, and its agent has not programmed it yet.
	ReasonPodnetNotProgrammed = "PodnetNotProgrammed"

	// ConditionRemoved says, on a NodeNetwork, that the agent took all that podnet made off the node, as an uninstall asks.
	ConditionRemoved = "Removed"
	// ReasonUninstall: an uninstall asked for it.
	ReasonUninstall = "Uninstall"
)

// CountAnnotation on a NetworkPolicy or a ClusterNetworkPolicy asks, with the value
// "true", the nodes that have pods which the policy selects to count the packets that each
// of its rules matches.
const CountAnnotation = "podnet.dev/count"

// AllowDeletionAnnotation on a PodNetwork of which nodes hold blocks lets it be
// deleted, with the value true. Admission refuses it otherwise.
const AllowDeletionAnnotation = "podnet.dev/allow-deletion"

// UninstallAnnotation on the PodNetwork named default asks every agent to take
// podnet off its node. It is set by the uninstall hook of the chart.
const UninstallAnnotation = "podnet.dev/uninstall"
