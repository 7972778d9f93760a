{{/*
What the schema cannot see, as it lies between two values. Each takes the root context; each sentence names the value, says what
is wrong and what to do.
*/}}
{{- define "scanner.refuseTraining" -}}
{{- if not .Values.training.data -}}
{{- fail "training.data: missing; name the sets that the networks are trained on, /data/… or s3://…" -}}
{{- end -}}
{{- if not (or .Values.training.mirror .Values.persistence.data.enabled) -}}
{{- fail "training.mirror: checkpoints would go with the pod; name a mirror, s3://…, or set persistence.data.enabled." -}}
{{- end -}}
{{- if and .Values.training.out (hasPrefix "/data" .Values.training.out) (not .Values.persistence.data.enabled) -}}
{{- fail (printf "training.out: %s lies on the data volume, and there is none; set persistence.data.enabled, or leave it out." .Values.training.out) -}}
{{- end -}}
{{- end }}

{{- define "scanner.refuseExport" -}}
{{- include "scanner.refuseTraining" . -}}
{{- if not (or .Values.export.publish .Values.persistence.data.enabled) -}}
{{- fail "export.publish: the bundle would go with the pod; name a store of bundles, s3://…, or set persistence.data.enabled." -}}
{{- end -}}
{{- end }}

{{- define "scanner.refusePromote" -}}
{{- if not .Values.promote.published -}}
{{- fail "promote.published: missing; name the store of bundles whose current one is to be another, s3://… or /data/…" -}}
{{- end -}}
{{- if not .Values.promote.data -}}
{{- fail "promote.data: missing; name the held-out sets that the bundle is judged on." -}}
{{- end -}}
{{- end }}
