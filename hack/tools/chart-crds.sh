#!/usr/bin/env bash
# Makes the chart's copies of the CRDs, which are templates for two reasons: Helm installs what is in a
# chart's crds/ folder but never upgrades it, and a user can leave the CRDs out (crd.enabled) or have them,
# and so all objects, removed with the release (crd.keep).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

from=config/crd/bases
to=charts/podnet/templates/crds
mkdir -p "$to"
rm -f "$to"/*.yaml
for crd in "$from"/*.yaml; do
	{
		echo "{{- /* Made by hack/tools/chart-crds.sh from $crd: do not edit. */ -}}"
		echo '{{- if .Values.crd.enabled }}'
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
		' "$crd"
		echo '{{- end }}'
	} >"$to/$(basename "$crd")"
done
