#!/usr/bin/env bash
# Makes the chart's copies of the CRDs, which are templates for two reasons: Helm installs what is in a
# chart's crds/ folder but never upgrades it, and a user can leave the CRDs out (crd.enabled) or have them,
# and so all objects, removed with the release (crd.keep).
#
# ClusterNetworkPolicy is no kind of podnet's: its CRD comes out of the module that go.mod pins, and can be left
# out by itself (crd.clusterNetworkPolicy). The experimental channel is the one with nodes as peers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

to=charts/podnet/templates/crds
mkdir -p "$to"
rm -f "$to"/*.yaml
template() { # file condition
	{
		echo "{{- /* Made by hack/tools/chart-crds.sh from $1: do not edit. */ -}}"
		echo "{{- if $2 }}"
		# Braces of the API's own documentation must not be taken for a template's. The first line
		# that says "annotations:" is that of the CRD's metadata.
		awk '
			{ gsub(/\{\{/, "{{ \"{{\" }}"); print }
			/^  annotations:$/ && !done {
				print "    {{- if .Values.crd.keep }}"
				print "    helm.sh/resource-policy: keep"
				print "    {{- end }}"
				done = 1
			}
			END { if (!done) { print FILENAME ": no metadata.annotations to add to" > "/dev/stderr"; exit 1 } }
		' "$1"
		echo '{{- end }}'
	} >"$to/$(basename "$1")"
}
for crd in config/crd/bases/*.yaml; do
	template "$crd" .Values.crd.enabled
done

module=sigs.k8s.io/network-policy-api
go mod download "$module"
file=policy.networking.k8s.io_clusternetworkpolicies.yaml
policies=config/crd/network-policy-api/$file
{
	echo "# Made by hack/tools/chart-crds.sh from $(go list -m "$module"): do not edit."
	# An empty status is in the way of those who apply the file.
	sed '/^status:/,$d' "$(go list -m -f '{{.Dir}}' "$module")/config/crd/experimental/$file"
} >"$policies"
template "$policies" 'and .Values.crd.enabled .Values.crd.clusterNetworkPolicy'
