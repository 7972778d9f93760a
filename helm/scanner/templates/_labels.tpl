{{/*
Labels by which a Service, a Deployment or a NetworkPolicy finds pods; they never change from one version to the next:
include "scanner.selectorLabels" (dict "root" $ "component" "worker" "survey" "q1"). "survey" may be left out.
*/}}
{{- define "scanner.selectorLabels" -}}
app.kubernetes.io/name: scanner
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .survey }}
scanner.lensing/survey: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
All labels of an object; same arguments.
*/}}
{{- define "scanner.labels" -}}
{{ include "scanner.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: scanner
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Labels of a pod; same arguments. The chart's version is not among them: a chart that is newer in other places only must not
send workers away.
*/}}
{{- define "scanner.podLabels" -}}
{{ include "scanner.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: scanner
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
