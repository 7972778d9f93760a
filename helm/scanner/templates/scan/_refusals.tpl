{{/*
What the schema cannot see, as it lies between two values: include "scanner.refuseSurvey" (dict "root" $ "survey" "q1").
Each sentence names the value, says what is wrong and what to do.
*/}}
{{- define "scanner.refuseSurvey" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{- $at := printf "surveys.%s" .survey -}}
{{- $lists := without (list $survey.tileList.inline $survey.tileList.path $survey.tileList.url) "" -}}
{{- if ne (len $lists) 1 -}}
{{- fail (printf "%s.tileList: give one of inline, path and url; there are %d." $at (len $lists)) -}}
{{- end -}}
{{- if not $survey.out -}}
{{- fail (printf "%s.out: missing; name a run folder, /data/… or s3://…" $at) -}}
{{- end -}}
{{- $mounted := list -}}
{{- if .root.Values.persistence.data.enabled }}{{ $mounted = append $mounted "/data" }}{{ end -}}
{{- range $survey.volumeMounts }}{{ $mounted = append $mounted .mountPath }}{{ end -}}
{{- range $key, $path := dict "tileList.path" $survey.tileList.path "out" (tpl $survey.out .root) "bundle" $survey.bundle -}}
{{- if hasPrefix "/" $path -}}
{{- $found := false -}}
{{- range $mounted }}{{ $found = or $found (hasPrefix (printf "%s/" .) $path) }}{{ end -}}
{{- if not $found -}}
{{- fail (printf "%s.%s: %s lies on no volume; set persistence.data.enabled (/data), add a volume, or name s3://…" $at $key $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $survey.workers.scaling "keda") (not $survey.workers.keda.serverAddress) -}}
{{- fail (printf "%s.workers.keda.serverAddress: missing; KEDA asks Prometheus there, e.g. http://prometheus.monitoring:9090." $at) -}}
{{- end -}}
{{- end }}

{{/*
The same for what all surveys share. Takes the root context.
*/}}
{{- define "scanner.refuseDask" -}}
{{- $tls := .Values.dask.tls -}}
{{- if and $tls.enabled (not $tls.existingSecret) (not $tls.certManager.enabled) -}}
{{- fail "dask.tls: enabled without certificates; name existingSecret, or set certManager.enabled." -}}
{{- end -}}
{{- if and $tls.certManager.enabled (not $tls.certManager.issuerRef.name) -}}
{{- fail "dask.tls.certManager.issuerRef.name: missing; name an Issuer or ClusterIssuer of cert-manager." -}}
{{- end -}}
{{- if and $tls.certManager.enabled $tls.existingSecret -}}
{{- fail "dask.tls: existingSecret and certManager.enabled exclude each other; cert-manager writes a Secret of its own." -}}
{{- end -}}
{{- end }}
