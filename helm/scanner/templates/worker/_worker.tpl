{{/*
A survey's workers, of the chart's Deployment or of the Dask operator; all partials of this file take
(dict "root" $ "survey" "q1" "component" "worker").
*/}}

{{/*
How many workers a Deployment is rendered with. Where the driver or KEDA sets the number, it stays what it is now: an upgrade in
the middle of a scan must not send workers away. Before the first scan, and without a cluster to ask, it is 0.
*/}}
{{- define "scanner.workerReplicas" -}}
{{- $workers := (include "scanner.survey" . | fromJson).workers -}}
{{- if eq $workers.scaling "fixed" -}}
{{- $workers.replicas | int -}}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace (include "scanner.surveyObjectName" .) -}}
{{- dig "spec" "replicas" 0 $live | int -}}
{{- end -}}
{{- end }}

{{- define "scanner.workerArgs" -}}
{{- $workers := (include "scanner.survey" . | fromJson).workers -}}
- worker
- {{ include "scanner.schedulerAddress" . }}
# Of a DaskCluster, the operator names each worker.
- --name=$({{ eq $workers.scaling "operator" | ternary "DASK_WORKER_NAME" "POD_NAME" }})
{{- if $workers.gpu }}
- --gpu
{{- end }}
- --memory-gb={{ $workers.memoryGb }}
- --scratch=/scratch
- --worker-port=9000
# Between scans there is no driver; its address stays the same.
- --death-timeout=never
- --grace=110s
- --lifetime={{ $workers.lifetime }}
- --lifetime-stagger={{ $workers.lifetimeStagger }}
{{- with include "scanner.daskTlsArgs" .root }}
{{ . }}
{{- end }}
- --metrics-port=9464
- --log-format=json
{{- end }}

{{- define "scanner.workerPodSpec" -}}
{{- $workers := (include "scanner.survey" . | fromJson).workers -}}
{{- $gpuResource := $workers.gpu | ternary $workers.gpuResource "" -}}
serviceAccountName: {{ include "scanner.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "scanner.imagePullSecrets" .root }}
{{ . }}
{{- end }}
{{- with $workers.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $workers.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- include "scanner.podSecurityContext" .root | nindent 2 }}
# A little more than --grace: a worker that is told to stop finishes its tile, or hands it back.
terminationGracePeriodSeconds: 120
containers:
  - name: worker
    image: {{ include "scanner.image" (dict "root" .root "component" "scan" "variant" (ternary "gpu" "cpu" $workers.gpu)) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- include "scanner.workerArgs" . | nindent 6 }}
    env:
      {{- if ne $workers.scaling "operator" }}
      - name: POD_NAME
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      {{- end }}
      {{- with include "scanner.objectStorageEnv" .root }}
      {{- . | nindent 6 }}
      {{- end }}
    ports:
      - name: worker
        containerPort: 9000
      - name: metrics
        containerPort: 9464
    {{- include "scanner.metricsProbes" . | nindent 4 }}
    resources:
      {{- include "scanner.resources" (dict "resources" $workers.resources "gpu" $gpuResource) | nindent 6 }}
    securityContext:
      {{- include "scanner.containerSecurityContext" .root | nindent 6 }}
    volumeMounts:
      {{- include "scanner.surveyVolumeMounts" . | nindent 6 }}
volumes:
  {{- include "scanner.surveyVolumes" . | nindent 2 }}
# Workers of one survey are spread, so that a node that goes takes few of them along.
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "scanner.selectorLabels" . | nindent 8 }}
{{- with $workers.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workers.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workers.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
