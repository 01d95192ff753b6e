{{/*
The program's settings: merged, checked, computed where the chart knows better, written as TOML.

A map with secretName and secretKey stands for the path of that key, mounted; it may stand only where a file is named.
*/}}

{{/* Where the settings and the secrets are mounted. */}}
{{- define "narrows.configFolder" -}}/etc/narrows{{- end -}}
{{- define "narrows.secretsFolder" -}}/run/secrets/narrows{{- end -}}
{{- define "narrows.scratchFolder" -}}/var/lib/narrows/scratch{{- end -}}

{{/*
A worker's settings as JSON. Takes root, name and pool. Who may use the API and what signs callbacks is the coordinators'
alone: a worker, which starts what reads hostile media, has none of it.
*/}}
{{- define "narrows.workerConfig" -}}
{{- $config := mergeOverwrite (deepCopy .root.Values.config) (deepCopy .pool.config) -}}
{{- include "narrows.checkConfig" (dict "config" $config "own" .pool "where" (printf "workers.%s.config" .name)) -}}
{{- $_ := unset $config "coordinator" -}}
{{- range $tenant := values (default dict $config.tenants) -}}
{{- range list "access_key_id" "secret_sha256" "secret_file" "secret_env" "webhook_secret_files" "webhook_secrets_env" "vod_2017_key_file" "vod_2017_key_env" -}}
{{- $_ := unset $tenant . -}}
{{- end -}}
{{- end -}}
{{- $stop := include "narrows.workerStop" (dict "config" $config "pool" .pool "name" .name) | fromJson -}}
{{- $size := include "narrows.bytes" .pool.scratch.size | int64 -}}
{{/* Tenths: a file system has its own needs, and the kubelet measures only now and then. */}}
{{- $room := div (mul $size 9) 10 -}}
{{- $partBytes := int64 $config.scratch.part_bytes -}}
{{- if lt $room $partBytes -}}
{{- fail (printf "workers.%s.scratch.size: nine tenths of %s are %d bytes, less than one part needs (config.scratch.part_bytes: %d)" .name .pool.scratch.size $room $partBytes) -}}
{{- end -}}
{{- $computed := dict
  "worker" (dict "listen" (printf "%s:%d" .root.Values.ports.listen (int .root.Values.ports.worker)) "slots" (int64 .pool.slots) "drain_s" $stop.drain)
  "scratch" (dict "folder" (include "narrows.scratchFolder" .) "worker_bytes" $room)
  "limits" (dict "scratch_bytes" (min $room (int64 $config.limits.scratch_bytes)))
-}}
{{- $_ := set $config "devices" (include "narrows.devices" (dict "root" .root "config" $config) | fromJson) -}}
{{- $worker := get $computed "worker" -}}
{{- if ne .pool.class "cpu" -}}
{{- if not (has .pool.class $config.devices.classes) -}}
{{- fail (printf "workers.%s.class: is %q, which is not in config.devices.classes: no job would be sent there" .name .pool.class) -}}
{{- end -}}
{{/* Only what needs a device: submissions and all else are for the pools of class cpu, as are the queues they scale by. */}}
{{- $_ := set $worker "software" false -}}
{{- if not (hasKey (default dict $config.worker) "devices") -}}
{{- $_ := set $worker "devices" (list (dict "class" .pool.class "sessions" (int64 .pool.slots))) -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $config $computed | toJson -}}
{{- end -}}

{{/*
What the fleet has beside software encoders, as JSON: the classes of the pools that are enabled, unless the settings say.
Takes root and config.
*/}}
{{- define "narrows.devices" -}}
{{- $classes := list -}}
{{- range $class := list "nvenc" "qsv" "vaapi" -}}
{{- range $pool := include "narrows.pools" $.root | fromJson -}}
{{- if eq $pool.class $class -}}{{- $classes = append $classes $class | uniq -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite (dict "classes" $classes) (default dict .config.devices) | toJson -}}
{{- end -}}

