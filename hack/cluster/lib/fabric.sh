# shellcheck shell=bash
# shellcheck disable=SC2154 # "state" and the prefixes are set by the scripts that are sourced beside this file.
# What the fabric lets through: everything when it starts, and on request less, as many real ones do. Each restriction is a
# table of nftables in the fabric's namespace.

cmd_fabric() {
	need_root
	need_up
	case ${1:-} in
	open) fabric_open ;;
	strict) fabric_strict ;;
	mtu)
		[[ ${2:-} =~ ^[1-9][0-9]{2,3}$ ]] || die "name the largest IP packet that the fabric passes, such as 1400"
		fabric_mtu "$2"
		;;
	*) die "name what the fabric is to be: open, strict or mtu BYTES" ;;
	esac
}

# replace_table NAME reads the content of a table, which takes the place of an older one in one step.
replace_table() { { printf 'add table bridge %s\ndelete table bridge %s\n' "$1" "$1" && cat; } | in_net fabric nft -f -; }

# remove_table NAME does nothing where there is none.
remove_table() { in_net fabric nft -f - <<<"add table bridge $1; delete table bridge $1"; }

fabric_open() {
	remove_table strict
	remove_table mtu
	segment_at_sender 65535
}

# fabric_strict passes from a node only what has one of the node's own addresses as its source, as the networks of clouds
# do: pods' packets have to be in a tunnel.
fabric_strict() {
	local node own_v4='' own_v6=''
	for node in $(node_names); do
		own_v4+="\"$node\" . $(node_v4 "$node"), "
		own_v6+="\"$node\" . $(node_v6 "$node"), "
	done
	replace_table strict <<-TABLE
		table bridge strict {
			set own_v4 { type ifname . ipv4_addr; elements = { $own_v4 }; }
			set own_v6 { type ifname . ipv6_addr; elements = { $own_v6 }; }
			chain forward {
				type filter hook forward priority 0
				iifname outside accept
				ip6 saddr { ::, fe80::/10 } accept
				iifname . ip saddr != @own_v4 counter drop
				iifname . ip6 saddr != @own_v6 counter drop
			}
		}
	TABLE
}

# fabric_mtu BYTES drops larger IP packets, and tells nobody. TCP between nodes passes, as if somebody clamped its segments
# on the way: on a network where the nodes do not reach the API server there is nothing to see of pods.
fabric_mtu() {
	segment_at_sender 1
	replace_table mtu <<-TABLE
		table bridge mtu {
			chain forward {
				type filter hook forward priority 0
				ip saddr $v4_prefix.0/24 ip daddr $v4_prefix.0/24 meta l4proto tcp accept
				ip6 saddr $v6_prefix::/64 ip6 daddr $v6_prefix::/64 meta l4proto tcp accept
				ip length > $1 counter drop
				ip6 length > $(($1 - 40)) counter drop
			}
		}
	TABLE
}

# segment_at_sender PACKETS limits how many packets of a TCP stream cross a link between namespaces as one of up to 64 KB,
# which has no size that could be compared with an MTU. A real network card sends them one by one.
segment_at_sender() {
	local name
	for name in outside $(node_names); do
		in_net "$name" ip link set dev eth0 gso_max_segs "$1"
	done
}
