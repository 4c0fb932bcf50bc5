#!/usr/bin/env bash
# Usage: hack/release.sh [--image REPOSITORY] [--digest sha256:…] [--out FOLDER] [TAG]
#
# Makes what a release has beside its image: the chart as a package, install.yaml for those who use kubectl alone, the CRD
# of ClusterNetworkPolicy, the release's notes out of CHANGELOG.md, and checksums. The release workflow runs this, and so does
# `make release-check`.
#
#   TAG      such as v0.1.0; it must be the appVersion of the chart, which all manifests have the version from
#   --image  where the image is, for a registry of one's own; by default where the chart has it
#   --digest of that image, which chart and install.yaml then name it by
#   --out    by default bin/release; what is in it is removed first
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "release.sh: $*" >&2
	exit 1
}
value() { awk -v key="$2:" '$1 == key { gsub(/"/, "", $2); print $2; exit }' "$1"; }

chart=charts/podnet
default_image=$(value $chart/values.yaml repository)
app_version=$(value $chart/Chart.yaml appVersion)
image=$default_image digest='' out=bin/release tag=$app_version
while (($#)); do
	case $1 in
	--image | --digest | --out)
		(($# > 1)) || fail "$1 needs a value"
		declare "${1#--}=$2"
		shift
		;;
	-*) fail "there is no flag $1: see the head of this file" ;;
	*) tag=$1 ;;
	esac
	shift
done

[[ $tag =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "a tag is like v1.2.3 or v1.2.3-rc.1, not $tag"
[[ $tag == "$app_version" && ${tag#v} == "$(value $chart/Chart.yaml version)" ]] ||
	fail "the tag is $tag, and $chart/Chart.yaml has version $(value $chart/Chart.yaml version) and appVersion $app_version:" \
		"write ${tag#v} and $tag there, run 'make generate', commit, and tag that commit"
[[ -z $digest || $digest =~ ^sha256:[0-9a-f]{64}$ ]] || fail "a digest is sha256: and 64 hexadecimal digits, not $digest"
grep -qF "$default_image:$tag" config/manager/deployment.yaml ||
	fail "config/ is not of $tag: run 'make generate' and commit what it changes"

helm=${HELM:-$(hack/cluster/cluster bin helm)}
kubectl=${KUBECTL:-$(hack/cluster/cluster bin kubectl)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -rf "$out"
mkdir -p "$out"

# The notes are what CHANGELOG.md has between the heading of this version and the next.
awk -v tag="$tag" '/^## / { on = ($2 == tag) ; next } on' CHANGELOG.md | sed -e '/./,$!d' >"$scratch/notes.md"
[[ -s $scratch/notes.md ]] || fail "CHANGELOG.md has no section '## $tag', or nothing in it: say what users will notice"
# Where they are read, links are not relative to the tree.
sed "s|](\([a-z][a-zA-Z0-9/_-]*[.#]\)|](https://github.com/podnet/podnet/blob/$tag/\1|g" "$scratch/notes.md" >"$out/notes.md"

cp -r $chart "$scratch/podnet"
sed -i -e "0,/^  repository: .*/s||  repository: $image|" -e "0,/^  digest: .*/s||  digest: \"$digest\"|" "$scratch/podnet/values.yaml"
[[ $(value "$scratch/podnet/values.yaml" repository) == "$image" && $(value "$scratch/podnet/values.yaml" digest) == "$digest" ]] ||
	fail "image.repository and image.digest are not where they were in $chart/values.yaml"
"$helm" package "$scratch/podnet" --destination "$out" >/dev/null

# Out of config/, whose bases kustomize takes by a relative path only.
mkdir -p bin
overlay=$(mktemp -d bin/kustomize.XXXXXX)
trap 'rm -rf "$scratch" "$overlay"' EXIT
cat >"$overlay/kustomization.yaml" <<KUSTOMIZATION
resources: [../../config/default]
images:
  - name: $default_image
    newName: $image
    $([[ -n $digest ]] && echo "digest: $digest" || echo "newTag: $tag")
KUSTOMIZATION
{
	echo "# podnet $tag. Then apply a PodNetwork: see docs/install.md."
	"$kubectl" kustomize "$overlay"
} >"$out/install.yaml"
"$kubectl" kustomize config/crd/network-policy-api >"$out/clusternetworkpolicies.yaml"

(cd "$out" && sha256sum -- *.tgz *.yaml >SHA256SUMS)
echo "$out holds what $tag has beside its image, $image$([[ -z $digest ]] && echo ":$tag" || echo "@$digest"):"
ls -l "$out"
