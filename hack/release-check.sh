#!/usr/bin/env bash
# Usage: hack/release-check.sh
#
# Makes all that a release has, here, and looks at it: the binaries of the image for every architecture of it, the chart, and
# the manifests. It pushes nothing. `hack/verify.sh named` looks for what the workflows and the Dockerfile name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "release-check: $*" >&2
	exit 1
}
helm=$(hack/cluster/cluster bin helm)
kubectl=$(hack/cluster/cluster bin kubectl)
export HELM=$helm KUBECTL=$kubectl
out=bin/release

for architecture in amd64 arm64; do
	echo "release-check: the image's binaries, for $architecture"
	GOARCH=$architecture CGO_ENABLED=0 go build -ldflags "-s -w" -o "bin/release-check/$architecture/" \
		./cmd/manager ./cmd/agent ./cmd/podnet-cni \
		github.com/containernetworking/plugins/plugins/meta/bandwidth \
		github.com/containernetworking/plugins/plugins/main/loopback
done
rm -rf bin/release-check

# For a registry of one's own and by digest, as the workflow has it; then as it is in the tree.
digest=sha256:$(printf '%064d' 1)
for variant in "--image registry.example.org/net/podnet --digest $digest" ""; do
	echo "release-check: hack/release.sh $variant"
	# shellcheck disable=SC2086 # Words of their own.
	hack/release.sh $variant >/dev/null
	package=$(echo "$out"/podnet-*.tgz)
	image=$("$helm" show values "$package" | awk '$1 == "repository:" { print $2; exit }')
	wanted=$image:$("$helm" show chart "$package" | awk '$1 == "appVersion:" { print $2 }')
	[[ -z $variant ]] || wanted=$wanted@$digest
	"$helm" lint --strict "$package" --set 'network.ranges[0].cidr=10.244.0.0/16' >/dev/null
	rendered=$("$helm" template podnet "$package" --namespace podnet-system --set 'network.ranges[0].cidr=10.244.0.0/16' |
		awk '$1 == "image:" { print $2 }' | sort -u)
	[[ $rendered == "$wanted" ]] || fail "the chart runs $rendered, and is to run $wanted"
	"$helm" show readme "$package" | grep -q . || fail "the chart has no README"

	[[ -z $variant ]] || wanted=$image@$digest
	images=$(awk '$1 == "image:" { print $2 }' "$out/install.yaml" | sort -u)
	[[ $images == "$wanted" ]] || fail "install.yaml runs $images, and is to run $wanted"
	for kind in CustomResourceDefinition Namespace ServiceAccount ClusterRole ClusterRoleBinding Deployment DaemonSet \
		ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding; do
		grep -qx "kind: $kind" "$out/install.yaml" || fail "install.yaml has no $kind"
	done
	(cd "$out" && sha256sum --quiet --check SHA256SUMS) || fail "the checksums are wrong"
done
echo "release-check: ok; $out holds what a release has beside its image"
