#!/usr/bin/env bash
# Usage: hack/tools/build.sh NAME
#
# Builds the tool NAME (golangci-lint, controller-gen, crd-ref-docs, govulncheck) from the module
# beside this script that pins it, and prints the path of the binary. The cache only saves time:
# its key covers everything that decides what comes out of the build.
set -euo pipefail

name=${1:?usage: hack/tools/build.sh NAME}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The tool's module is the folder of that name, or the one whose tool directives list it.
module=$here/$name
if [[ ! -f $module/go.mod ]]; then
	gomod=$(grep -lE "^(tool|	)[[:space:]]*[^[:space:]]+/$name\$" "$here"/*/go.mod | head -n 1) || true
	[[ -n $gomod ]] || { echo "build.sh: no module in hack/tools provides the tool '$name'" >&2; exit 1; }
	module=$(dirname "$gomod")
fi
cd "$module"
export CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly

packages=tool # the pattern for all tool directives of a go.mod
[[ -f main.go ]] && packages=.
inputs=(go.mod go.sum)
[[ -f main.go ]] && inputs+=(main.go)
# The toolchain is part of the key: a linter built by an older Go refuses the code of a newer one.
key=$({ go env GOVERSION GOOS GOARCH; cat "${inputs[@]}"; } | sha256sum | cut -c1-16)
cache=${PODNET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podnet}
target=$cache/$(basename "$module")-$key

if [[ ! -x $target/$name ]]; then
	mkdir -p "$cache"
	temporary=$(mktemp -d "$cache/.build-XXXXXX")
	trap 'rm -rf "$temporary"' EXIT
	echo "building $name from hack/tools/$(basename "$module"), once for each version of it" >&2
	go build -trimpath -ldflags='-s -w' -o "$temporary/" "$packages" >&2
	chmod 755 "$temporary"
	# One rename makes the folder appear whole. If another build won the race, its result is as good.
	mv -T "$temporary" "$target" 2>/dev/null || [[ -x $target/$name ]]
fi
echo "$target/$name"
