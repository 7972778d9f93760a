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
- --data={{ tpl . $ }}
{{- end }}
- --out={{ include "scanner.runsFolder" $ }}
{{- with .mirror }}
- --mirror={{ tpl . $ }}
{{- end }}
- --preset={{ .preset }}
- --seed={{ .seed | int64 }}
{{- with .timeBudget }}
- --time-budget={{ . }}
{{- end }}
{{- with .from }}
- --from={{ tpl . $ }}
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
- --data={{ tpl . $ }}
{{- end }}
- --members={{ include "scanner.runsFolder" $ }}
{{- with $.Values.training.mirror }}
- --mirror={{ tpl . $ }}
{{- end }}
- --out={{ .out | default (ternary (printf "/data/training/%s" .name) (printf "/scratch/%s" .name) $.Values.persistence.data.enabled) }}
- --name={{ .name }}
- --version={{ .version }}
- {{ printf "--description=%s" .description | quote }}
{{- range .evaluateOn }}
- --evaluate-on={{ tpl . $ }}
{{- end }}
{{- range .compare }}
- --compare={{ tpl . $ }}
{{- end }}
{{- with .publish }}
- --publish={{ tpl . $ }}
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
- {{ .bundle }}
- --published={{ tpl .published $ }}
{{- range .data }}
- --data={{ tpl . $ }}
{{- end }}
{{- with .over }}
- --over={{ tpl . $ }}
{{- end }}
- --cache=/scratch/log-odds
- --provider={{ ternary "cuda" "cpu" .gpu }}
- --threads={{ .threads | int }}
{{- end }}
{{- end }}
