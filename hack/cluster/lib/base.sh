# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo" and "state" are set by the script that sources this file.
# Messages, prerequisites, and waiting for conditions.

usage() {
	cat <<USAGE
Usage: hack/cluster/cluster COMMAND

  deps                 install the Debian packages that the cluster needs
  build [COMPONENT…]   build and cache the binaries (all but the suites, when none is named)
  up                   start a cluster of NODES nodes (environment, default 3)
  down                 stop it and remove everything that it made
  status               what runs, and what Kubernetes says
  shell [NODE]         a shell inside a node (default node1)
  exec NODE COMMAND…   run a command inside a node
  outside COMMAND…     run a command in the network outside the cluster
  fabric open          let the fabric pass everything, as it does after "up"
  fabric strict        drop what nodes send from addresses that are not their own, such as pods'
  fabric mtu BYTES     drop larger IP packets silently, but for TCP between nodes
  load IMAGE.tar…      import image archives on every node
  backup FOLDER        keep what etcd holds
  restore FOLDER       make etcd hold that again
  bin [NAME]           print the folder of the built binaries, or the path of one
  envtest-assets       print a folder with kube-apiserver, etcd and kubectl

Components: $(component_names | tr '\n' ' ')
USAGE
}

say() { printf '%s\n' "$*"; }

warn() { printf '%s\n' "$*" >&2; }

die() {
	warn "error: $*"
	exit 1
}

need_root() {
	[ "$(id -u)" -eq 0 ] || die "making namespaces needs root; run this again as root"
}

# now_ms prints milliseconds of a clock, for durations only.
now_ms() { date +%s%3N; }

# Debian package for each program that the cluster, its images or a node's shell uses.
package_of() {
	cat <<'LIST'
bash bash
busybox busybox-static
conntrack conntrack
curl curl
dash dash
dig bind9-dnsutils
flock util-linux
fping fping
getent libc-bin
ip iproute2
iperf iperf
iperf3 iperf3
iptables iptables
mount mount
nc netcat-openbsd
nft nftables
nsenter util-linux
openssl openssl
ping iputils-ping
runc runc
socat socat
ss iproute2
sysctl procps
tcpdump tcpdump
LIST
}

missing_packages() {
	local program package
	package_of | while read -r program package; do
		command -v "$program" >/dev/null || printf '%s\n' "$package"
	done | sort -u
}

need_packages() {
	local missing
	missing=$(missing_packages | tr '\n' ' ')
	[ -z "$missing" ] || die "missing Debian packages: ${missing% }; run: hack/cluster/cluster deps"
}

cmd_deps() {
	local missing
	mapfile -t missing < <(missing_packages)
	if [ ${#missing[@]} -eq 0 ]; then
		say "all packages are installed"
		return
	fi
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		die "install these packages as root: ${missing[*]}"
	fi
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# wait_for SECONDS WHAT LOG COMMAND… polls until the command succeeds. It fails after that time, or as soon as a process of
# the cluster has ended, and shows the end of the log that should say why.
wait_for() {
	local seconds=$1 what=$2 log=$3 ended
	shift 3
	local deadline=$(($(now_ms) + seconds * 1000))
	until "$@" >/dev/null 2>&1; do
		ended=$(dead_processes | head -n 1)
		if [ -n "$ended" ]; then
			fail_with_log "$state/logs/$ended.log" "$ended has ended"
		fi
		if [ "$(now_ms)" -gt "$deadline" ]; then
			fail_with_log "$log" "$what did not happen within $seconds s"
		fi
		sleep 0.2
	done
}

fail_with_log() {
	if [ -f "$1" ]; then
		warn "the end of $1:"
		tail -n 15 "$1" >&2
	fi
	die "$2"
}