{{/* A coordinator's settings as JSON. Takes the root. */}}
{{- define "narrows.coordinatorConfig" -}}
{{- $config := mergeOverwrite (deepCopy .Values.config) (deepCopy .Values.coordinator.config) -}}
{{- include "narrows.checkConfig" (dict "config" $config "own" .Values.coordinator "where" "coordinator.config") -}}
{{- $hasKey := hasKey (default dict $config.coordinator) "operator" -}}
{{- range $tenant := values (default dict $config.tenants) -}}
{{- if hasKey $tenant "access_key_id" -}}{{- $hasKey = true -}}{{- end -}}
{{- end -}}
{{- if not $hasKey -}}
{{- fail "config.tenants: no tenant has an access_key_id, and there is no config.coordinator.operator: a coordinator that others can reach would refuse to start; configure one, or set coordinator.enabled: false" -}}
{{- end -}}
{{- $_ := unset $config "scratch" -}}
{{- $_ := unset $config "limits" -}}
{{- $_ := set $config "devices" (include "narrows.devices" (dict "root" . "config" $config) | fromJson) -}}
{{- $listen := printf "%s:%d" .Values.ports.listen (int .Values.ports.coordinator) -}}
{{- mergeOverwrite $config (dict "coordinator" (dict "listen" $listen)) | toJson -}}
{{- end -}}

