{{/* The spec of the PodNetwork, with those fields only that were set: the others are left to the API's defaults. */}}
{{- define "podnet.networkSpec" -}}
{{- $network := .Values.network -}}
ranges:
  {{- toYaml $network.ranges | nindent 2 }}
{{- with $network.attachment }}
attachment: {{ . }}
{{- end }}
{{- with $network.routeMode }}
routeMode: {{ . }}
{{- end }}
{{- with $network.overlay }}
overlay:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not (kindIs "invalid" $network.mtu) }}
mtu: {{ $network.mtu }}
{{- end }}
{{- with $network.masquerade }}
masquerade:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $network.nodeBlocks }}
nodeBlocks:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $network.policy }}
policy:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not (kindIs "invalid" $network.blockQuarantineSeconds) }}
blockQuarantineSeconds: {{ $network.blockQuarantineSeconds }}
{{- end }}
{{- end }}
