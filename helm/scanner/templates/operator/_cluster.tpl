{{/*
DaskClusters of the Dask operator. All partials of this file take (dict "root" $ "survey" "q1"), unless said otherwise.
*/}}

{{/*
Name of a survey's DaskCluster. The operator makes a cluster once and never changes its pods, so these are hashed into the name:
other pods are another cluster, and the next scan goes to that one; where they stay the same, an upgrade leaves the cluster and
its scan alone. At most 37 characters, so that the longest name that the operator makes of it,
<cluster>-default-worker-0123456789, is one that a pod's host can have.
*/}}
{{- define "scanner.operator.clusterName" -}}
{{- $pods := list -}}
{{- range $component := list "scheduler" "worker" -}}
{{- $context := dict "root" $.root "survey" $.survey "component" $component "unnamed" true -}}
{{- $spec := include (eq $component "worker" | ternary "scanner.workerPodSpec" "scanner.operator.schedulerPodSpec") $context -}}
{{- $pods = append $pods (list (include "scanner.podLabels" $context) (include "scanner.kueue.labels" $.root) $spec) -}}
{{- end -}}
{{- $name := printf "%s-%s" (include "scanner.fullname" .root) .survey | trunc 28 | trimSuffix "-" -}}
{{- printf "%s-%s" $name ($pods | toJson | sha256sum | trunc 8) -}}
{{- end }}

{{/*
Address of the cluster's scheduler; the operator names its Service. While the name is being made, the pods do without it: "unnamed".
*/}}
{{- define "scanner.operator.schedulerAddress" -}}
{{- if not .unnamed -}}
{{- printf "%s://%s-scheduler:8786" (include "scanner.daskProtocol" .root) (include "scanner.operator.clusterName" .) -}}
{{- end -}}
{{- end }}

{{/*
A pod spec (YAML) as the operator's schema wants it: quantities are strings, and a list without items is not null.
*/}}
{{- define "scanner.operator.podSpec" -}}
{{- $spec := fromYaml . -}}
{{- range $container := $spec.containers -}}
{{- if not $container.env -}}
{{- $_ := unset $container "env" -}}
{{- end -}}
{{- range $kind, $quantities := $container.resources -}}
{{- range $name, $quantity := $quantities -}}
{{- $_ := set $quantities $name (toString $quantity) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end }}

{{- define "scanner.operator.schedulerPodSpec" -}}
{{- $scheduler := .root.Values.daskOperator.scheduler -}}
serviceAccountName: {{ include "scanner.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "scanner.imagePullSecrets" .root }}
{{ . }}
{{- end }}
{{- with $scheduler.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- include "scanner.podSecurityContext" .root | nindent 2 }}
terminationGracePeriodSeconds: 120
containers:
  - name: scheduler
    image: {{ include "scanner.image" (dict "root" .root "component" "scan" "variant" "cpu") }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      - scheduler
      - --port=8786
      - --http-port=8787
      {{- with include "scanner.daskTlsArgs" .root }}
      {{- . | nindent 6 }}
      {{- end }}
      - --log-format=json
    ports:
      - name: dask
        containerPort: 8786
      - name: http-dashboard
        containerPort: 8787
    readinessProbe:
      httpGet:
        path: /health
        port: http-dashboard
      periodSeconds: 5
    livenessProbe:
      httpGet:
        path: /health
        port: http-dashboard
      periodSeconds: 30
      failureThreshold: 10
    resources:
      {{- toYaml $scheduler.resources | nindent 6 }}
    securityContext:
      {{- include "scanner.containerSecurityContext" .root | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- with include "scanner.daskTlsVolumeMount" .root }}
      {{- . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ .root.Values.persistence.tmp.sizeLimit | quote }}
  {{- with include "scanner.daskTlsVolume" .root }}
  {{- . | nindent 2 }}
  {{- end }}
{{- with $scheduler.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $scheduler.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
