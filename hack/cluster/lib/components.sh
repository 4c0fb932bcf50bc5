# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo" and "state" are set by the script that sources this file.
# Kubernetes' own components and containerd: how each is configured and started.

service_ranges=10.96.0.0/16,fd00:10:96::/112
dns_v4=10.96.0.10

# spawn_in NODE NAME COMMAND… starts a component inside a node.
spawn_in() {
	local node=$1 name=$2
	shift 2
	spawn "$name" "$node/system" nsenter --target "$(pid_of "$node")" --net --mount --uts -- "$@"
}

# The port is 6443 on node1 in its own network namespace, so it is taken by nobody else.
server_inside() { say "https://$(node_v4 node1):6443"; }

start_etcd() {
	# A cluster that lives until `down` need not survive a loss of power.
	spawn_in node1 etcd "$(binary etcd)" --name node1 --data-dir "$state/nodes/node1/etcd" --unsafe-no-fsync \
		--listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 \
		--listen-peer-urls https://127.0.0.1:2380 --initial-advertise-peer-urls https://127.0.0.1:2380 \
		--initial-cluster node1=https://127.0.0.1:2380 \
		--cert-file "$pki/etcd-server.crt" --key-file "$pki/etcd-server.key" \
		--client-cert-auth --trusted-ca-file "$pki/etcd-ca.crt" \
		--peer-cert-file "$pki/etcd-server.crt" --peer-key-file "$pki/etcd-server.key" \
		--peer-client-cert-auth --peer-trusted-ca-file "$pki/etcd-ca.crt"
}

start_apiserver() {
	spawn_in node1 kube-apiserver "$(binary kube-apiserver)" --secure-port 6443 \
		--advertise-address "$(node_v4 node1)" --allow-privileged --authorization-mode Node,RBAC \
		--enable-admission-plugins NodeRestriction --service-cluster-ip-range "$service_ranges" \
		--client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" \
		--tls-private-key-file "$pki/apiserver.key" \
		--etcd-servers https://127.0.0.1:2379 --etcd-cafile "$pki/etcd-ca.crt" \
		--etcd-certfile "$pki/etcd-client.crt" --etcd-keyfile "$pki/etcd-client.key" \
		--kubelet-certificate-authority "$pki/ca.crt" \
		--kubelet-client-certificate "$pki/apiserver-kubelet-client.crt" \
		--kubelet-client-key "$pki/apiserver-kubelet-client.key" \
		--kubelet-preferred-address-types InternalIP,Hostname \
		--requestheader-client-ca-file "$pki/front-proxy-ca.crt" \
		--requestheader-allowed-names front-proxy-client \
		--requestheader-extra-headers-prefix X-Remote-Extra- \
		--requestheader-group-headers X-Remote-Group --requestheader-username-headers X-Remote-User \
		--proxy-client-cert-file "$pki/front-proxy-client.crt" \
		--proxy-client-key-file "$pki/front-proxy-client.key" \
		--service-account-issuer https://kubernetes.default.svc.cluster.local \
		--service-account-key-file "$pki/sa.pub" --service-account-signing-key-file "$pki/sa.key"
}

# There is one of each, so neither waits to be elected.
start_controller_manager() {
	local config=$state/nodes/node1/controller-manager.kubeconfig
	make_kubeconfig "$config" https://127.0.0.1:6443 controller-manager
	spawn_in node1 kube-controller-manager "$(binary kube-controller-manager)" --kubeconfig "$config" \
		--authentication-kubeconfig "$config" --authorization-kubeconfig "$config" \
		--leader-elect=false --bind-address 127.0.0.1 --use-service-account-credentials \
		--allocate-node-cidrs=false --service-cluster-ip-range "$service_ranges" \
		--root-ca-file "$pki/ca.crt" --service-account-private-key-file "$pki/sa.key" \
		--cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
		--client-ca-file "$pki/ca.crt" --requestheader-client-ca-file "$pki/front-proxy-ca.crt"
}

start_scheduler() {
	local config=$state/nodes/node1/scheduler.kubeconfig
	make_kubeconfig "$config" https://127.0.0.1:6443 scheduler
	spawn_in node1 kube-scheduler "$(binary kube-scheduler)" --kubeconfig "$config" \
		--authentication-kubeconfig "$config" --authorization-kubeconfig "$config" \
		--leader-elect=false --bind-address 127.0.0.1
}

