#!/usr/bin/env bash
# Usage: hack/dump-cluster.sh FOLDER
#
# Writes down what one needs to know about a local cluster on which something went wrong: what Kubernetes says, what podnet
# logged, and what is in each node's kernel. CLUSTER_NAME names the cluster, as for hack/cluster/cluster.
set -uo pipefail # a question that finds no answer is no reason not to ask the next one

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
(($# == 1)) || {
	echo "usage: hack/dump-cluster.sh FOLDER" >&2
	exit 2
}
out=$1
mkdir -p "$out" || exit
cluster=hack/cluster/cluster
bin=$("$cluster" bin)
export KUBECONFIG=$bin/../kubeconfig PATH=$bin:$PATH

# to FILE COMMAND… asks in a limited time, since a broken cluster may not answer at all.
to() {
	local file=$1
	shift
	{
		echo "# $*"
		timeout 20 "$@" 2>&1
		echo
	} >>"$out/$file"
}

to kubernetes.txt kubectl get nodes,pods,services,endpointslices --all-namespaces --output=wide
to kubernetes.txt kubectl describe nodes
to kubernetes.txt kubectl describe pods --all-namespaces
to events.txt kubectl get events --all-namespaces --sort-by=.metadata.creationTimestamp
to podnet.txt kubectl get podnet --output=wide
to podnet.yaml kubectl get podnet --output=yaml
while read -r namespace pod; do
	to "$pod.log" kubectl logs --namespace "$namespace" "$pod"
	to "$pod.log" kubectl logs --namespace "$namespace" "$pod" --previous
done < <(timeout 20 kubectl get pods --all-namespaces --selector=app.kubernetes.io/name=podnet --no-headers \
	--output=custom-columns=:.metadata.namespace,:.metadata.name)
for node in $(timeout 20 kubectl get nodes --output=jsonpath='{.items[*].metadata.name}'); do
	for question in "ip -details address" "ip rule" "ip -6 rule" "ip route show table all" "ip -6 route show table all" \
		"ip neighbour" "bridge fdb" "nft list ruleset" "ss -lntup" "conntrack -L" "ls -lR /etc/cni/net.d /opt/cni/bin /run/podnet" \
		"sysctl net.ipv4.conf net.ipv6.conf net.ipv4.ip_forward net.bridge"; do
		# shellcheck disable=SC2086 # each question is a command and its arguments
		to "$node.txt" "$cluster" exec "$node" $question
	done
done
cp -r "$bin/../logs" "$out/" 2>/dev/null
echo "what the cluster was like is in $out" >&2
