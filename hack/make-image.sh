#!/usr/bin/env bash
# Usage: hack/make-image.sh [OUT]
#
# Assembles podnet's image into a docker archive, by default bin/podnet-image.tar, with neither Docker nor a registry.
# It holds what the Dockerfile puts into one, with nft as this machine has it, and is named as the chart's default
# image is, so that the chart runs it wherever it was imported.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-bin/podnet-image.tar}
folder=bin/image

hack/tools/need.sh go nft
nft=$(command -v nft)
value() { awk -v key="$2:" '$1 == key { print $2; exit }' "$1"; }
version=$(value charts/podnet/Chart.yaml appVersion)
repository=$(value charts/podnet/values.yaml repository)
plugins=$(go list -m -f '{{.Version}}' github.com/containernetworking/plugins)

export CGO_ENABLED=0
mkdir -p "$folder"
echo "building podnet $version"
go build -ldflags "-s -w -X github.com/podnet/podnet/internal/version.Version=$version" \
	-o "$folder/" ./cmd/manager ./cmd/agent ./cmd/podnet-cni
go build \
	-ldflags "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$plugins" \
	-o "$folder/" \
	github.com/containernetworking/plugins/plugins/meta/bandwidth \
	github.com/containernetworking/plugins/plugins/main/loopback

go run ./hack/image -o "$out" -tag "$repository:$version" -user 65532:65532 -entrypoint /manager \
	-file "$folder/manager:/manager" \
	-file "$folder/agent:/agent" \
	-file "$folder/podnet-cni:/opt/podnet/cni/podnet-cni" \
	-file "$folder/bandwidth:/opt/podnet/cni/bandwidth" \
	-file "$folder/loopback:/opt/podnet/cni/loopback" \
	-file "$(readlink -f "$nft"):/usr/sbin/nft" -libs-of "$nft" \
	-file hack/rootfs/protocols:/etc/protocols -dir /tmp:1777
echo "$out holds $repository:$version"