{{/*
Fails where the settings lack what any fleet needs; what a single value may be is in values.schema.json. Takes config, own
and where.
*/}}
{{- define "narrows.checkConfig" -}}
{{- range $name, $store := .config.stores -}}
{{- $isMounted := false -}}
{{- range $.own.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" (default "" $store.root)) -}}{{- $isMounted = true -}}{{- end -}}
{{- end -}}
{{- if and (eq (default "" $store.type) "fs") (not $isMounted) -}}
{{- fail (printf "%s: stores.%s is the folder %q, which is on no volume of the pods; mount it with extraVolumes and extraVolumeMounts" $.where $name (default "" $store.root)) -}}
{{- end -}}
{{- end -}}
{{- if not (hasKey (default dict .config.stores) .config.work.store) -}}
{{- fail (printf "config.stores: there is no store %q, which config.work.store names: jobs, plans and events are kept in it" .config.work.store) -}}
{{- end -}}
{{- end -}}

{{/*
How a worker stops, as JSON: drain, the seconds in which the program leaves, and grace, after which Kubernetes kills it.
Ten seconds over the longest part: the program keeps two and a half of them for leaving itself. Twenty more for Kubernetes.
*/}}
{{- define "narrows.workerStop" -}}
{{- $where := printf "workers.%s" .name -}}
{{- $part := int64 .config.worker.part_deadline_s -}}
{{- $drain := int64 (default (add $part 10) .config.worker.drain_s) -}}
{{- $grace := int64 (default (add $drain 20) .pool.terminationGracePeriodSeconds) -}}
{{- if lt $grace (add $drain 5) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: is %d, and the program takes up to %d s to leave (worker.drain_s): it would be killed with work in hand; give it at least %d, or lower worker.drain_s" $where $grace $drain (add $drain 5)) -}}
{{- end -}}
{{- if and (lt $drain (add $part 5)) (not .pool.handBack) -}}
{{- fail (printf "%s: worker.drain_s is %d, and a part may take %d s (worker.part_deadline_s): parts would be broken off and done again; give it at least %d, or allow that with handBack: true" $where $drain $part (add $part 5)) -}}
{{- end -}}
{{- dict "drain" $drain "grace" $grace | toJson -}}
{{- end -}}

{{/* Seconds that a coordinator gets: until nothing comes any more, the requests under way, one callback, the writes. */}}
{{- define "narrows.coordinatorGrace" -}}
{{- $config := include "narrows.coordinatorConfig" . | fromJson -}}
{{- $sleep := int64 .Values.coordinator.preStopSleepSeconds -}}
{{- $least := add $sleep 10 (int64 $config.callbacks.timeout_s) -}}
{{- $grace := int64 (default (add $least 30) .Values.coordinator.terminationGracePeriodSeconds) -}}
{{- if lt $grace $least -}}
{{- fail (printf "coordinator.terminationGracePeriodSeconds: is %d; preStopSleepSeconds, ten seconds for requests under way and callbacks.timeout_s are %d" $grace $least) -}}
{{- end -}}
{{- $grace -}}
{{- end -}}

{{/* The keys of Secrets that a tree of settings names, "NAME/KEY " each. Takes tree and field, the name it stands under. */}}
{{- define "narrows.secretKeys" -}}
{{- if kindIs "map" .tree -}}
{{- if hasKey .tree "secretName" -}}
{{- include "narrows.secretKey" . }} {{ else -}}
{{- range $field, $tree := .tree -}}
{{- include "narrows.secretKeys" (dict "tree" $tree "field" $field) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .tree -}}
{{- range $tree := .tree -}}{{- include "narrows.secretKeys" (dict "tree" $tree "field" $.field) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* One of them. The schema knows the fields that take one; inside what it leaves to the program, their names tell. */}}
{{- define "narrows.secretKey" -}}
{{- if not (regexMatch "(^file|_files?)$" .field) -}}
{{- fail (printf "config: %s: a Secret is mounted as a file, so it may be named where a file may: in file, ..._file and ..._files" .field) -}}
{{- end -}}
{{- printf "%s/%s" .tree.secretName .tree.secretKey -}}
{{- end -}}

{{/*
A table as TOML: its plain fields, then the tables in it. Takes table and path, the dotted name it has.
Helm's own toToml writes every number as a floating one, which the program refuses.
*/}}
{{- define "narrows.toml" -}}
{{- $path := .path -}}
{{- $tables := dict -}}
{{- $lines := list -}}
{{- range $field, $value := .table -}}
{{- if kindIs "invalid" $value -}}
{{- else if and (kindIs "map" $value) (not (hasKey $value "secretName")) (not (hasKey $value "file")) (not (hasKey $value "env")) -}}
{{- $_ := set $tables $field $value -}}
{{- else -}}
{{- $lines = append $lines (printf "%s = %s" (include "narrows.tomlKey" $field) (include "narrows.tomlValue" (dict "value" $value "field" $field))) -}}
{{- end -}}
{{- end -}}
{{- if and $path (or $lines (not $tables)) }}

[{{ $path }}]
{{- end -}}
{{- range $lines }}
{{ . }}
{{- end -}}
{{- range $field, $table := $tables -}}
{{- $name := include "narrows.tomlKey" $field -}}
{{- include "narrows.toml" (dict "table" $table "path" (empty $path | ternary $name (printf "%s.%s" $path $name))) -}}
{{- end -}}
{{- end -}}

{{- define "narrows.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toRawJson . }}{{- end -}}
{{- end -}}

{{/* JSON's strings are TOML's, too. */}}
{{- define "narrows.tomlValue" -}}
{{- $value := .value -}}
{{- if kindIs "string" $value -}}{{- toRawJson $value -}}
{{- else if kindIs "bool" $value -}}{{- $value -}}
{{- else if kindIs "map" $value -}}
{{- if hasKey $value "secretName" -}}
{{- printf "%s/%s" (include "narrows.secretsFolder" .) (include "narrows.secretKey" (dict "tree" $value "field" .field)) | toJson -}}
{{- else -}}
{{- $pairs := list -}}
{{- range $field, $inner := $value -}}
{{- $pairs = append $pairs (printf "%s = %s" (include "narrows.tomlKey" $field) (include "narrows.tomlValue" (dict "value" $inner "field" $field))) -}}
{{- end -}}
{{ printf "{ %s }" (join ", " $pairs) }}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $inner := $value -}}
{{- $items = append $items (include "narrows.tomlValue" (dict "value" $inner "field" $.field)) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if eq (float64 $value) (float64 (int64 $value)) -}}{{ int64 $value }}
{{- else -}}{{ $value }}
{{- end -}}
{{- end -}}
