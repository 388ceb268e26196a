{{/* Names and labels. */}}
{{- define "quarr.name" -}}
{{- if contains "quarr" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-quarr" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "quarr.selector" -}}
app.kubernetes.io/name: quarr
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "quarr.labels" -}}
{{ include "quarr.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "quarr.account" -}}
{{ .Values.serviceAccount.name | default (include "quarr.name" .) }}
{{- end }}

{{- define "quarr.gcAccount" -}}
{{ .Values.gc.serviceAccount.name | default (printf "%s-gc" (include "quarr.name" .)) }}
{{- end }}

{{- define "quarr.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* MiB of a quantity in Mi or Gi. */}}
{{- define "quarr.mebibytes" -}}
{{- if hasSuffix "Gi" . }}{{ mul 1024 (trimSuffix "Gi" . | int64) }}{{ else }}{{ trimSuffix "Mi" . }}{{ end -}}
{{- end }}

{{/* What every container may do: nothing but read its image and write to its cache. */}}
{{- define "quarr.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "quarr.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where the store is, and how much of the container's memory and disk Quarr takes. Called with the
root, the memory limit and the secret of credentials. */}}
{{- define "quarr.environment" -}}
- name: QUARR_STORE
  value: {{ .root.Values.store.url | quote }}
- name: QUARR_MEMORY_LIMIT
  value: {{ printf "%dMiB" (div (mul (include "quarr.mebibytes" .memory | int64) (.root.Values.memoryPercent | int64)) 100) | quote }}
- name: QUARR_CACHE_DIR
  value: /var/cache/quarr
- name: QUARR_CACHE_DISK
  value: {{ printf "%dMiB" (div (mul (include "quarr.mebibytes" .root.Values.cache.size | int64) 9) 10) | quote }}
- name: TMPDIR
  value: /var/cache/quarr
{{- with .root.Values.store.awsRegion }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .root.Values.store.endpoint }}
- name: AWS_ENDPOINT
  value: {{ . | quote }}
{{- if hasPrefix "http://" . }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- end }}
{{- range $name, $value := .root.Values.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $from := .root.Values.secretEnvironment }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.secret }}
      key: {{ $from.key }}
{{- end }}
{{- end }}

{{- define "quarr.volumes" -}}
- name: cache
  emptyDir:
    sizeLimit: {{ .Values.cache.size }}
    {{- with .Values.cache.medium }}
    medium: {{ . }}
    {{- end }}
{{- end }}
