{{/*
Arithmetic with CIDRs, which neither a JSON schema nor a template's own functions have. An address is a list of numbers of
16 bits each: two of IPv4, eight of IPv6.
*/}}

{{/* The parts of a CIDR as JSON: family, length, groups. Empty where the text is no CIDR. */}}
{{- define "podnet.cidr" -}}
{{- $family := 0 -}}
{{- $groups := list -}}
{{- $address := first (splitList "/" (lower .)) -}}
{{- $length := last (splitList "/" .) -}}
{{- if not (regexMatch "^[^/]+/(0|[1-9][0-9]{0,2})$" .) -}}
{{- else if regexMatch "^(0|[1-9][0-9]{0,2})([.](0|[1-9][0-9]{0,2})){3}$" $address -}}
  {{- $o := list -}}
  {{- range splitList "." $address }}{{ $o = append $o (atoi .) }}{{ end -}}
  {{- if le (max (index $o 0) (index $o 1) (index $o 2) (index $o 3)) 255 -}}
    {{- $family = 4 -}}
    {{- $groups = list (add (mul 256 (index $o 0)) (index $o 1)) (add (mul 256 (index $o 2)) (index $o 3)) -}}
  {{- end -}}
{{- else if regexMatch "^([0-9a-f]{1,4}(:[0-9a-f]{1,4})*)?(::)?([0-9a-f]{1,4}(:[0-9a-f]{1,4})*)?$" $address -}}
  {{- $sides := splitList "::" $address -}}
  {{- $left := first $sides | splitList ":" | compact -}}
  {{- $right := list -}}
  {{- $zeros := 0 -}}
  {{- if gt (len $sides) 1 -}}
    {{- $right = last $sides | splitList ":" | compact -}}
    {{- $zeros = sub 8 (add (len $left) (len $right)) -}}
  {{- end -}}
  {{- range $left }}{{ $groups = append $groups (int64 (printf "0x%s" .)) }}{{ end -}}
  {{- range until (int $zeros) }}{{ $groups = append $groups 0 }}{{ end -}}
  {{- range $right }}{{ $groups = append $groups (int64 (printf "0x%s" .)) }}{{ end -}}
  {{- /* An IPv4 address in the dress of IPv6 is none of the API's CIDRs. */ -}}
  {{- if and (eq (len $groups) 8) (or (eq (len $sides) 1) (ge $zeros 1)) (not (hasPrefix "0 0 0 0 0 65535 " (join " " $groups))) -}}
    {{- $family = 6 -}}
  {{- end -}}
{{- end -}}
{{- if and $family (le (atoi $length) (ternary 32 128 (eq $family 4))) -}}
{{- dict "family" $family "length" (atoi $length) "groups" $groups | toJson -}}
{{- end -}}
{{- end }}

{{/* How many bits of a group lie within a prefix. Call with a dict of length and group. */}}
{{- define "podnet.cidrBits" -}}
{{- max 0 (min 16 (sub (int .length) (mul 16 .group))) -}}
{{- end }}

{{/* The same parts without the bits beyond the prefix length, and with another length where one is given. */}}
{{- define "podnet.cidrMasked" -}}
{{- $groups := list -}}
{{- range $i, $group := .groups -}}
  {{- $unit := index (list 65536 32768 16384 8192 4096 2048 1024 512 256 128 64 32 16 8 4 2 1) (include "podnet.cidrBits" (dict "length" $.length "group" $i) | atoi) -}}
  {{- $groups = append $groups (mul (div (int64 $group) $unit) $unit) -}}
{{- end -}}
{{- dict "family" .family "length" .length "groups" $groups | toJson -}}
{{- end }}

{{/* Parts as text, in the shortest form (RFC 5952). */}}
{{- define "podnet.cidrText" -}}
{{- $text := list -}}
{{- if eq (int .family) 4 -}}
  {{- range .groups }}{{ $text = append (append $text (div (int64 .) 256)) (mod (int64 .) 256) }}{{ end -}}
  {{- join "." $text -}}
{{- else -}}
  {{- /* The longest run of zeros, the first of several, and of one only if there is none longer than that. */ -}}
  {{- $from := -1 }}{{ $best := 1 }}{{ $run := 0 -}}
  {{- range $i, $group := .groups -}}
    {{- $text = append $text (printf "%x" (int64 $group)) -}}
    {{- $run = ternary (add $run 1) 0 (eq (int64 $group) 0) -}}
    {{- if gt (int $run) (int $best) }}{{ $best = $run }}{{ $from = add 1 (sub $i $run) }}{{ end -}}
  {{- end -}}
  {{- if lt (int $from) 0 -}}
    {{- join ":" $text -}}
  {{- else -}}
    {{- join ":" (slice $text 0 (int $from)) }}::{{ join ":" (slice $text (int (add $from $best))) -}}
  {{- end -}}
{{- end -}}
/{{ .length }}
{{- end }}

{{/* Not empty when two CIDRs overlap. Call with a dict of a and b, their parts. */}}
{{- define "podnet.cidrsOverlap" -}}
{{- if eq (int .a.family) (int .b.family) -}}
{{- $length := min (int .a.length) (int .b.length) -}}
{{- $a := dict "family" .a.family "length" $length "groups" .a.groups -}}
{{- $b := dict "family" .b.family "length" $length "groups" .b.groups -}}
{{- if eq (include "podnet.cidrMasked" $a) (include "podnet.cidrMasked" $b) }}yes{{ end -}}
{{- end -}}
{{- end }}

{{/*
Fails with a sentence unless the text is a CIDR; with "masked", without bits beyond its prefix length; with "shortest", in
its shortest form too. Call with a dict of name, the value's, and text.
*/}}
{{- define "podnet.checkCIDR" -}}
{{- $parts := include "podnet.cidr" .text | fromJson -}}
{{- if not $parts.family -}}
{{- fail (printf "\n\n%s: %s is no CIDR. Write one like 10.244.0.0/16 or fd00:10:244::/48." .name (toString .text | quote)) -}}
{{- end -}}
{{- $masked := include "podnet.cidrText" (include "podnet.cidrMasked" $parts | fromJson) -}}
{{- if and (or .masked .shortest) (ne (include "podnet.cidrText" $parts) $masked) -}}
{{- fail (printf "\n\n%s: %s has bits set beyond its prefix length. Write its first address, %s, or the prefix length that you meant." .name .text $masked) -}}
{{- end -}}
{{- if and .shortest (ne .text $masked) -}}
{{- fail (printf "\n\n%s: %s is not in its shortest form. Write %s." .name .text $masked) -}}
{{- end -}}
{{- end }}
