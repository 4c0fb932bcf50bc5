# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo" and "state" are set by the script that sources this file.
# Processes of the cluster: starting them where they belong, and knowing them again.
#
# Every process of the cluster lives in a cgroup below one of the cluster's own name: what a process starts stays in it,
# so that stopping finds all of them, containers and shims included, and can find no other. Each program's
# process is also recorded with its start time, so that a process number used again is not taken for it.

cgroup_top=$CLUSTER_NAME-cluster

# cgroup_roots prints the cgroup hierarchies to use: one for each of v1's controllers, or the single one of v2. Beside v1,
# a v2 hierarchy holds no controllers.
cgroup_roots() {
	if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
		say /sys/fs/cgroup
	else
		awk '$3 == "cgroup" && $2 ~ "^/sys/fs/cgroup/" { print $2 }' /proc/mounts
	fi
}

# make_cgroup PATH makes a cgroup, and those above it, able to hold limits.
make_cgroup() {
	local root at part
	while read -r root; do
		at=$root
		for part in ${1//\// }; do
			if [ -f "$at/cgroup.subtree_control" ]; then
				# A controller that the machine has not is no reason to stop: the kubelet names what it lacks.
				for controller in cpu cpuset io memory pids; do
					echo "+$controller" >"$at/cgroup.subtree_control" 2>/dev/null || true
				done
			fi
			mkdir -p "$at/$part"
			if [ -f "$at/$part/cpuset.cpus" ] && [ -f "$at/cpuset.cpus" ] && [ ! -f "$at/cgroup.controllers" ]; then
				# In v1 a new cpuset is empty, and nothing can run in it.
				cat "$at/cpuset.cpus" >"$at/$part/cpuset.cpus"
				cat "$at/cpuset.mems" >"$at/$part/cpuset.mems"
			fi
			at=$at/$part
		done
	done < <(cgroup_roots)
}

# weigh_cgroup gives the cluster ten times the processor time of what else wants it: it stands for several machines, and
# its packets are not to wait for a compiler.
weigh_cgroup() {
	local root
	while read -r root; do
		if [ -f "$root/$cgroup_top/cpu.shares" ]; then echo 10240 >"$root/$cgroup_top/cpu.shares"; fi
		if [ -f "$root/$cgroup_top/cpu.weight" ]; then echo 1000 >"$root/$cgroup_top/cpu.weight"; fi
	done < <(cgroup_roots)
}

# join_cgroup PATH moves this very shell.
join_cgroup() {
	local root
	while read -r root; do
		echo "$BASHPID" >"$root/$cgroup_top/$1/cgroup.procs"
	done < <(cgroup_roots)
}

# cluster_cgroups prints the cluster's cgroups, children first, in every hierarchy: runc also uses a v2 one beside v1.
cluster_cgroups() {
	local root
	while read -r root; do
		[ ! -d "$root/$cgroup_top" ] || find "$root/$cgroup_top" -depth -type d
	done < <(awk '$3 ~ "^cgroup2?$" { print $2 }' /proc/mounts | sort -u)
}

# cluster_pids prints every process of the cluster.
cluster_pids() {
	local group
	cluster_cgroups | while read -r group; do
		cat "$group/cgroup.procs" 2>/dev/null || true
	done | sort -un
}

# kill_cluster ends them. Again and again, as a process may start another while we read.
kill_cluster() {
	local pids deadline=$(($(now_ms) + 20000))
	while mapfile -t pids < <(cluster_pids) && [ ${#pids[@]} -gt 0 ]; do
		kill -KILL "${pids[@]}" 2>/dev/null || true
		[ "$(now_ms)" -lt "$deadline" ] || die "processes ${pids[*]} do not end; see: ps ${pids[*]}"
		sleep 0.05
	done
}

remove_cgroups() {
	local group deadline=$(($(now_ms) + 10000))
	# A cgroup may stay busy for a moment after its last process has gone.
	while cluster_cgroups | while read -r group; do rmdir "$group" 2>/dev/null; done && [ -n "$(cluster_cgroups)" ]; do
		[ "$(now_ms)" -lt "$deadline" ] || die "cannot remove $(cluster_cgroups | tail -n 1)"
		sleep 0.1
	done
}

# start_time PID prints when the process started, in the kernel's ticks. The command's name, in parentheses, may hold spaces.
start_time() {
	local line
	line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	line=${line##*) }
	# shellcheck disable=SC2086 # the fields are to be split
	set -- $line
	[ "$1" != Z ] || return 1
	say "${20}"
}

# spawn NAME CGROUP COMMAND… starts a process that outlives this shell, logs to .cluster/logs/NAME.log, and is recorded in
# .cluster/pids/NAME.
spawn() {
	local name=$1 cgroup=$2 pid
	shift 2
	# Descriptor 9 is our lock, which must not live on in the process.
	(
		exec 9>&- </dev/null >>"$state/logs/$name.log" 2>&1
		join_cgroup "$cgroup"
		exec setsid "$@"
	) &
	pid=$!
	disown "$pid"
	printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$state/pids/$name"
}

# pid_of NAME prints the process of that name, if it still is the one that was started.
pid_of() {
	local pid started
	[ -f "$state/pids/$1" ] || return 1
	read -r pid started <"$state/pids/$1" || return 1
	[ "$(start_time "$pid")" = "$started" ] || return 1
	say "$pid"
}

# stop NAME ends a process and returns when it has gone.
stop() {
	local pid deadline=$(($(now_ms) + 20000))
	pid=$(pid_of "$1") || return 0
	kill "$pid"
	while [ "$(pid_of "$1")" = "$pid" ]; do
		[ "$(now_ms)" -lt "$deadline" ] || kill -KILL "$pid" 2>/dev/null || true
		sleep 0.05
	done
}

# dead_processes prints the names of recorded processes that no longer run.
dead_processes() {
	local file name
	for file in "$state"/pids/*; do
		name=$(basename "$file")
		pid_of "$name" >/dev/null || say "$name"
	done
}
