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
{{- $out := tpl $survey.out .root -}}
{{- if not (regexMatch "^(/|s3://)" $out) -}}
{{- fail (printf "%s.out: is %q; name a run folder, /data/… or s3://…" $at $out) -}}
{{- end -}}
{{- range $other, $_ := omit .root.Values.surveys .survey -}}
{{- $its := include "scanner.survey" (dict "root" $.root "survey" $other) | fromJson -}}
{{- if eq (tpl $its.out $.root | trimSuffix "/") ($out | trimSuffix "/") -}}
{{- fail (printf "%s.out: %s is the run folder of %s too, and has room for one; name another." $at $out $other) -}}
{{- end -}}
{{- end -}}
{{- $mounted := list -}}
{{- if .root.Values.persistence.data.enabled }}{{ $mounted = append $mounted "/data" }}{{ end -}}
{{- range $survey.volumeMounts }}{{ $mounted = append $mounted .mountPath }}{{ end -}}
{{- range $key, $path := dict "tileList.path" $survey.tileList.path "out" $out "bundle" $survey.bundle -}}
{{- if hasPrefix "/" $path -}}
{{- $found := false -}}
{{- range $mounted }}{{ $found = or $found (hasPrefix (printf "%s/" .) $path) }}{{ end -}}
{{- if not $found -}}
{{- $cure := "set persistence.data.enabled (/data), add a volume, or name s3://…" -}}
{{- fail (printf "%s.%s: %s lies on no volume; %s" $at $key $path $cure) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $workers := $survey.workers -}}
{{- $provider := dig "scoring" "provider" "auto" $survey.config -}}
{{- if and (has $provider (list "cuda" "tensorrt")) (not $workers.gpu) -}}
{{- fail (printf "%s.config.scoring.provider: %s needs GPUs, and no worker has one; set workers.gpu." $at $provider) -}}
{{- end -}}
{{- if and (has $provider (list "cpu" "openvino" "openvino-bfloat16")) $workers.gpu -}}
{{- fail (printf "%s.workers.gpu: GPUs would be idle, as config.scoring.provider is %s; leave one of them out." $at $provider) -}}
{{- end -}}
{{- if eq $workers.scaling "local" -}}
{{- $limit := $survey.resources.limits.memory -}}
{{- if gt (mulf $workers.replicas $workers.memoryGb) (include "scanner.gigabytes" $limit | float64) -}}
{{- $all := printf "%v workers of %v GB in the driver's pod" $workers.replicas $workers.memoryGb -}}
{{- fail (printf "%s.resources.limits.memory: %v is less than %s take; raise it." $at $limit $all) -}}
{{- end -}}
{{- else -}}
{{- $limit := $workers.resources.limits.memory -}}
{{- if ge (float64 $workers.memoryGb) (include "scanner.gigabytes" $limit | float64) -}}
{{- $cure := "lower it, or raise workers.resources" -}}
{{- fail (printf "%s.workers.memoryGb: %v GB leave no room below the limit of %v; %s." $at $workers.memoryGb $limit $cure) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $workers.scaling "keda") (not $workers.keda.serverAddress) -}}
{{- $example := "http://prometheus.monitoring:9090" -}}
{{- fail (printf "%s.workers.keda.serverAddress: missing; KEDA asks Prometheus there, e.g. %s." $at $example) -}}
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
