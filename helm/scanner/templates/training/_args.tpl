{{/*
Words of the commands that make a bundle. All take the root context.
*/}}

{{/*
Folder of the runs: on the data volume; with a mirror alone, on the pod's own disk, which the next pod fills from the mirror.
*/}}
{{- define "scanner.runsFolder" -}}
{{- .Values.training.out | default (ternary "/data/training/runs" "/scratch/runs" .Values.persistence.data.enabled) -}}
{{- end }}

{{- define "scanner.trainArgs" -}}
{{- with .Values.training -}}
- train
- all
{{- range .data }}
- {{ printf "--data=%s" (tpl . $) | quote }}
{{- end }}
- {{ printf "--out=%s" (include "scanner.runsFolder" $) | quote }}
{{- with .mirror }}
- {{ printf "--mirror=%s" (tpl . $) | quote }}
{{- end }}
- --preset={{ .preset }}
- --seed={{ .seed | int64 }}
{{- with .timeBudget }}
- --time-budget={{ . }}
{{- end }}
{{- with .from }}
- {{ printf "--from=%s" (tpl . $) | quote }}
{{- end }}
{{- range .members }}
- --member={{ . }}
{{- end }}
- --jobs={{ .jobs | int }}
- --device={{ ternary "cuda" "cpu" .gpu }}
- --metrics-port=9464
- --log-format=json
{{- end }}
{{- end }}

{{- define "scanner.exportArgs" -}}
{{- with .Values.export -}}
- train
- bundle
{{- range $.Values.training.data }}
- {{ printf "--data=%s" (tpl . $) | quote }}
{{- end }}
- {{ printf "--members=%s" (include "scanner.runsFolder" $) | quote }}
{{- with $.Values.training.mirror }}
- {{ printf "--mirror=%s" (tpl . $) | quote }}
{{- end }}
- {{ printf "--out=%s" (.out | default (printf "%s/%s" (ternary "/data/training" "/scratch" $.Values.persistence.data.enabled) .name)) | quote }}
- --name={{ .name }}
- {{ printf "--version=%s" .version | quote }}
- {{ printf "--description=%s" .description | quote }}
{{- range .evaluateOn }}
- {{ printf "--evaluate-on=%s" (tpl . $) | quote }}
{{- end }}
{{- range .compare }}
- {{ printf "--compare=%s" (tpl . $) | quote }}
{{- end }}
{{- with .publish }}
- {{ printf "--publish=%s" (tpl . $) | quote }}
{{- end }}
- --provider={{ ternary "cuda" "cpu" .gpu }}
- --jobs={{ .jobs | int }}
- --log-format=json
{{- end }}
{{- end }}

{{- define "scanner.promoteArgs" -}}
{{- with .Values.promote -}}
- models
- promote
- {{ .bundle | quote }}
- {{ printf "--published=%s" (tpl .published $) | quote }}
{{- range .data }}
- {{ printf "--data=%s" (tpl . $) | quote }}
{{- end }}
{{- with .over }}
- {{ printf "--over=%s" (tpl . $) | quote }}
{{- end }}
- --cache=/scratch/log-odds
- --provider={{ ternary "cuda" "cpu" .gpu }}
- --threads={{ .threads | int }}
{{- end }}
{{- end }}
