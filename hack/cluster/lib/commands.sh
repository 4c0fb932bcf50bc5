# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo", "state" and "again" are set by the script that sources this file.
# What the user asks for: up, down, status, and ways to look inside.

# Says for the whole machine which checkout a cluster of this name belongs to.
owner_file=/run/$CLUSTER_NAME-cluster.owner
# The folders of this machine that clusters have made, by whatever name: the last cluster to go down removes them, as a
# node of another one may have mounted something there.
made_folders=/run/podnet-cluster-folders

# What a node has for itself, besides the tmpfs on its /run.
node_folders="/etc/cni/net.d /opt/cni/bin /var/lib/cni /var/lib/containerd /var/lib/kubelet /var/log"

lock() {
	mkdir -p "$state"
	exec 9>"$state/lock"
	flock -n 9 || die "another up or down is at work in $repo"
}

# check_owner refuses to touch the cluster of another checkout, as long as both exist.
check_owner() {
	local owner
	[ -f "$owner_file" ] || return 0
	owner=$(cat "$owner_file")
	[ "$owner" != "$repo" ] && [ -d "$owner/$(basename "$state")" ] && [ -n "$(cluster_pids)" ] || return 0
	die "a cluster named $CLUSTER_NAME runs for the checkout in $owner: run its $again down first," \
		"or set CLUSTER_NAME to another name here"
}

# is_up is true once `up` has come to its end, and as long as nothing has ended since.
is_up() { [ -f "$state/up" ] && [ -z "$(dead_processes)" ]; }

need_up() {
	[ -d "$state/pids" ] || die "the cluster $CLUSTER_NAME is down; start it with: $again up"
}

cmd_up() {
	need_root
	need_packages
	local nodes=${NODES:-3} began
	[[ $nodes =~ ^[1-9][0-9]?$ ]] || die "NODES is to be a number from 1 to 99, not \"$nodes\""
	lock
	check_owner
	if is_up; then
		[ "$(cat "$state/nodes/count")" -eq "$nodes" ] ||
			die "the cluster is up with $(cat "$state/nodes/count") nodes; for $nodes, run down first"
		say "the cluster is already up, with $nodes nodes"
		return
	fi
	mapfile -t components < <(cluster_components)
	build_components "${components[@]}"
	build_images
	if [ -d "$state/pids" ] || [ -n "$(cluster_cgroups)" ]; then
		say "removing what is left of an earlier cluster"
		clean
	fi

	began=$(now_ms)
	raise_limits
	make_state "$nodes"
	start_network
	make_pki
	start_cluster
	touch "$state/up"
	say "$nodes nodes are up after $((($(now_ms) - began) / 1000)) s; they stay NotReady until a pod network is installed"
	say "next: export KUBECONFIG=$state/kubeconfig PATH=$state/bin:\$PATH, then kubectl get nodes"
}

# raise_limits raises limits that have no namespace of their own.
raise_limits() {
	# A few kubelets reach the usual 128, and whatever program on the machine comes next then fails.
	raise fs.inotify.max_user_instances 1024
	# A machine that is busy for a moment then keeps packets for those who come late to read them, where it would drop them:
	# what the nodes' network loses is to be seen, and nothing else.
	raise net.core.rmem_default 4194304
	raise net.core.netdev_max_backlog 10000
}

raise() {
	local setting=$1 wanted=$2 now
	now=$(sysctl -n "$setting")
	[ "$now" -lt "$wanted" ] || return 0
	sysctl -qw "$setting=$wanted"
	say "raised $setting from $now to $wanted, for the whole machine until it restarts"
}

make_state() {
	local folder
	rm -rf "$state/logs"
	mkdir -p "$state"/{logs,pids,nodes}
	say "$repo" >"$owner_file"
	say "$1" >"$state/nodes/count"
	for folder in $node_folders; do
		make_mountpoint "$folder"
		say "$folder" >>"$state/nodes/mountpoints"
	done
}

# make_mountpoint FOLDER. A node mounts over it, so it must exist on the machine too; `down` removes what was made here.
make_mountpoint() {
	[ ! -d "$1" ] || return 0
	make_mountpoint "$(dirname "$1")"
	mkdir "$1"
	say "$1" >>"$made_folders"
}

start_network() {
	local node
	for node in fabric outside host $(node_names); do make_cgroup "$cgroup_top/$node"; done
	weigh_cgroup
	start_fabric
	start_outside
	for node in $(node_names); do
		make_cgroup "$cgroup_top/$node/system"
		start_node "$node"
	done
}

start_cluster() {
	local node import
	start_etcd
	start_apiserver
	start_forward
	for node in $(node_names); do start_containerd "$node"; done
	# While the API server starts, which takes the longest.
	(
		for node in $(node_names); do
			await_containerd "$node"
			import_images "$node"
		done
	) &
	import=$!
	await_apiserver
	start_controller_manager
	start_scheduler
	wait "$import"
	for node in $(node_names); do
		start_kubelet "$node"
		start_proxy "$node"
	done
	# The first requests may come before the API server has made the default roles and namespaces.
	wait_for 30 "the application of CoreDNS" "$state/logs/kube-apiserver.log" apply_dns
	for node in $(node_names); do
		wait_for 60 "the registration of $node" "$state/logs/kubelet-$node.log" node_registered "$node"
	done
	if [ -n "$(dead_processes)" ]; then
		die "these ended: $(dead_processes | tr '\n' ' '); see $state/logs"
	fi
}

