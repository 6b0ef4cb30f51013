{{- define "codewire-relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* Short enough for the suffixes that are added to it. */}}
{{- define "codewire-relay.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "codewire-relay.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "codewire-relay.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "codewire-relay.selector" -}}
app.kubernetes.io/name: {{ include "codewire-relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "codewire-relay.labels" -}}
{{ include "codewire-relay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "codewire-relay.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "codewire-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "codewire-relay.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "codewire-relay.tokenSecret" -}}
{{- .Values.relay.existingSecret.name | default (printf "%s-auth" (include "codewire-relay.fullname" .)) }}
{{- end }}

{{- define "codewire-relay.tokenKey" -}}
{{- if .Values.relay.existingSecret.name }}{{ .Values.relay.existingSecret.key }}{{ else }}auth-token{{ end }}
{{- end }}

{{- /* The token of the chart's own secret: as told, else as it was, else a new one. */}}
{{- define "codewire-relay.token" -}}
{{- $was := dig "data" "auth-token" "" (lookup "v1" "Secret" .Release.Namespace (include "codewire-relay.tokenSecret" .) | default dict) }}
{{- if .Values.relay.authToken }}
{{- .Values.relay.authToken }}
{{- else if $was }}
{{- $was | b64dec }}
{{- else }}
{{- randAlphaNum 40 }}
{{- end }}
{{- end }}

{{- define "codewire-relay.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-data" (include "codewire-relay.fullname" .)) }}
{{- end }}

{{- define "codewire-relay.httpPort" -}}
{{- regexReplaceAll "^.*:" .Values.relay.listenAddr "" }}
{{- end }}

{{- define "codewire-relay.scheme" -}}
{{- if .Values.tls.enabled }}https{{ else }}http{{ end }}
{{- end }}

{{- define "codewire-relay.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.securityContext.user }}
runAsGroup: {{ .Values.securityContext.group }}
fsGroup: {{ .Values.securityContext.group }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "codewire-relay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Annotations and labels: their values are strings, whatever was typed. */}}
{{- define "codewire-relay.map" -}}
{{- range $key, $value := . }}
{{ $key | quote }}: {{ $value | quote }}
{{- end }}
{{- end }}
