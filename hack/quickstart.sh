#!/usr/bin/env bash
# Usage: [NODES=3] [CLUSTER_NAME=podnet] hack/quickstart.sh
#
# From nothing to pods that reach each other: a cluster on this machine, podnet installed with Helm, a pod on each node,
# and a table of who reaches whom, first through the overlay, then routed, under the same running pods. The cluster
# stays up. Safe to run again: it goes on from what is there. CLUSTER_NAME names the cluster, as for hack/cluster/cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

namespace=podnet-system
demo=podnet-quickstart
port=8080
# What goes before the commands that are printed, so that they are about this cluster and no other.
as=${CLUSTER_NAME:+CLUSTER_NAME=$CLUSTER_NAME }

step=
began=$SECONDS
start() {
	step=$1
	printf '\n==> %s\n' "$step"
}
trap 'status=$?; if ((status)); then explain >&2; fi' EXIT
explain() {
	[[ -n $step ]] || return 0
	printf '\nquickstart: this step failed, for the reason above: %s\n' "$step"
	if [[ -n ${state:-} && -d $state/logs ]]; then
		echo "The logs of the cluster are in $state/logs; its pods: ${as}make cluster-shell, then kubectl get pods -A."
	fi
	echo "Once mended, run it again: it goes on from what is there. To start anew: ${as}make cluster-down."
}
fail() {
	echo "quickstart: $*" >&2
	exit 1
}

[[ $(uname -s) == Linux ]] || fail "the cluster's nodes are namespaces of Linux; this is $(uname -s)."
[[ $(id -u) == 0 ]] || fail "making nodes out of namespaces needs root: run it again as root."
command -v go >/dev/null || fail "Go builds all of this, and is not in PATH: install Go 1.26 or newer from https://go.dev/dl."

# await SECONDS WHAT COMMAND… polls until the command succeeds.
await() {
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS > deadline)); then
			echo "quickstart: $what did not happen in time. What the nodes report:" >&2
			kubectl get podnetworks,nodenetworks -o wide >&2 || true
			kubectl --namespace "$namespace" get pods -o wide >&2 || true
			exit 1
		fi
		sleep 0.5
	done
}

nodes_ready() {
	[[ $(kubectl get podnetwork default -o jsonpath='{.status.nodesReady}') == "$nodes" ]] &&
		kubectl wait nodes --all --for=condition=Ready --timeout=1s
}

# paths_are KIND succeeds when every node's agent says that all its paths are of this kind, routed or overlay.
paths_are() {
	local routed overlay down wanted other reports
	reports=$(kubectl get nodenetworks \
		-o jsonpath='{range .items[*]}{.status.paths.routed} {.status.paths.overlay} {.status.paths.down}{"\n"}{end}')
	[[ $(wc -l <<<"$reports") == "$nodes" ]] || return 1
	while read -r routed overlay down; do
		wanted=$overlay other=$routed
		[[ $1 == overlay ]] || wanted=$routed other=$overlay
		[[ $down == 0 && $other == 0 && $wanted != 0 ]] || return 1
	done <<<"$reports"
}

show_pods() {
	kubectl --namespace "$demo" get pods -o \
		custom-columns='POD:.metadata.name,NODE:.spec.nodeName,ADDRESSES:.status.podIPs[*].ip,RESTARTS:.status.containerStatuses[0].restartCount'
}

# identities prints what changes when a pod is replaced or restarted.
identities() {
	kubectl --namespace "$demo" get pods \
		-o jsonpath='{range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID}{"\n"}{end}' | sort
}

# show_table makes every pod try every other, from inside the pods.
show_table() {
	local targets pod
	mapfile -t targets < <(kubectl --namespace "$demo" get pods --sort-by=.spec.nodeName \
		-o jsonpath='{range .items[*]}--target={.spec.nodeName}={range .status.podIPs[*]}{.ip},{end}{"\n"}{end}' | sed 's/,$//')
	pod=$(kubectl --namespace "$demo" get pods -o jsonpath='{.items[0].metadata.name}')
	kubectl --namespace "$demo" exec "$pod" -- /manager connectivity check --port="$port" "${targets[@]}"
}

