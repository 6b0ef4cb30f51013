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

{{- /* The secret of the user's with the relay's secret at the provider; nothing if there is none. */}}
{{- define "codewire-relay.providerSecret" -}}
{{- if eq .Values.relay.authMode "oidc" }}{{ .Values.oidc.clientSecretRef.name }}
{{- else if eq .Values.relay.authMode "github" }}{{ .Values.github.clientSecretRef.name }}
{{- end }}
{{- end }}

{{- /* The key in it. */}}
{{- define "codewire-relay.providerKey" -}}
{{- if eq .Values.relay.authMode "github" }}{{ .Values.github.clientSecretRef.key }}
{{- else }}{{ .Values.oidc.clientSecretRef.key }}
{{- end }}
{{- end }}

{{- /* The relay's arguments about its provider, as a JSON list. */}}
{{- define "codewire-relay.providerArgs" -}}
{{- $args := list }}
{{- if eq .Values.relay.authMode "oidc" }}
{{- $args = append $args (printf "--oidc-issuer=%s" .Values.oidc.issuer) }}
{{- $args = append $args (printf "--oidc-client-id=%s" .Values.oidc.clientID) }}
{{- with .Values.oidc.allowedGroups }}{{ $args = append $args (printf "--oidc-allowed-groups=%s" (join "," .)) }}{{ end }}
{{- with .Values.oidc.groupsClaim }}{{ $args = append $args (printf "--oidc-groups-claim=%s" .) }}{{ end }}
{{- with .Values.oidc.scopes }}{{ $args = append $args (printf "--oidc-scopes=%s" (join "," .)) }}{{ end }}
{{- if .Values.oidc.clientSecretRef.name }}{{ $args = append $args "--oidc-client-secret-file=/etc/codewire/provider/client-secret" }}{{ end }}
{{- else if eq .Values.relay.authMode "github" }}
{{- $args = append $args (printf "--github-client-id=%s" .Values.github.clientID) }}
{{- $args = append $args (printf "--github-allowed-users=%s" (join "," .Values.github.allowedUsers)) }}
{{- with .Values.github.url }}{{ $args = append $args (printf "--github-url=%s" .) }}{{ end }}
{{- if .Values.github.clientSecretRef.name }}{{ $args = append $args "--github-client-secret-file=/etc/codewire/provider/client-secret" }}{{ end }}
{{- end }}
{{- toJson $args }}
{{- end }}
