{{/* Names the values that differ from the PodNetwork, a line each. Call with a dict of want, the spec that the values ask for, and have. */}}
{{- define "podnet.networkDifferences" -}}
{{- $have := .have -}}
{{- range $key, $want := .want -}}
  {{- if eq $key "ranges" -}}
    {{- $same := eq (len $want) (len $have.ranges) -}}
    {{- range $range := $want -}}
      {{- $found := false -}}
      {{- range $live := $have.ranges -}}
        {{- if eq $live.cidr $range.cidr }}{{ $found = eq (toJson $live) (merge (deepCopy $range) $live | toJson) }}{{ end -}}
      {{- end -}}
      {{- $same = and $same $found -}}
    {{- end -}}
    {{- if not $same }}
network.ranges
    {{- end -}}
  {{- else if kindIs "map" $want -}}
    {{- range $inner, $value := $want -}}
      {{- if ne (toJson $value) (toJson (get (get $have $key | default dict) $inner)) }}
network.{{ $key }}.{{ $inner }}
      {{- end -}}
    {{- end -}}
  {{- else if ne (toJson $want) (toJson (get $have $key)) }}
network.{{ $key }}
  {{- end -}}
{{- end -}}
{{- end }}
