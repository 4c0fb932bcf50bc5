# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo", "state" and "again" are set by the script that sources this file.
# Nodes, and the network between them. Nothing here makes a link or an address in the machine's own network namespace.
#
#   node1 eth0 ─┐                       ┌─ eth0 outside, the gateway; 192.0.2.1 and 2001:db8::1 on lo
#   node2 eth0 ─┼─ bridge (fabric) ─────┘
#   node3 eth0 ─┘

# Private ranges that neither pods nor services of the usual examples use.
v4_prefix=172.31.255
v6_prefix=fd31:255:0:1
gateway_v4=$v4_prefix.1
gateway_v6=$v6_prefix::1
# Ranges reserved for documentation play the Internet.
outside_v4=192.0.2.1
outside_v6=2001:db8::1

node_names() {
	local i
	for ((i = 1; i <= $(cat "$state/nodes/count"); i++)); do say "node$i"; done
}

# node_v4 NODE and node_v6 NODE: node1 has .11 and ::11.
node_v4() { say "$v4_prefix.$((10 + ${1#node}))"; }
node_v6() { say "$v6_prefix::$((10 + ${1#node}))"; }

# in_net NAME COMMAND… runs in a network namespace, in this mount namespace.
in_net() {
	local pid
	pid=$(pid_of "$1") || die "$1 does not run; see: $again status"
	shift
	nsenter --target "$pid" --net -- "$@"
}

# in_node NODE COMMAND… runs in all namespaces of a node.
in_node() {
	local pid
	pid=$(pid_of "$1") || die "$1 does not run; see: $again status"
	shift
	nsenter --target "$pid" --net --mount --uts -- "$@"
}

# wire NAME V4 V6: the link between the fabric and a namespace.
wire() {
	local name=$1 v4=$2 v6=$3
	in_net fabric ip link add name "$name" type veth peer name eth0 netns "$(pid_of "$name")"
	in_net fabric ip link set dev "$name" master fabric up
	in_net "$name" ip -batch - <<-LINKS
		link set dev lo up
		link set dev eth0 mtu 1500 up
		address add $v4/24 dev eth0
		address add $v6/64 dev eth0 nodad
	LINKS
}

start_fabric() {
	spawn fabric fabric unshare --net sleep infinity
	await_namespace fabric
	# The fabric plays a switch, and a switch does not pass what it forwards through a firewall.
	if [ -d /proc/sys/net/bridge ]; then
		in_net fabric sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
			net.bridge.bridge-nf-call-arptables=0
	fi
	# No multicast snooping: without a querier it forgets who listens, and with them IPv6 neighbours.
	in_net fabric ip link add name fabric type bridge forward_delay 0 mcast_snooping 0
	in_net fabric sysctl -qw net.ipv6.conf.all.disable_ipv6=1
	in_net fabric ip link set dev fabric up
}

start_outside() {
	spawn outside outside unshare --net sleep infinity
	await_namespace outside
	wire outside "$gateway_v4" "$gateway_v6"
	in_net outside ip address add "$outside_v4/32" dev lo
	in_net outside ip address add "$outside_v6/128" dev lo nodad
	# A gateway, though one that knows no pods: what is sent to it for a pod's address comes back as unreachable.
	in_net outside sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 \
		net.ipv4.conf.eth0.send_redirects=0
}

start_node() {
	local node=$1
	mkdir -p "$state/nodes/$node"
	{
		printf '127.0.0.1 localhost\n::1 localhost\n'
		local other
		for other in $(node_names); do
			printf '%s %s\n%s %s\n' "$(node_v4 "$other")" "$other" "$(node_v6 "$other")" "$other"
		done
	} >"$state/nodes/$node/hosts"
	spawn "$node" "$node/system" unshare --net --mount --uts --propagation private \
		bash "$here/lib/node-init.sh" "$node" "$state/nodes/$node"
	await_namespace "$node"
	# Not inherited from the machine: what a distribution with strict reverse path filtering, and no forwarding, has.
	in_net "$node" sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 \
		net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
	wire "$node" "$(node_v4 "$node")" "$(node_v6 "$node")"
	in_net "$node" ip route add default via "$gateway_v4"
	in_net "$node" ip -6 route add default via "$gateway_v6"
	wait_for 10 "the file systems of $node" "$state/logs/$node.log" test -e "$state/nodes/$node/ready"
}

# await_namespace NAME waits until the process has left our network namespace.
await_namespace() {
	wait_for 10 "the network namespace of $1" "$state/logs/$1.log" own_namespace "$1"
}

own_namespace() {
	local pid
	pid=$(pid_of "$1") && [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}