start_forward() {
	spawn forward host "$(own_tool hack/cluster/forward)" -netns "/proc/$(pid_of node1)/ns/net" -to 127.0.0.1:6443 \
		-address-file "$state/api-address"
	wait_for 10 "the forwarder to the API server" "$state/logs/forward.log" test -s "$state/api-address"
	make_kubeconfig "$state/kubeconfig" "https://$(cat "$state/api-address")" admin
	# The machine's loopback address is not reachable from inside a node.
	make_kubeconfig "$state/kubeconfig-inside" "$(server_inside)" admin
}

start_containerd() {
	local node=$1 config=$state/nodes/$1/containerd.toml
	# What a distribution would not set either stays at its default, the need of a CNI plugin for loopback included. Except
	# that pods do not go before the machine's own processes when memory runs out, which inside a container or a small
	# virtual machine even root may not ask for.
	cat >"$config" <<-CONFIG
		version = 3
		root = "/var/lib/containerd"
		state = "/run/containerd"

		[grpc]
		  address = "/run/containerd/containerd.sock"

		[plugins.'io.containerd.cri.v1.images'.pinned_images]
		  sandbox = "$agnhost_image"

		[plugins.'io.containerd.cri.v1.runtime']
		  restrict_oom_score_adj = true
	CONFIG
	# containerd finds its shim in PATH.
	spawn_in "$node" "containerd-$node" env "PATH=$state/bin:$PATH" "$(binary containerd)" --config "$config"
}

await_containerd() {
	wait_for 20 "containerd of $1" "$state/logs/containerd-$1.log" \
		in_node "$1" "$(binary ctr)" --connect-timeout 1s version
}

import_images() {
	local archive
	for archive in agnhost coredns; do import_image "$1" "$(image_cache)/$archive.tar"; done
}

# start_kubelet NODE [ADDRESSES]: without addresses, those that the node was made with.
start_kubelet() {
	local node=$1 addresses=${2:-$(node_v4 "$1"),$(node_v6 "$1")} folder=$state/nodes/$1
	make_kubeconfig "$folder/kubelet.kubeconfig" "$(server_inside)" "kubelet-$node"
	# The cluster knows of no name server outside itself.
	printf 'nameserver %s\n' "$outside_v4" >"$folder/resolv.conf"
	cat >"$folder/kubelet.yaml" <<-CONFIG
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication:
		  anonymous: {enabled: false}
		  webhook: {enabled: true}
		  x509: {clientCAFile: $pki/ca.crt}
		authorization: {mode: Webhook}
		tlsCertFile: $pki/kubelet-$node.crt
		tlsPrivateKeyFile: $pki/kubelet-$node.key
		rotateCertificates: false
		cgroupDriver: cgroupfs
		cgroupRoot: /$cgroup_top/$node
		failCgroupV1: false
		failSwapOn: false
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		clusterDomain: cluster.local
		clusterDNS: [$dns_v4]
		resolvConf: $folder/resolv.conf
		# Tests kill the same container again and again, and the usual pause grows from 10 s to 5 minutes.
		crashLoopBackOff: {maxContainerRestartPeriod: 1s}
		# All nodes share the machine's disk: neither its fill nor its images are a node's to judge by.
		imageGCHighThresholdPercent: 100
		evictionHard: {memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
	CONFIG
	spawn_in "$node" "kubelet-$node" "$(binary kubelet)" --config "$folder/kubelet.yaml" \
		--kubeconfig "$folder/kubelet.kubeconfig" --node-ip "$addresses"
}

start_proxy() {
	local node=$1 folder=$state/nodes/$1
	make_kubeconfig "$folder/kube-proxy.kubeconfig" "$(server_inside)" proxy
	# Pods are known by their links and not by their addresses, as a range that is added later would count as outside.
	# The size of the connection tracking table is the machine's.
	cat >"$folder/kube-proxy.yaml" <<-CONFIG
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: nftables
		detectLocalMode: InterfaceNamePrefix
		detectLocal: {interfaceNamePrefix: podn}
		clientConnection: {kubeconfig: $folder/kube-proxy.kubeconfig}
		conntrack: {maxPerCore: 0}
	CONFIG
	spawn_in "$node" "kube-proxy-$node" "$(binary kube-proxy)" --config "$folder/kube-proxy.yaml"
}

kubectl() { "$(binary kubectl)" --kubeconfig "$state/kubeconfig" "$@"; }

apply_dns() {
	sed -e "s|@IMAGE@|$(coredns_image)|" -e "s|@ADDRESS@|$dns_v4|" "$here/coredns.yaml" | kubectl apply -f - >/dev/null
}

node_registered() { kubectl get node "$1" -o name; }
