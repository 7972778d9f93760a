{{/*
Components that these values bring about, as a JSON list.
*/}}
{{- define "scanner.components" -}}
{{- $found := list -}}
{{- if .Values.scheduler.standing.enabled }}{{ $found = append $found "scheduler" }}{{ end -}}
{{- range $name, $_ := .Values.surveys -}}
{{- $survey := include "scanner.survey" (dict "root" $ "survey" $name) | fromJson -}}
{{- $found = append $found "scan" -}}
{{- if ne $survey.workers.scaling "local" }}{{ $found = append $found "worker" }}{{ end -}}
{{- if eq $survey.workers.scaling "operator" }}{{ $found = append $found "scheduler" }}{{ end -}}
{{- end -}}
{{- range list "service" "training" "export" "promote" "test" -}}
{{- if (index $.Values .).enabled }}{{ $found = append $found (eq . "training" | ternary "train" .) }}{{ end -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end }}

{{/*
Those of some components that there are, as a JSON list: include "scanner.componentsOf" (dict "root" $ "among" (list "scan" "worker")).
*/}}
{{- define "scanner.componentsOf" -}}
{{- $found := list -}}
{{- range include "scanner.components" .root | fromJsonArray -}}
{{- if has . $.among }}{{ $found = append $found . }}{{ end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{/*
Selector of the release's pods of some components: include "scanner.podsOf" (dict "root" $ "components" (list "scan" "worker")).
*/}}
{{- define "scanner.podsOf" -}}
matchLabels:
  app.kubernetes.io/name: scanner
  app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
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
