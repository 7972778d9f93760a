{{/*
One survey as the templates see it, as JSON: surveyDefaults with the survey's own values over them.
include "scanner.survey" (dict "root" $ "survey" "q1") | fromJson
*/}}
{{- define "scanner.survey" -}}
{{- mergeOverwrite (deepCopy .root.Values.surveyDefaults) (index .root.Values.surveys .survey | default dict | deepCopy) | toJson -}}
{{- end }}

{{/*
Name of a survey's objects: include "scanner.surveyObjectName" (dict "root" $ "survey" "q1" "component" "scan").
*/}}
{{- define "scanner.surveyObjectName" -}}
{{- include "scanner.objectName" (dict "root" .root "parts" (list .survey .component)) -}}
{{- end }}

{{/*
Where a survey's tile list lies in the container. Takes the survey.
*/}}
{{- define "scanner.tileList" -}}
{{- if .tileList.inline -}}
/etc/scanner/survey/tiles.txt
{{- else -}}
{{- .tileList.url | default .tileList.path -}}
{{- end -}}
{{- end }}

{{/*
Address of the Dask scheduler that a survey's workers look for: include "scanner.schedulerAddress" (dict "root" $ "survey" "q1").
*/}}
{{- define "scanner.schedulerAddress" -}}
{{- if .root.Values.scheduler.standing.enabled -}}
{{- printf "%s://%s:8786" (include "scanner.daskProtocol" .root) (include "scanner.objectName" (dict "root" .root "parts" (list "scheduler"))) -}}
{{- else -}}
{{- printf "%s://%s:8786" (include "scanner.daskProtocol" .root) (include "scanner.surveyObjectName" (dict "root" .root "survey" .survey "component" "scan")) -}}
{{- end -}}
{{- end }}

{{/*
What a scan's pod finds in /etc/scanner/survey; same arguments as "scanner.survey".
*/}}
{{- define "scanner.scanConfigData" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
scanner.toml: |
  {{- toToml $survey.config | nindent 2 }}
{{- with $survey.tileList.inline }}
tiles.txt: |
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
