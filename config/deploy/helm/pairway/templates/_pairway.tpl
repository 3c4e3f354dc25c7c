{{/* The image's name with its tag or digest. */}}
{{- define "pairway.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Folders of the node that the agent writes into, and the name of each one's volume. Files in one folder share it. */}}
{{- define "pairway.folders" -}}
{{- $config := .Values.config -}}
{{- $api := $config.api | default dict -}}
{{- $cni := $config.cni | default dict -}}
{{- $folders := dict -}}
{{- $_ := set $folders ($config.stateDir | default "/var/lib/pairway") "state" -}}
{{- $_ = set $folders (dir ($api.socket | default "/run/pairway/api.sock")) "api" -}}
{{- range $key, $volume := dict "subnetEnv" "flannel" "conflist" "cni" -}}
{{- $file := get $cni $key -}}
{{- if and $file (ne $file "none") -}}
{{- $_ := set $folders (dir $file) $volume -}}
{{- end -}}
{{- end -}}
{{- toYaml $folders -}}
{{- end -}}

{{/* What every container has, whatever it runs. */}}
{{- define "pairway.container" -}}
image: {{ include "pairway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: NODE_NAME
    valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
  {{- if .Values.apiServer.host }}
  - name: KUBERNETES_SERVICE_HOST
    value: {{ .Values.apiServer.host | quote }}
  - name: KUBERNETES_SERVICE_PORT
    value: {{ .Values.apiServer.port | int | quote }}
  {{- end }}
securityContext:
  # The capabilities below are root's; nothing else of it is left.
  runAsUser: 0
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN, NET_RAW, NET_BIND_SERVICE]
resources:
  {{- toYaml .Values.resources | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - { name: config, mountPath: /etc/pairway, readOnly: true }
  {{- range $folder, $volume := include "pairway.folders" . | fromYaml }}
  - { name: {{ $volume }}, mountPath: {{ $folder | quote }} }
  {{- end }}
{{- end -}}

{{/* What the kubelet asks. */}}
{{- define "pairway.address" -}}
{{- $http := .Values.config.http | default dict -}}
{{- $address := $http.address | default "127.0.0.1:9474" -}}
host: {{ regexReplaceAll ":[0-9]+$" $address "" | trimAll "[]" | quote }}, port: {{ regexFind "[0-9]+$" $address }}
{{- end -}}

{{/* Mistakes that the schema can't say. */}}
{{- define "pairway.check" -}}
{{- range $at, $entry := .Values.config.overrides -}}
{{- range $key := list "stateDir" "http" "api" "store" -}}
{{- if hasKey $entry $key -}}
{{- fail (printf "config.overrides[%d].%s: the pods of all nodes are alike, so that this can't differ between them; set config.%s" $at $key $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
