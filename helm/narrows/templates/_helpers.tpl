{{/* Names, labels and small calculations. */}}

{{- define "narrows.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for `-worker-`, a pool's name and what Kubernetes adds: a host's name has 63. */}}
{{- define "narrows.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "narrows.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "narrows.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "narrows.releaseLabels" -}}
app.kubernetes.io/name: {{ include "narrows.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "narrows.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "narrows.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "narrows.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "narrows.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "narrows.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The pools that are enabled, by name, each with its defaults: JSON of a map. */}}
{{- define "narrows.pools" -}}
{{- $pools := dict -}}
{{- range $name, $own := .Values.workers -}}
{{- $pool := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy $own) -}}
{{- if $pool.enabled -}}
{{- $class := $pool.class | default $name -}}
{{- if not (has $class (list "cpu" "nvenc" "vaapi" "qsv")) -}}
{{- fail (printf "workers.%s.class: is %q; say cpu, nvenc, vaapi or qsv" $name $class) -}}
{{- end -}}
{{- $_ := set $pool "class" $class -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- end -}}
{{- $pools | toJson -}}
{{- end -}}

{{/* A quantity of bytes as a number: 64Gi, 500M, 1024. */}}
{{- define "narrows.bytes" -}}
{{- $text := include "narrows.quantity" . -}}
{{- if not (regexMatch "^[0-9]+([KMGTP]i|[kMGTP])?$" $text) -}}
{{- fail (printf "%q is no size: write 64Gi, 500M or a number of bytes" $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[a-zA-Z]+$" $text -}}
{{- $powers := dict "" 0 "k" 1 "M" 2 "G" 3 "T" 4 "P" 5 "Ki" 1 "Mi" 2 "Gi" 3 "Ti" 4 "Pi" 5 -}}
{{- $base := hasSuffix "i" $unit | ternary 1024 1000 -}}
{{- range until (get $powers $unit) -}}{{- $number = mul $number $base -}}{{- end -}}
{{- $number -}}
{{- end -}}

{{/* What selects a pool's pods. Takes root and name. */}}
{{- define "narrows.workerLabels" -}}
{{ include "narrows.releaseLabels" .root }}
app.kubernetes.io/component: worker
narrows/pool: {{ .name }}
{{- end -}}

{{- define "narrows.coordinatorLabels" -}}
{{ include "narrows.releaseLabels" . }}
app.kubernetes.io/component: coordinator
{{- end -}}

{{/* A rule of a NetworkPolicy: out to these, on these TCP ports. Takes to and ports. */}}
{{- define "narrows.egress" -}}
- ports:
  {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
  {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A quantity as text: Go would write a large number with an exponent. */}}
{{- define "narrows.quantity" -}}
{{- if kindIs "string" . -}}{{ . }}{{- else -}}{{ int64 . }}{{- end -}}
{{- end -}}
