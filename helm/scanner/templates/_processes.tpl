{{/*
What the processes of a scan have in common, on one node or many.
*/}}

{{/*
Annotations by which autoscalers know that a pod is not to be moved: a driver or scheduler that goes takes the tiles in hand along.
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
