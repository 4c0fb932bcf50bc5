{{/* The PodNetwork, with those fields only that were set: what is left out belongs to whoever sets it with kubectl. */}}
{{- define "podnet.podnetwork" -}}
{{- $network := .Values.network -}}
{{- if not $network.ranges -}}
{{- fail "\n\nnetwork.ranges is empty: say which addresses pods shall get, for example by\n    --set 'network.ranges[0].cidr=10.244.0.0/16'\nor set network.create=false, and apply a PodNetwork named default yourself." -}}
{{- end -}}
apiVersion: podnet.dev/v1alpha1
kind: PodNetwork
metadata:
  name: default
  labels:
    {{- include "podnet.labels" (dict "root" . "component" "network") | nindent 4 }}
  annotations:
    # Pods hold addresses of it as long as they run, and whether it goes is up to crd.keep.
    helm.sh/resource-policy: keep
    {{- if not (include "podnet.kindsKnown" .) }}
    # As the API does not know the kind yet, this comes after the rest. From the next upgrade on, the object is an
    # ordinary part of the release, which is what the two annotations of meta.helm.sh are for.
    helm.sh/hook: post-install,post-upgrade
    helm.sh/hook-weight: "0"
    helm.sh/hook-delete-policy: hook-failed
    meta.helm.sh/release-name: {{ .Release.Name }}
    meta.helm.sh/release-namespace: {{ .Release.Namespace }}
    {{- end }}
spec:
  ranges:
    {{- toYaml $network.ranges | nindent 4 }}
  {{- with $network.attachment }}
  attachment: {{ . }}
  {{- end }}
  {{- with $network.routeMode }}
  routeMode: {{ . }}
  {{- end }}
  {{- with $network.overlay }}
  overlay:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not (kindIs "invalid" $network.mtu) }}
  mtu: {{ $network.mtu }}
  {{- end }}
  {{- with $network.masquerade }}
  masquerade:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $network.nodeBlocks }}
  nodeBlocks:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $network.policy }}
  policy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not (kindIs "invalid" $network.blockQuarantineSeconds) }}
  blockQuarantineSeconds: {{ $network.blockQuarantineSeconds }}
  {{- end }}
{{- end }}

{{/* Not empty when the API server can take a PodNetwork before this release's CRDs are made. */}}
{{- define "podnet.kindsKnown" -}}
{{- if or (not .Values.crd.enabled) (.Capabilities.APIVersions.Has "podnet.dev/v1alpha1/PodNetwork") -}}
yes
{{- end -}}
{{- end }}
