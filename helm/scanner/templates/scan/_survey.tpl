{{/*
One survey as the templates see it, as JSON: surveyDefaults with the survey's own values over them.
include "scanner.survey" (dict "root" $ "survey" "q1") | fromJson; all partials of this file take these arguments.
*/}}
{{- define "scanner.survey" -}}
{{- mergeOverwrite (deepCopy .root.Values.surveyDefaults) (index .root.Values.surveys .survey | default dict | deepCopy) | toJson -}}
{{- end }}

{{/*
Name of a survey's objects; "component" says which: scan or worker.
*/}}
{{- define "scanner.surveyObjectName" -}}
{{- include "scanner.objectName" (dict "root" .root "parts" (list .survey .component)) -}}
{{- end }}

{{/*
ServiceAccount of a survey's driver: one of its own where it may scale its workers.
*/}}
{{- define "scanner.scanServiceAccountName" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{- if and .root.Values.serviceAccount.create (eq $survey.workers.scaling "driver") -}}
{{- include "scanner.surveyObjectName" (dict "root" .root "survey" .survey "component" "scan") -}}
{{- else -}}
{{- include "scanner.serviceAccountName" .root -}}
{{- end -}}
{{- end }}

{{/*
"yes" where the driver is itself the scheduler that workers come to; else nothing.
*/}}
{{- define "scanner.listens" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{- if and (not .root.Values.scheduler.standing.enabled) (has $survey.workers.scaling (list "driver" "keda" "fixed")) -}}
yes
{{- end -}}
{{- end }}

{{/*
Address of the Dask scheduler that a survey's workers look for.
*/}}
{{- define "scanner.schedulerAddress" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{- if eq $survey.workers.scaling "operator" -}}
{{- include "scanner.operator.schedulerAddress" . -}}
{{- else -}}
{{- $name := include "scanner.surveyObjectName" (dict "root" .root "survey" .survey "component" "scan") -}}
{{- if .root.Values.scheduler.standing.enabled -}}
{{- $name = include "scanner.objectName" (dict "root" .root "parts" (list "scheduler")) -}}
{{- end -}}
{{- printf "%s://%s:8786" (include "scanner.daskProtocol" .root) $name -}}
{{- end -}}
{{- end }}

{{/*
What a scan's pod finds in /etc/scanner/survey.
*/}}
{{- define "scanner.scanConfigData" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
scanner.toml: |
  {{- toToml $survey.config | trim | nindent 2 }}
{{- with $survey.tileList.inline }}
tiles.txt: |
  {{- . | trim | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Volumes that the pods of driver and workers have, and where they are mounted.
*/}}
{{- define "scanner.surveyVolumes" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{ include "scanner.volumes" .root }}
{{ include "scanner.scratchVolume" .root }}
{{- if ne $survey.workers.scaling "local" }}
{{- with include "scanner.daskTlsVolume" .root }}
{{ . }}
{{- end }}
{{- end }}
{{- with $survey.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "scanner.surveyVolumeMounts" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{ include "scanner.volumeMounts" .root }}
- name: scratch
  mountPath: /scratch
{{- if ne $survey.workers.scaling "local" }}
{{- with include "scanner.daskTlsVolumeMount" .root }}
{{ . }}
{{- end }}
{{- end }}
{{- with $survey.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
