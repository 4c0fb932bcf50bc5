#!/usr/bin/env bash
# Runs as the first process of a node, in its new network, mount and UTS namespaces: NAME FOLDER. Gives the node file
# systems of its own where a real one would differ from the next, then holds the namespaces open.
set -euo pipefail

node=$1
folder=$2

hostname "$node"

# /sys/class/net must show the node's links, so it is mounted anew, with the machine's cgroups below it.
mkdir -p "$folder/cgroup"
mount --rbind /sys/fs/cgroup "$folder/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$folder/cgroup" /sys/fs/cgroup
umount -R "$folder/cgroup"
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf

mount -t tmpfs -o mode=755 tmpfs /run

while read -r at; do
	mkdir -p "$folder/root$at"
	mount --bind "$folder/root$at" "$at"
done <"$(dirname "$folder")/mountpoints"
mount --bind "$folder/hosts" /etc/hosts

# The kubelet sets these for the whole kernel unless they already read like this. They belong to the machine, so the
# node sees files of its own in their place.
kernel_setting() {
	printf '%s\n' "$2" >"$folder/${1//\//-}"
	mount --bind "$folder/${1//\//-}" "/proc/sys/$1"
}
kernel_setting vm/overcommit_memory 1
kernel_setting vm/panic_on_oom 0
kernel_setting kernel/panic 10
kernel_setting kernel/panic_on_oops 1
kernel_setting kernel/keys/root_maxkeys 1000000
kernel_setting kernel/keys/root_maxbytes 25000000

# As systemd sets it up on a real node: mounts made in a container or by the kubelet are seen in the whole node. The node
# is cut off from the machine's mounts by then. Not sooner: each mount made above would be a peer of what it shows, and
# what is mounted below the one would appear below the other too.
mount --make-rshared /

touch "$folder/ready"
exec -a "podnet-cluster-$node" sleep infinity
