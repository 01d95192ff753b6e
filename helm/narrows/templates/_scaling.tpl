{{/* How fast a pool grows and shrinks: doubled at once, shrunk only when fewer were enough for long. Takes pool. */}}
{{- define "narrows.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 30}
    - {type: Pods, value: 4, periodSeconds: 30}
  selectPolicy: Max
scaleDown:
  stabilizationWindowSeconds: {{ .pool.autoscaling.scaleDownStabilizationSeconds }}
  policies:
    - {type: Percent, value: 25, periodSeconds: 60}
    - {type: Pods, value: 1, periodSeconds: 60}
  selectPolicy: Max
{{- end -}}

{{/*
A ScaledObject's spec but for its target. One trigger a lane of the pool's class; pools of the class cpu have those of
submissions, too: any worker accepts one, and it is the cpu pool that must be there for it. Takes root, name and pool.
*/}}
{{- define "narrows.scaledObject" -}}
{{- $keda := .root.Values.keda -}}
{{- $own := .pool.autoscaling -}}
{{- $messages := int (default .pool.slots $own.messagesPerPod) -}}
{{- $kinds := dict "work" (printf "narrows.work.%s" .pool.class) -}}
{{- if eq .pool.class "cpu" -}}{{- $_ := set $kinds "jobs" "narrows.jobs" -}}{{- end -}}
{{- $triggers := list -}}
minReplicaCount: {{ $own.minReplicas }}
maxReplicaCount: {{ $own.maxReplicas }}
pollingInterval: {{ $keda.pollingInterval }}
cooldownPeriod: {{ $keda.cooldownPeriod }}
triggers:
{{- range $kind, $queue := $kinds }}
{{- range $lane := list "high" "normal" "low" }}
{{- $trigger := printf "%s_%s" $kind $lane -}}
{{- $triggers = append $triggers $trigger }}
  - type: rabbitmq
    name: {{ $trigger }}
    metricType: AverageValue
    metadata:
      protocol: http
      mode: QueueLength
      queueName: {{ $queue }}.{{ $lane }}
      value: {{ $messages | quote }}
      # What workers hold counts: a pod is not to go because all of its work is in hand.
      excludeUnacknowledged: "false"
      {{- with $keda.metadata }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    authenticationRef:
      name: {{ include "narrows.fullname" $.root }}-broker
{{- end }}
{{- end }}
advanced:
  {{- if $keda.sumLanes }}
  scalingModifiers:
    formula: {{ join " + " $triggers | quote }}
    target: {{ $messages | quote }}
    metricType: AverageValue
  {{- end }}
  horizontalPodAutoscalerConfig:
    behavior: {{- include "narrows.scaling" (dict "pool" .pool) | nindent 6 }}
{{- end -}}
