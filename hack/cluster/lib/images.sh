# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo" and "state" are set by the script that sources this file.
# The container images of the cluster, assembled from built binaries and programs of this machine.

# The names under which Kubernetes' own end-to-end suite (test/utils/image/manifest.go), and the last under which that of
# network-policy-api, asks for what our one image with agnhost and shell tools can do. The first is also the sandbox image
# of containerd.
agnhost_image=registry.k8s.io/e2e-test-images/agnhost:2.66.1
agnhost_tags=(
	"$agnhost_image"
	registry.k8s.io/e2e-test-images/busybox:1.37.0-2
	registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1
	registry.k8s.io/pause:3.10.2
	registry.k8s.io/e2e-test-images/agnhost:2.45
)

# Programs that specs and our own tests run in a shell. dash is /bin/sh: busybox's own shell prefers its applets to what PATH finds.
agnhost_programs=(bash curl dash dig fping getent ip iperf iperf3 nc socat ss)

# Without this file fping does not know what ICMP is.
protocols=$repo/hack/rootfs/protocols
# Before agnhost itself: where the kernel has no SCTP, hack/sctp takes its place for that.
agnhost_wrapper=$repo/hack/rootfs/agnhost

coredns_image() { say "registry.k8s.io/coredns/coredns:$(pinned coredns github.com/coredns/coredns)"; }

# path_of prints the file behind a program's name, through links such as those of Debian's alternatives.
path_of() { readlink -f "$(command -v "$1")"; }

# The folder of the finished archives: named by everything that goes into them.
image_cache() {
	local hash program
	hash=$({
		binary agnhost
		binary coredns
		coredns_image
		cat "$repo"/hack/image/*.go "$repo"/hack/sctp/*.go "$here/lib/images.sh" "$protocols" "$agnhost_wrapper"
		for program in busybox "${agnhost_programs[@]}"; do
			stat -c '%n %s %Y' "$(path_of "$program")"
		done
	} | sha256sum | cut -c1-12)
	say "$cache/images-$hash"
}

build_images() {
	local folder image
	folder=$(image_cache)
	[ ! -f "$folder/agnhost.tar" ] || [ ! -f "$folder/coredns.tar" ] || return 0
	warn "assembling the images of agnhost and CoreDNS"
	image=$(own_tool hack/image)
	"$image" -o "$folder/coredns.tar" -tag "$(coredns_image)" \
		-file "$(binary coredns):/coredns" -entrypoint /coredns
	build_agnhost_image "$image" "$folder/agnhost.tar"
}

build_agnhost_image() {
	local image=$1 out=$2 sctp program tag applet real arguments=()
	sctp=$(own_tool hack/sctp)
	for tag in "${agnhost_tags[@]}"; do arguments+=(-tag "$tag"); done
	for program in "${agnhost_programs[@]}"; do
		real=$(path_of "$program")
		arguments+=(-file "$real:/usr/bin/$program" -libs-of "$real")
	done
	while read -r applet; do
		case " ${agnhost_programs[*]} sh busybox " in
		*" $applet "*) ;;
		*) arguments+=(-link "/bin/busybox:/bin/$applet") ;;
		esac
	done < <(busybox --list)
	# user-defined-in-image is a user that the upstream agnhost image has and that specs ask for.
	local etc
	etc=$(mktemp -d)
	cat >"$etc/passwd" <<-'USERS'
		root:x:0:0:root:/root:/bin/sh
		nobody:x:65534:65534:nobody:/:/bin/sh
		user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh
	USERS
	cat >"$etc/group" <<-'GROUPS'
		root:x:0:
		nogroup:x:65534:
		user-defined-in-image:x:1000:
		group-defined-in-image:x:50000:user-defined-in-image
	GROUPS
	# Without this file the C library asks DNS before it looks into /etc/hosts.
	printf 'hosts: files dns\n' >"$etc/nsswitch.conf"
	"$image" -o "$out" "${arguments[@]}" \
		-file "$(binary agnhost):/agnhost-2" -file "$sctp:/sctp" -file "$agnhost_wrapper:/agnhost" -entrypoint /agnhost -cmd pause \
		-file "$(path_of busybox):/bin/busybox" -link /usr/bin/dash:/bin/sh -link /usr/bin/bash:/bin/bash \
		-libs-of "$(path_of getent)" -dir /tmp:1777 -dir /uploads -dir /root:0700 \
		-file "$etc/passwd:/etc/passwd" -file "$etc/group:/etc/group" \
		-file "$etc/nsswitch.conf:/etc/nsswitch.conf" -file "$protocols:/etc/protocols" \
		-file "$(porter_file localhost.crt):/localhost.crt" -file "$(porter_file localhost.key):/localhost.key"
	rm -r "$etc"
}

# The certificate that agnhost's porter serves, which specs about proxies ask for.
porter_file() {
	say "$(cd "$here/modules/kubernetes" && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/agnhost/porter/$1"
}

# import_image NODE ARCHIVE. With --local, ctr itself unpacks what it reads, and needs no registry's idea of a platform.
import_image() {
	local output
	output=$(in_node "$1" "$(binary ctr)" -n k8s.io images import --local "$2" 2>&1) || {
		warn "$output"
		die "importing $2 on $1 failed"
	}
}

cmd_load() {
	need_root
	need_up
	[ $# -gt 0 ] || die "name at least one image archive"
	local archive node
	for archive in "$@"; do
		[ -f "$archive" ] || die "no such file: $archive"
		archive=$(readlink -f "$archive")
		for node in $(node_names); do
			import_image "$node" "$archive"
		done
		say "$archive is on all nodes"
	done
}
