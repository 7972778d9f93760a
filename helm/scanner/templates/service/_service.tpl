{{/*
Name of the catalogue service's objects.
*/}}
{{- define "scanner.serviceName" -}}
{{- include "scanner.objectName" (dict "root" . "parts" (list "service")) -}}
{{- end }}

{{/*
URL that clients reach the service by; empty where nothing says it: links then begin with what each request says.
*/}}
{{- define "scanner.serviceBaseUrl" -}}
{{- $service := .Values.service -}}
{{- if $service.baseUrl -}}
{{- $service.baseUrl -}}
{{- else if $service.ingress.enabled -}}
{{- printf "%s://%s%s" ($service.ingress.tls.enabled | ternary "https" "http") $service.ingress.host $service.ingress.path -}}
{{- else if and $service.httpRoute.enabled $service.httpRoute.hostnames -}}
{{- printf "https://%s%s" (first $service.httpRoute.hostnames) $service.httpRoute.path -}}
{{- end -}}
{{- end }}

{{/*
Fewest replicas that there are when all is well.
*/}}
{{- define "scanner.serviceReplicas" -}}
{{- .Values.service.autoscaling.enabled | ternary .Values.service.autoscaling.minReplicas .Values.service.replicas | int -}}
{{- end }}

{{/*
Settings of the service (docs/serving.md), without those that are flags.
*/}}
{{- define "scanner.serviceConfigData" -}}
{{- $grading := dict "grading" (dict "enabled" .Values.service.grades.enabled) -}}
service.toml: |
  {{- mergeOverwrite (deepCopy .Values.service.config) $grading | toToml | nindent 2 }}
{{- end }}

{{/*
Refuses values that contradict one another.
*/}}
{{- define "scanner.serviceChecked" -}}
{{- $service := .Values.service -}}
{{- if not $service.folders -}}
{{- fail "service.folders: is empty; name the run or survey folders to serve, /data/… or s3://…" -}}
{{- end -}}
{{- range $service.folders -}}
{{- if and (hasPrefix "/data" (tpl . $)) (not $.Values.persistence.data.enabled) -}}
{{- fail (printf "service.folders: %s lies on the data volume; set persistence.data.enabled." .) -}}
{{- end -}}
{{- end -}}
{{- if not (or $service.tokens.existingSecret $service.public) -}}
{{- fail "service: everybody who reaches it could read; name service.tokens.existingSecret ('scanner tokens add' writes its lines), or set service.public if that is what you want." -}}
{{- end -}}
{{- if and $service.grades.enabled (not $service.tokens.existingSecret) -}}
{{- fail "service.grades: nobody could grade, as grades go by the name of a token; name service.tokens.existingSecret, or set service.grades.enabled to false." -}}
{{- end -}}
{{- if and $service.grades.enabled (or $service.autoscaling.enabled (gt (int $service.replicas) 1)) -}}
{{- fail "service.grades: grades are kept in one SQLite file, which one replica writes; set service.replicas to 1 and service.autoscaling.enabled to false, or service.grades.enabled to false." -}}
{{- end -}}
{{- $queries := dig "limits" "memory_mb" 1024 $service.config -}}
{{- $workers := dig "limits" "workers" 4 $service.config -}}
{{- $needed := addf 0.3 (divf $queries 1000) (mulf 0.2 $workers) -}}
{{- with dig "limits" "memory" "" $service.resources -}}
{{- if gt $needed (include "scanner.gigabytes" . | float64) -}}
{{- fail (printf "service.resources.limits.memory: %v is less than the %.1f GB that the service may take (0.3, %d MB for queries, and 0.2 for each of %d workers); raise it, or lower service.config.limits.memory_mb." . $needed (int $queries) (int $workers)) -}}
{{- end -}}
{{- end -}}
{{- if and $service.ingress.enabled (not $service.ingress.host) -}}
{{- fail "service.ingress.host: is empty; name the host that clients reach the service by." -}}
{{- end -}}
{{- if and $service.httpRoute.enabled (not $service.httpRoute.parentRefs) -}}
{{- fail "service.httpRoute.parentRefs: is empty; name the Gateway that the route hangs on." -}}
{{- end -}}
{{- end }}
