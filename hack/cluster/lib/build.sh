# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo" and "state" are set by the script that sources this file.
# Building the binaries from pinned Go modules, and keeping them in a cache that all checkouts of a user share.

cache=${PODNET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podnet}

# component module package, in the order of building: the API server compiles what its siblings share.
component_table() {
	cat <<'LIST'
kube-apiserver kubernetes k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager kubernetes k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler kubernetes k8s.io/kubernetes/cmd/kube-scheduler
kubelet kubernetes k8s.io/kubernetes/cmd/kubelet
kube-proxy kubernetes k8s.io/kubernetes/cmd/kube-proxy
kubectl kubernetes k8s.io/kubernetes/cmd/kubectl
agnhost kubernetes k8s.io/kubernetes/test/images/agnhost
etcd etcd go.etcd.io/etcd/server/v3
containerd containerd github.com/containerd/containerd/v2/cmd/containerd
ctr containerd github.com/containerd/containerd/v2/cmd/ctr
containerd-shim-runc-v2 containerd github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
coredns coredns github.com/coredns/coredns
helm helm helm.sh/helm/v4/cmd/helm
e2e e2e k8s.io/kubernetes/test/e2e
ginkgo e2e github.com/onsi/ginkgo/v2/ginkgo
network-policy-api network-policy-api sigs.k8s.io/network-policy-api/conformance
LIST
}

component_names() { component_table | cut -d' ' -f1; }

# Suites take minutes to build and only conformance runs need them, so they are built when they are named. Their modules
# are their own, as they need more than the cluster does.
default_components() { component_names | grep -vxE 'e2e|ginkgo|network-policy-api'; }

# What `up` runs.
cluster_components() { default_components | grep -vx helm; }

file_of() {
	case $1 in
	e2e | network-policy-api) say "$1.test" ;;
	*) say "$1" ;;
	esac
}

# pinned MODULE GO-MODULE prints the version that the module's go.mod requires.
pinned() {
	awk -v module="$2" '$1 == module && $2 ~ /^v/ { print $2; exit }' "$here/modules/$1/go.mod"
}

# Programs that report a version take it from the linker.
ldflags_of() {
	case $1 in
	kubernetes | e2e) say "-s -w -X k8s.io/component-base/version.gitVersion=$(pinned "$1" k8s.io/kubernetes)" ;;
	helm) say "-s -w -X helm.sh/helm/v4/internal/version.version=$(pinned helm helm.sh/helm/v4)" ;;
	*) say "-s -w" ;;
	esac
}

# The cache folder of a module: another go.mod, go.sum, platform or flag is another folder, so nothing in it goes stale.
module_cache() {
	local hash
	hash=$( (cat "$here/modules/$1/go.mod" "$here/modules/$1/go.sum" && ldflags_of "$1" && uname -m) | sha256sum | cut -c1-12)
	say "$cache/$1-$hash"
}

module_of() { component_table | awk -v name="$1" '$1 == name { print $2 }'; }

# binary NAME prints where the component's binary is, or will be once built.
binary() { say "$(module_cache "$(module_of "$1")")/$(file_of "$1")"; }

build_one() {
	local name=$1 module=$2 package=$3 out=$4 ldflags
	ldflags=$(ldflags_of "$module")
	mkdir -p "$(dirname "$out")"
	# A name of our own for the unfinished file: two checkouts may build the same thing at the same time.
	local partial=$out.partial.$$
	local command=(build)
	[[ $out != *.test ]] || command=(test -c)
	(cd "$here/modules/$module" &&
		CGO_ENABLED=0 go "${command[@]}" -ldflags "$ldflags" -o "$partial" "$package") || {
		rm -f "$partial"
		die "building $name failed"
	}
	mv -f "$partial" "$out"
}

# build_components NAME… builds what the cache does not hold, and links all of it into .cluster/bin.
build_components() {
	local name module package todo=()
	for name in "$@"; do
		[ -n "$(module_of "$name")" ] || die "no such component: $name (there are: $(component_names | tr '\n' ' '))"
		[ -x "$(binary "$name")" ] || todo+=("$name")
	done
	if [ ${#todo[@]} -gt 0 ]; then
		command -v go >/dev/null || die "building needs Go; install it and put it into PATH"
	fi
	local count=0 started
	for name in "${todo[@]}"; do
		read -r _ module package < <(component_table | grep "^$name ")
		count=$((count + 1))
		printf 'building %s (%d of %d) … ' "$name" "$count" "${#todo[@]}" >&2
		started=$SECONDS
		build_one "$name" "$module" "$package" "$(binary "$name")"
		printf '%d s\n' $((SECONDS - started)) >&2
	done
	link_binaries
}

# One folder with every binary that is there, whatever module it came from: for PATH, and for envtest.
link_binaries() {
	local name path
	mkdir -p "$state/bin"
	while read -r name; do
		path=$(binary "$name")
		[ -x "$path" ] || continue
		[ "$(readlink "$state/bin/$(file_of "$name")" || true)" != "$path" ] || continue
		ln -s "$path" "$state/bin/.link.$$"
		mv -fT "$state/bin/.link.$$" "$state/bin/$(file_of "$name")"
	done < <(component_names)
}

# own_tool NAME builds one of this repository's small programs, keyed by its source, so that `up` does not depend on the
# rest of the working tree compiling at this moment.
own_tool() {
	local folder=$1 hash out
	hash=$(cat "$repo/$folder"/*.go | sha256sum | cut -c1-12)
	out=$cache/tools-$hash/$(basename "$folder")
	if [ ! -x "$out" ]; then
		mkdir -p "$(dirname "$out")"
		(cd "$repo" && CGO_ENABLED=0 go build -o "$out.partial.$$" "./$folder") || die "building $folder failed"
		mv -f "$out.partial.$$" "$out"
	fi
	say "$out"
}

cmd_build() {
	local names=("$@")
	[ $# -gt 0 ] || mapfile -t names < <(default_components)
	build_components "${names[@]}"
	say "binaries are in $state/bin"
}

cmd_bin() {
	if [ $# -eq 0 ]; then
		link_binaries
		say "$state/bin"
		return
	fi
	local name=${1%.test}
	[ -n "$(module_of "$name")" ] || die "no such component: $1"
	build_components "$name"
	binary "$name"
}

cmd_envtest_assets() {
	build_components kube-apiserver etcd kubectl
	say "$state/bin"
}
