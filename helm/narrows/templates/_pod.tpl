{{/* What the pods of workers, coordinators and `helm test` have in common: the restricted Pod Security Standard, and files. */}}

{{/*
A pod's spec but for its containers. Takes root, own (the values of its kind), labels (those that select it) and grace.
No service links: Kubernetes would set NARROWS_..._PORT and the like for Services called so, and the program takes every
variable that begins with NARROWS_ for a setting.
*/}}
{{- define "narrows.podSpec" -}}
serviceAccountName: {{ include "narrows.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .own.hostUsers }}
hostUsers: false
{{- end }}
securityContext: {{- include "narrows.podSecurity" . | nindent 2 }}
terminationGracePeriodSeconds: {{ .grace }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- $constraint := deepCopy . }}
{{- if not (hasKey $constraint "labelSelector") }}
{{- $_ := set $constraint "labelSelector" (dict "matchLabels" ($.labels | fromYaml)) }}
{{- end }}
  - {{ toYaml $constraint | nindent 4 | trim }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "narrows.podSecurity" -}}
{{- $security := .root.Values.security -}}
runAsNonRoot: true
{{- with $security.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with $security.runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with $security.fsGroup }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- with .own.supplementalGroups }}
supplementalGroups: {{- toYaml . | nindent 2 }}
{{- end }}
seccompProfile:
  type: {{ $security.seccompProfile.type }}
  {{- with $security.seccompProfile.localhostProfile }}
  localhostProfile: {{ . }}
  {{- end }}
{{- with $security.appArmorProfile }}
appArmorProfile: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "narrows.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Mounts of a container. Takes config, JSON, and own. */}}
{{- define "narrows.mounts" -}}
- name: config
  mountPath: {{ include "narrows.configFolder" . }}
  readOnly: true
{{- if include "narrows.secretKeys" (dict "tree" (.config | fromJson) "field" "") | trim }}
- name: secrets
  mountPath: {{ include "narrows.secretsFolder" . }}
  readOnly: true
{{- end }}
{{- with .own.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes of a pod. Takes root, config, JSON, configMap, its name, and own. Of each Secret only the keys that the settings name. */}}
{{- define "narrows.volumes" -}}
- name: config
  configMap:
    name: {{ .configMap }}
{{- $keys := include "narrows.secretKeys" (dict "tree" (.config | fromJson) "field" "") | splitList " " | compact | uniq | sortAlpha }}
{{- if $keys }}
- name: secrets
  projected:
    # Read by the group where there is one of the pod's own.
    defaultMode: {{ empty .root.Values.security.fsGroup | ternary "0444" "0440" }}
    sources:
    {{- range $secret := $keys | toJson | include "narrows.secretNames" | fromJsonArray }}
      - secret:
          name: {{ $secret }}
          items:
          {{- range $keys }}
          {{- if hasPrefix (printf "%s/" $secret) . }}
            - key: {{ trimPrefix (printf "%s/" $secret) . | quote }}
              path: {{ . | quote }}
          {{- end }}
          {{- end }}
    {{- end }}
{{- end }}
{{- with .own.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The Secrets of a JSON list of keys, each once, as JSON. */}}
{{- define "narrows.secretNames" -}}
{{- $names := list -}}
{{- range fromJsonArray . -}}{{- $names = append $names (splitList "/" . | first) -}}{{- end -}}
{{- $names | uniq | toJson -}}
{{- end -}}

{{/* A worker's scratch volume. Takes pool. */}}
{{- define "narrows.scratchVolume" -}}
- name: scratch
{{- with .pool.scratch }}
{{- if eq .kind "emptyDir" }}
  emptyDir:
    sizeLimit: {{ include "narrows.quantity" .size }}
    {{- with .medium }}
    medium: {{ . }}
    {{- end }}
{{- else }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: {{- toYaml .accessModes | nindent 10 }}
        {{- with .storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ include "narrows.quantity" .size }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A pool's resources: an emptyDir on disk is asked for, so that the node has it. Takes pool. */}}
{{- define "narrows.workerResources" -}}
{{- $resources := deepCopy .pool.resources -}}
{{- if and (eq .pool.scratch.kind "emptyDir") (ne .pool.scratch.medium "Memory") -}}
{{- $requests := default dict $resources.requests -}}
{{- if not (hasKey $requests "ephemeral-storage") -}}
{{- $_ := set $requests "ephemeral-storage" (include "narrows.quantity" .pool.scratch.size) -}}
{{- $_ := set $resources "requests" $requests -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/*
Probes. Liveness is patient: a worker whose dispatcher hangs says so after 30 s of its own. Readiness waits longer than the
program does for broker and store. Takes nothing.
*/}}
{{- define "narrows.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}