start "A cluster of nodes that are namespaces on this machine (the first time it builds Kubernetes: 15 minutes on 2 cores)"
hack/cluster/cluster deps
state=$(dirname "$(hack/cluster/cluster bin)")
export KUBECONFIG=$state/kubeconfig PATH=$state/bin:$PATH
if [[ -z ${NODES:-} ]] && hack/cluster/cluster status >/dev/null 2>&1; then
	nodes=$(kubectl get nodes -o name | wc -l)
	echo "a cluster of $nodes nodes is up already"
else
	nodes=${NODES:-3}
	NODES=$nodes hack/cluster/cluster up
fi
((nodes > 1)) || fail "to show packets that travel between nodes, it takes two of them: NODES=3."
hack/cluster/cluster build kubectl helm

start "podnet's image, built from this source and brought to every node"
hack/make-image.sh
hack/cluster/cluster load bin/podnet-image.tar
image=$(helm show chart charts/podnet | awk '$1 == "appVersion:" { print $2 }')
image=$(helm show values charts/podnet | awk '$1 == "repository:" { print $2; exit }'):$image

start "podnet, installed with Helm"
settings=(--set 'network.ranges[0].cidr=10.244.0.0/16' --set 'network.ranges[1].cidr=fd00:10:244::/48')
if helm status podnet --namespace "$namespace" >/dev/null 2>&1; then
	echo "podnet is there already, and is brought up to date"
	helm upgrade podnet charts/podnet --namespace "$namespace" --reset-then-reuse-values >/dev/null
	# The image has the name that it had before, so nothing else tells the pods of a new one.
	kubectl --namespace "$namespace" rollout restart deployment/podnet-manager daemonset/podnet-agent >/dev/null
else
	echo "helm install podnet charts/podnet --namespace $namespace --create-namespace ${settings[*]}"
	helm install podnet charts/podnet --namespace "$namespace" --create-namespace "${settings[@]}" >/dev/null
fi
kubectl --namespace "$namespace" rollout status deployment/podnet-manager --timeout=120s >/dev/null
kubectl --namespace "$namespace" rollout status daemonset/podnet-agent --timeout=120s >/dev/null
kubectl patch podnetwork default --type=merge --patch '{"spec":{"routeMode":"Overlay"}}' >/dev/null
await 120 "that every node carries pods" nodes_ready
await 60 "that every path is an overlay path" paths_are overlay
kubectl get nodes
kubectl get podnetworks,nodesubnets

start "A pod on each node"
kubectl apply --filename - >/dev/null <<MANIFEST
apiVersion: v1
kind: Namespace
metadata:
  name: $demo
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: pod
  namespace: $demo
spec:
  selector:
    matchLabels: {app: pod}
  template:
    metadata:
      labels: {app: pod}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      tolerations:
        - operator: Exists
      containers:
        - name: pod
          image: $image
          command: [/manager, connectivity, serve, --port=$port]
          ports:
            - containerPort: $port
          readinessProbe:
            httpGet: {path: /healthz, port: $port}
            periodSeconds: 1
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
MANIFEST
kubectl --namespace "$demo" rollout status daemonset/pod --timeout=120s >/dev/null
show_pods

start "Who reaches whom through the overlay: from each row to each column, round trip in milliseconds"
before=$(identities)
show_table

start "The same running pods, routed"
echo "kubectl patch podnetwork default --type=merge -p '{\"spec\":{\"routeMode\":\"Routed\"}}'"
kubectl patch podnetwork default --type=merge --patch '{"spec":{"routeMode":"Routed"}}' >/dev/null
await 60 "that every path is a routed path" paths_are routed
kubectl get nodenetworks
show_table
show_pods
[[ $(identities) == "$before" ]] || fail "pods were replaced or restarted while their paths changed."
echo "They are the same pods as before, and none was restarted."

step=
cat <<NEXT

Done in $((SECONDS - began)) s. The cluster stays up. Next, for example:

  ${as}make cluster-shell                       # a shell on node1, with kubectl; or from here:
  export KUBECONFIG=$state/kubeconfig PATH=$state/bin:\$PATH

  kubectl get podnetworks,nodesubnets,nodenetworks
  kubectl describe nodenetwork node1       # what the agent of a node reports
  kubectl patch podnetwork default --type=merge -p '{"spec":{"routeMode":"Overlay"}}'
  helm test podnet --namespace $namespace
  make test                                # everything that is tested
  ${as}make cluster-down                        # remove the cluster from this machine
NEXT
