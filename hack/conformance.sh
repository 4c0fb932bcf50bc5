#!/usr/bin/env bash
# Usage: hack/conformance.sh [RUN...], by default all of them
#
# Runs suites that others wrote: of Kubernetes' own end-to-end suite the specs of conformance that are about networks and
# those of network policy, and the conformance suite of network-policy-api. Each run has a fresh local cluster of its
# own, on which Helm installs podnet:
#
#   overlay                attachment PointToPoint, route mode Overlay
#   routed                 attachment PointToPoint, route mode Routed
#   bridge                 attachment Bridge, route mode Overlay
#   policy                 as overlay, the specs of NetworkPolicy
#   policy-routed          as routed, the same
#   policy-bridge          as bridge, the same
#   cluster-policy         as overlay, the suite of ClusterNetworkPolicy with all features that podnet has
#   cluster-policy-bridge  as bridge, the same
#
# The results are in bin/conformance/RUN (junit.xml and e2e.log, or report.yaml and suite.log; and of a failed run, what
# its cluster was like). It fails unless every spec of every run has passed. In the environment:
#
#   FOCUS  a regular expression for the specs, instead of those of the run
#   PROCS  how many specs of Kubernetes' suite run at the same time (default 2; none of them is marked as serial)
#   NODES  nodes of the cluster (default 2)
#   KEEP   not empty: leave the cluster of the last run up; CLUSTER_NAME=podnet-conformance names it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CLUSTER_NAME=${CLUSTER_NAME:-podnet-conformance} NODES=${NODES:-2}
cluster=hack/cluster/cluster
results=bin/conformance

attachment_of() { [[ $1 == *bridge ]] && echo Bridge || echo PointToPoint; }
mode_of() { [[ $1 == *routed ]] && echo Routed || echo Overlay; }

runs=(overlay routed bridge policy policy-routed policy-bridge cluster-policy cluster-policy-bridge)

# Features of network-policy-api beyond the standard ones.
cluster_policy_features=ClusterNetworkPolicy,ClusterNetworkPolicyNamedPorts,ClusterNetworkPolicyEgressNodePeers

# selection_of RUN prints the options that select its specs, one a line.
selection_of() {
	if [[ -n ${FOCUS:-} ]]; then
		echo "--focus=$FOCUS"
	elif [[ $1 == policy* ]]; then
		echo '--label-filter=Feature: containsAny NetworkPolicy'
	else
		echo '--focus=\[sig-network\].*\[Conformance\]'
	fi
}

# install RUN makes a cluster and gives it its pod network; it returns when every node carries pods.
install() {
	"$cluster" down &&
		"$cluster" up &&
		"$cluster" load bin/podnet-image.tar &&
		helm install podnet charts/podnet --namespace podnet-system --create-namespace --wait --timeout=5m \
			--set 'network.ranges[0].cidr=10.244.0.0/16' --set 'network.ranges[1].cidr=fd00:10:244::/48' \
			--set network.attachment="$(attachment_of "$1")" --set network.routeMode="$(mode_of "$1")" &&
		kubectl wait --for=condition=Ready --timeout=3m podnetwork/default &&
		kubectl wait --for=condition=Ready --timeout=3m nodes --all &&
		kubectl --namespace kube-system rollout status deployment/coredns --timeout=3m
}

# specs RUN runs them. Their log is long, so only ginkgo's summary of it is shown.
specs() {
	local out=$results/$1 selection
	mapfile -t selection < <(selection_of "$1")
	"$(command -v ginkgo)" --procs="${PROCS:-2}" --no-color "${selection[@]}" --timeout=2h --poll-progress-after=5m \
		--output-dir="$out" --junit-report=junit.xml \
		"$bin/e2e.test" -- --provider=skeleton --kubeconfig="$KUBECONFIG" --kubectl-path="$bin/kubectl" \
		--disable-log-dump >"$out/e2e.log" 2>&1 || echo "run $1: ginkgo returned $?"
}

# cluster_policies RUN runs the suite of network-policy-api, test after test.
cluster_policies() {
	local out=$results/$1
	"$bin/network-policy-api.test" -test.v -test.timeout=2h -test.run="TestConformanceProfiles${FOCUS:+/$FOCUS}" \
		--conformance-profiles=ClusterNetworkPolicy --supported-features="$cluster_policy_features" \
		--organization=podnet --project=podnet --url=https://github.com/podnet/podnet --version="$(git describe --always --dirty)" \
		--contact=https://github.com/podnet/podnet/issues \
		--additional-info=https://github.com/podnet/podnet/blob/main/docs/conformance.md --report-output="$PWD/$out/report.yaml" >"$out/suite.log" 2>&1 ||
		echo "run $1: the suite returned $?"
}

# count RUN STATUS prints how many specs ended so: passed, failed or skipped.
count() {
	local word
	if [[ -e $results/$1/junit.xml ]]; then
		grep -c "<testcase name=\"\[It\].* status=\"$2\"" "$results/$1/junit.xml" || true
	else
		case $2 in passed) word=PASS ;; failed) word=FAIL ;; skipped) word=SKIP ;; esac
		grep -cE "^    --- $word: TestConformanceProfiles/[^/ ]+ " "$results/$1/suite.log" || true
	fi
}

# selected RUN prints how many specs were to be run.
selected() {
	if [[ -e $results/$1/junit.xml ]]; then
		echo $(($(grep -c '<testcase name="\[It\]' "$results/$1/junit.xml") - $(count "$1" skipped)))
	else
		echo $(($(count "$1" passed) + $(count "$1" failed)))
	fi
}

# run RUN returns 0 when all specs that it selects have passed.
run() {
	local out=$results/$1 began=$SECONDS
	rm -rf "$out"
	mkdir -p "$out"
	local failed=0
	if install "$1"; then
		kubectl get nodes,podnetworks,nodesubnets,nodenetworks --output=wide >"$out/cluster.txt"
		if [[ $1 == cluster-policy* ]]; then cluster_policies "$1"; else specs "$1"; fi
	fi
	if [[ -s $out/junit.xml || -s $out/suite.log ]]; then
		local selected passed
		selected=$(selected "$1")
		passed=$(count "$1" passed)
		summary+=("$(printf '%-21s %d of %d passed (%d s)' "$1" "$passed" "$selected" $((SECONDS - began)))")
		((selected > 0 && passed == selected)) || failed=1
	else
		summary+=("$(printf '%-21s did not come to an end, see %s' "$1" "$out")")
		failed=1
	fi
	((failed == 0)) || hack/dump-cluster.sh "$out/cluster" || true
	return "$failed"
}

(($#)) || set -- "${runs[@]}"
for name in "$@"; do
	[[ " ${runs[*]} " == *" $name "* ]] || {
		echo "conformance.sh: there is no run '$name'; there are: ${runs[*]}" >&2
		exit 2
	}
done

"$cluster" build helm e2e ginkgo network-policy-api
hack/make-image.sh
bin=$("$cluster" bin)
export PATH=$bin:$PATH KUBECONFIG=${bin%/bin}/kubeconfig
[[ -n ${KEEP:-} ]] || trap '"$cluster" down' EXIT
summary=()
failed=0
for name in "$@"; do
	echo "=== conformance: $name"
	run "$name" || failed=1
done
echo "=== Kubernetes $(kubectl version --client --output=yaml | awk '$1 == "gitVersion:" { print $2 }'), network-policy-api $(awk '$2 == "sigs.k8s.io/network-policy-api" { print $3 }' hack/cluster/modules/network-policy-api/go.mod)"
printf '=== %s\n' "${summary[@]}"
exit "$failed"
