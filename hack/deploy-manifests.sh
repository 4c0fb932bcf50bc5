#!/usr/bin/env bash
# Makes those manifests that the chart and config/ share, so that nothing stands in two places by hand:
#
#   the code's RBAC markers → config/rbac/role.yaml → charts/podnet   the manager's rights
#   config/admission                                → charts/podnet   admission policies
#   charts/podnet → config/{manager,agent,rbac,uninstall}             everything else, with the chart's default values
#
# The CRDs go by hack/tools/chart-crds.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chart=charts/podnet
namespace=podnet-system

# Braces of the source must not be taken for a template's.
escape() { sed 's/{{/{{ "{{" }}/g' "$@"; }

mkdir -p "$chart/templates/admission"
rm -f "$chart"/templates/admission/*.yaml
for policy in config/admission/*.yaml; do
	[[ $policy != */kustomization.yaml ]] || continue
	{
		echo "{{- /* Made by hack/deploy-manifests.sh from $policy: do not edit. */ -}}"
		escape "$policy"
	} >"$chart/templates/admission/$(basename "$policy")"
done

{
	echo "{{- /* Made by hack/deploy-manifests.sh from config/rbac/role.yaml: do not edit. */ -}}"
	escape config/rbac/role.yaml | sed "s/^  namespace: .*/  namespace: {{ .Release.Namespace }}/"
} >"$chart/templates/rbac/manager-role.yaml"

helm=$(hack/cluster/cluster bin helm)
render() { # template flag… > manifest, without the labels and annotations by which Helm knows it
	local template=$1
	shift
	echo "# Made by hack/deploy-manifests.sh from $chart: do not edit."
	"$helm" template podnet "$chart" --namespace "$namespace" --values "$chart/ci/default-values.yaml" \
		--show-only "templates/$template" "$@" |
		grep -vE '^ +(helm\.sh/[a-z-]+|app\.kubernetes\.io/(managed-by|instance)):|^# Source: |^$'
}
mkdir -p config/manager config/agent config/rbac config/uninstall
render manager/deployment.yaml >config/manager/deployment.yaml
render manager/service.yaml >config/manager/service.yaml
render agent/daemonset.yaml >config/agent/daemonset.yaml
render agent/service.yaml >config/agent/service.yaml
render rbac/serviceaccounts.yaml >config/rbac/serviceaccounts.yaml
render rbac/manager-bindings.yaml >config/rbac/manager_bindings.yaml
render rbac/agent-role.yaml >config/rbac/agent_role.yaml
render rbac/user-roles.yaml >config/rbac/user_roles.yaml
# kubectl delete -k removes the kinds, which waits for ever for objects that nobody releases: so the objects go too. The
# annotations of these are Helm's, all of them.
render hooks/uninstall.yaml --set crd.keep=false | grep -v '^  annotations:$' >config/uninstall/uninstall.yaml
