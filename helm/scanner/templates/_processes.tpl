{{/*
Annotations by which autoscalers know that a pod is not to be moved: with a driver or scheduler the tiles in hand go too.
*/}}
{{- define "scanner.keepOnNode" -}}
cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
karpenter.sh/do-not-disrupt: "true"
{{- end }}

{{/*
Probes of whatever serves metrics: it answers within a few seconds, unless it hangs. It is killed after five minutes of silence.
*/}}
{{- define "scanner.metricsProbes" -}}
startupProbe:
  httpGet:
    path: /metrics
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /metrics
    port: metrics
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 10
{{- end }}

{{/*
Resources of a container, one GPU with them where "gpu" names its resource: a GPU is requested as it is limited.
*/}}
{{- define "scanner.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- with .gpu -}}
{{- $resources = mergeOverwrite $resources (dict "requests" (dict . "1") "limits" (dict . "1")) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/*
A quantity of memory in GB, as a number in words: "3Gi" → 3.221225472, 2000000000 → 2. Takes the quantity.
*/}}
{{- define "scanner.gigabytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict
      "" 1e-9 "m" 1e-12 "k" 1e-6 "M" 1e-3 "G" 1.0 "T" 1e3 "P" 1e6
      "Ki" 1.024e-6 "Mi" 1.048576e-3 "Gi" 1.073741824 "Ti" 1099.511627776 "Pi" 1125899.906842624 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf (float64 $number) (index $units (trimPrefix $number .)) -}}
{{- else -}}
{{- mulf . 1e-9 -}}
{{- end -}}
{{- end }}
