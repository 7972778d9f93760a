{{/*
Selector of the release's pods of some components: include "scanner.podsOf" (dict "root" $ "components" (list "scan" "worker")).
*/}}
{{- define "scanner.podsOf" -}}
matchLabels:
  app.kubernetes.io/name: scanner
  app.kubernetes.io/instance: {{ .root.Release.Name }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: {{ .components | toJson }}
{{- end }}

{{/*
Metadata of a policy: include "scanner.policyMetadata" (dict "root" $ "name" "dns").
*/}}
{{- define "scanner.policyMetadata" -}}
name: {{ include "scanner.objectName" (dict "root" .root "parts" (list "allow" .name)) }}
labels:
  {{- include "scanner.labels" (dict "root" .root "component" "network") | nindent 2 }}
{{- end }}

{{/*
Ports of object stores: those that are named, else that of objectStorage.endpoint, else 443. As JSON.
*/}}
{{- define "scanner.objectStoragePorts" -}}
{{- $ports := .Values.networkPolicy.objectStorage.ports -}}
{{- if not $ports -}}
{{- $url := urlParse .Values.objectStorage.endpoint -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = list (int ($named | default (eq $url.scheme "http" | ternary "80" "443"))) -}}
{{- end -}}
{{- $ports | toJson -}}
{{- end }}
