{{/* Fails with a sentence where the API would refuse the PodNetwork, before anything is made. */}}
{{- define "podnet.checkNetwork" -}}
{{- $network := .Values.network -}}
{{- if not $network.ranges -}}
{{- fail "\n\nnetwork.ranges is empty: say which addresses pods shall get, for example by\n    --set 'network.ranges[0].cidr=10.244.0.0/16'\nor set network.create=false, and apply a PodNetwork named default yourself." -}}
{{- end -}}
{{- $known := list -}}
{{- range $i, $range := $network.ranges -}}
  {{- $name := printf "network.ranges[%d]" $i -}}
  {{- include "podnet.checkCIDR" (dict "name" (printf "%s.cidr" $name) "text" $range.cidr "shortest" true) -}}
  {{- $parts := include "podnet.cidr" $range.cidr | fromJson -}}
  {{- $length := int $parts.length -}}
  {{- range $reserved := list "0.0.0.0/8" "127.0.0.0/8" "169.254.0.0/16" "224.0.0.0/3" "::/8" "fe80::/10" "ff00::/8" -}}
    {{- if include "podnet.cidrsOverlap" (dict "a" $parts "b" (include "podnet.cidr" $reserved | fromJson)) -}}
    {{- fail (printf "\n\n%s.cidr: %s overlaps %s, whose addresses no pod can have. Choose others, such as 10.244.0.0/16 or fd00:10:244::/48." $name $range.cidr $reserved) -}}
    {{- end -}}
  {{- end -}}
  {{- $least := ternary 8 16 (eq (int $parts.family) 4) -}}
  {{- if lt $length $least -}}
  {{- fail (printf "\n\n%s.cidr: %s is larger than a network can use. Write a prefix length of at least %d." $name $range.cidr $least) -}}
  {{- end -}}
  {{- $default := ternary 24 64 (eq (int $parts.family) 4) -}}
  {{- $most := ternary 30 126 (eq (int $parts.family) 4) -}}
  {{- with $range.nodePrefixLength -}}
    {{- if lt (int .) $length -}}
    {{- fail (printf "\n\n%s.nodePrefixLength: %d is smaller than the prefix length of %s, so that the block of one node would be larger than the range. Write a number from %d to %d." $name (int .) $range.cidr $length $most) -}}
    {{- end -}}
    {{- if gt (int .) $most -}}
    {{- fail (printf "\n\n%s.nodePrefixLength: a block of /%d leaves no room for pods. Write a number from %d to %d." $name (int .) $length $most) -}}
    {{- end -}}
  {{- else -}}
    {{- if gt $length $default -}}
    {{- fail (printf "\n\n%s.cidr: %s is smaller than the block of one node, a /%d. Write a larger range, or set %s.nodePrefixLength." $name $range.cidr $default $name) -}}
    {{- end -}}
  {{- end -}}
  {{- range $known -}}
    {{- if include "podnet.cidrsOverlap" (dict "a" $parts "b" .parts) -}}
    {{- fail (printf "\n\n%s.cidr: %s overlaps %s, another of the ranges. Leave one of them out." $name $range.cidr .cidr) -}}
    {{- end -}}
  {{- end -}}
  {{- $known = append $known (dict "cidr" $range.cidr "parts" $parts) -}}
{{- end -}}
{{- range $i, $cidr := ($network.masquerade).excludeCIDRs -}}
  {{- include "podnet.checkCIDR" (dict "name" (printf "network.masquerade.excludeCIDRs[%d]" $i) "text" $cidr "masked" true) -}}
{{- end -}}
{{- end }}
