{{- define "podnet.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- with .Values.image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{- define "podnet.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end }}

{{/* What selects the pods of a component never changes, so it holds neither release nor version. Call with a dict of root and component. */}}
{{- define "podnet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "podnet.name" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of every object. Called in the same way. */}}
{{- define "podnet.labels" -}}
{{ include "podnet.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Environment that points the client library elsewhere than at the service "kubernetes". */}}
{{- define "podnet.apiServerEnv" -}}
{{- with .Values.kubeAPIServer }}
{{- if .host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* For every pod that needs no privilege: what the "restricted" pod security standard asks for, and more. */}}
{{- define "podnet.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* For the pods that must run on nodes without a working network: on the host's. */}}
{{- define "podnet.hostPod" -}}
hostNetwork: true
dnsPolicy: Default
nodeSelector:
  {{- toYaml .Values.manager.nodeSelector | nindent 2 }}
tolerations:
  {{- toYaml .Values.manager.tolerations | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The folders of a node in which its container runtime may have its socket: that of the one that is named, or else those
of containerd, CRI-O, k3s and RKE2. */}}
{{- define "podnet.runtimeFolders" -}}
{{- $socket := trimPrefix "unix://" (.Values.agent.runtimeSocket | default "") -}}
{{- if eq $socket "none" -}}
[]
{{- else if $socket -}}
- {{ dir $socket }}
{{- else -}}
- /run/containerd
- /run/crio
- /run/k3s/containerd
{{- end }}
{{- end }}

{{/* The port of the agents' metrics; empty where they are turned off. */}}
{{- define "podnet.agentMetricsPort" -}}
{{- if ne .Values.agent.metricsBindAddress "0" -}}
{{- regexFind "[0-9]+$" .Values.agent.metricsBindAddress -}}
{{- end -}}
{{- end }}

{{/* A ServiceMonitor for the Service of a component. Call with a dict of root and component. */}}
{{- define "podnet.serviceMonitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: podnet-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "podnet.labels" . | nindent 4 }}
    {{- with .root.Values.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "podnet.selectorLabels" . | nindent 6 }}
  endpoints:
    - port: metrics
      scheme: https
      interval: {{ .root.Values.serviceMonitor.interval }}
      # It makes its certificate itself, and asks the API server whether the token may read /metrics.
      tlsConfig:
        insecureSkipVerify: true
      bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- end }}
