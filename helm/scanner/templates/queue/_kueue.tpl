{{/*
Labels by which Kueue takes a Job or a Deployment into a queue; nothing without a queue. Takes the root context.
*/}}
{{- define "scanner.kueue.labels" -}}
{{- with .Values.kueue.queue -}}
kueue.x-k8s.io/queue-name: {{ . | quote }}
{{- with $.Values.kueue.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