# clean removes everything that `up` makes but the logs. Network namespaces, links and mounts go with the last process in
# them.
clean() {
	kill_cluster
	remove_cgroups
	rm -rf --one-file-system "$state"/{up,nodes,pids,pki,api-address,kubeconfig,kubeconfig-inside}
	rm -f "$owner_file"
	if [ -f "$made_folders" ] && ! compgen -G '/run/*-cluster.owner' >/dev/null; then
		local folder
		tac "$made_folders" | while read -r folder; do
			[ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
		done
		rm "$made_folders"
	fi
}

cmd_down() {
	need_root
	! inside_cluster || die "leave the cluster's shell first: down would end it too"
	lock
	check_owner
	if [ ! -d "$state/pids" ] && [ -z "$(cluster_cgroups)" ]; then
		say "the cluster is down"
		return
	fi
	clean
	say "the cluster is down; its logs are in $state/logs"
}

await_apiserver() {
	wait_for 60 "the API server's readiness" "$state/logs/kube-apiserver.log" kubectl get --raw /readyz
}

# cmd_backup FOLDER keeps what etcd holds, for which the API server stands still for a moment.
cmd_backup() {
	[ $# -eq 1 ] || die "name the folder that is to hold the backup"
	need_root
	need_up
	lock
	[ ! -e "$1" ] || die "$1 exists already"
	stop kube-apiserver
	stop etcd
	cp -a "$state/nodes/node1/etcd" "$1"
	start_etcd
	start_apiserver
	await_apiserver
}

# cmd_restore FOLDER makes etcd hold what it held at the time of a backup, and starts Kubernetes' own components anew, as
# its documentation asks for: they would go by what they saw before. Pods go on meanwhile.
cmd_restore() {
	[ $# -eq 1 ] || die "name the folder that holds the backup"
	need_root
	need_up
	lock
	[ -d "$1/member" ] || die "$1 holds no backup"
	stop kube-apiserver
	stop etcd
	rm -rf "$state/nodes/node1/etcd"
	cp -a "$1" "$state/nodes/node1/etcd"
	start_etcd
	start_apiserver
	await_apiserver
	local name node
	for name in controller-manager scheduler; do
		stop "kube-$name"
		"start_${name//-/_}"
	done
	for node in $(node_names); do
		stop "kube-proxy-$node"
		start_proxy "$node"
		stop "kubelet-$node"
		start_kubelet "$node"
	done
}

# cmd_node_ip NODE ADDRESSES starts a node's kubelet anew, with other addresses to know the node by. The node has them.
cmd_node_ip() {
	[ $# -eq 2 ] || die "name a node, and its addresses with a comma between them"
	need_root
	need_up
	lock
	stop "kubelet-$1"
	make_kubelet_cert "$1" "$2"
	start_kubelet "$1" "$2"
	# kube-proxy ends when its node's addresses change, and is started again by whoever runs it.
	local deadline=$(($(now_ms) + 60000))
	until node_known_by "$1" "${2%%,*}"; do
		[ "$(now_ms)" -lt "$deadline" ] || die "$1 is not known by ${2%%,*} after a minute"
		sleep 0.5
	done
	stop "kube-proxy-$1"
	start_proxy "$1"
}

# node_known_by NODE ADDRESS says whether Kubernetes has the address for the node.
node_known_by() { kubectl get node "$1" -o jsonpath='{.status.addresses[*].address}' 2>/dev/null | grep -qwF "$2"; }

inside_cluster() { grep -q "/$cgroup_top/" "/proc/$$/cgroup"; }

cmd_status() {
	if [ ! -d "$state/pids" ]; then
		say "the cluster is down"
		return 1
	fi
	local file name dead=0
	for file in "$state"/pids/*; do
		name=$(basename "$file")
		if pid_of "$name" >/dev/null; then
			printf '%-26s pid %s\n' "$name" "$(pid_of "$name")"
		else
			printf '%-26s ended; see %s\n' "$name" "$state/logs/$name.log"
			dead=1
		fi
	done
	kubectl get nodes -o wide || dead=1
	[ $dead -eq 0 ] || die "the cluster is not whole; up makes it anew"
}

# enter GROUP NAMESPACES NAME COMMAND… runs a command as if it had been started there, in this folder. It joins the
# cluster's cgroup, so that `down` ends what it leaves running.
enter() {
	local group=$1 namespaces=$2 name=$3 pid
	shift 3
	need_root
	need_up
	pid=$(pid_of "$name") || die "there is no running $name; see: $again status"
	join_cgroup "$group"
	# shellcheck disable=SC2086 # the namespaces are several arguments
	exec nsenter --target "$pid" $namespaces -- env -C "$PWD" "PATH=$state/bin:$PATH" \
		"KUBECONFIG=$state/kubeconfig-inside" "$@"
}

cmd_exec() {
	[ $# -ge 2 ] || die "name a node and a command"
	local node=$1
	shift
	enter "$node/system" "--net --mount --uts" "$node" "$@"
}

cmd_shell() { cmd_exec "${1:-node1}" "${SHELL:-bash}"; }

cmd_outside() {
	[ $# -ge 1 ] || die "name a command"
	enter outside --net outside "$@"
}
