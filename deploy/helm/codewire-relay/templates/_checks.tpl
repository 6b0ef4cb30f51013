{{- /* What the schema cannot say: values that need each other, and what is not built. */}}
{{- define "codewire-relay.checks" -}}
{{- if not .Values.relay.baseURL }}
{{- fail "relay.baseURL is required: the URL under which nodes reach this relay, for example --set relay.baseURL=https://relay.example.com" }}
{{- end }}
{{- if not (regexMatch "^https?://[][A-Za-z0-9._:-]+/?$" .Values.relay.baseURL) }}
{{- fail (printf "relay.baseURL %q is no http(s)://host[:port]" .Values.relay.baseURL) }}
{{- end }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- fail (printf "replicaCount %v: a relay keeps its store in SQLite, which has one owner; more than one replica by this chart is not built yet" .Values.replicaCount) }}
{{- end }}
{{- if eq .Values.relay.authMode "none" }}
{{- fail "relay.authMode none lets in everybody who reaches the relay; in a cluster that is everybody: use token, oidc or github" }}
{{- end }}
{{- if eq .Values.relay.authMode "oidc" }}
{{- if not (regexMatch "^https://[^?#$[:space:]]+$" .Values.oidc.issuer) }}
{{- fail (printf "relay.authMode oidc needs oidc.issuer, an https:// URL; it is %q" .Values.oidc.issuer) }}
{{- end }}
{{- if not .Values.oidc.clientID }}
{{- fail "relay.authMode oidc needs oidc.clientID" }}
{{- end }}
{{- else if .Values.oidc.issuer }}
{{- fail "oidc.issuer is set, but relay.authMode is not oidc" }}
{{- end }}
{{- if eq .Values.relay.authMode "github" }}
{{- if not (and .Values.github.clientID .Values.github.allowedUsers) }}
{{- fail "relay.authMode github needs github.clientID and github.allowedUsers" }}
{{- end }}
{{- else if .Values.github.clientID }}
{{- fail "github.clientID is set, but relay.authMode is not github" }}
{{- end }}
{{- if or .Values.ssh.enabled .Values.relay.sshListen }}
{{- fail "an SSH gateway by this chart is not built yet; leave ssh.enabled false and relay.sshListen empty" }}
{{- end }}
{{- if .Values.database.enabled }}
{{- fail "a relay over PostgreSQL by this chart is not built yet; leave database.enabled false" }}
{{- end }}
{{- if and .Values.relay.authToken .Values.relay.existingSecret.name }}
{{- fail "relay.authToken and relay.existingSecret.name are two tokens; give one" }}
{{- end }}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) }}
{{- fail "tls.enabled needs tls.existingSecret, a secret with the certificate and its key" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.enabled needs ingress.hosts, for example --set ingress.hosts[0].host=relay.example.com" }}
{{- end }}
{{- if and (not .Values.stun.enabled) .Values.stun.service.type }}
{{- fail "stun.service.type is set but stun.enabled is false" }}
{{- end }}
{{- end }}
