{{/*
Arguments of a survey's driver, `scanner run …`: include "scanner.scanArgs" (dict "root" $ "survey" "q1").
*/}}
{{- define "scanner.scanArgs" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{- $workers := $survey.workers -}}
- run
{{- if $survey.tileList.inline }}
- /etc/scanner/survey/tiles.txt
{{- else }}
- {{ $survey.tileList.url | default $survey.tileList.path | quote }}
{{- end }}
- {{ printf "--out=%s" (tpl $survey.out .root) | quote }}
- --config=/etc/scanner/survey/scanner.toml
{{- with $survey.bundle }}
- {{ printf "--bundle=%s" . | quote }}
{{- end }}
{{- if and $workers.gpu (eq (dig "scoring" "provider" "auto" $survey.config) "auto") }}
- --provider=cuda
{{- end }}
- --workers={{ $workers.replicas | int }}
{{- if eq $workers.scaling "local" }}
- --memory-gb={{ $workers.memoryGb }}
{{- else }}
{{- if include "scanner.listens" . }}
- --listen={{ include "scanner.daskProtocol" .root }}://0.0.0.0:8786
{{- else }}
- --scheduler={{ include "scanner.schedulerAddress" . }}
{{- end }}
{{- if eq $workers.scaling "driver" }}
{{- $deployment := include "scanner.surveyObjectName" (dict "root" .root "survey" .survey "component" "worker") }}
- --scale-deployment={{ .root.Release.Namespace }}/{{ $deployment }}
{{- end }}
{{- with include "scanner.daskTlsArgs" .root }}
{{ . }}
{{- end }}
{{- end }}
- --scratch=/scratch
- --metrics-port=9464
- --log-format=json
{{- with $survey.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
