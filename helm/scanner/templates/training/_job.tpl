{{/*
The Jobs that make a bundle: training, export, promotion. All partials of this file take
(dict "root" $ "component" "train" "step" .Values.training "image" "train" "args" "<list of words>" "fail" (list 64 …)
"metrics" true), "step" being what training, export and promote have in common.
*/}}

{{/*
A whole Job. What decides its pods is hashed into its name: other values are another Job, since a Job's template cannot be
changed, and the same values are the same Job, which an upgrade leaves alone. Its labels say nothing of the chart's version, so
that a new chart alone does not train anew.
*/}}
{{- define "scanner.trainingJob" -}}
{{- $spec := include "scanner.trainingJobSpec" . -}}
{{- $queue := include "scanner.kueue.labels" .root -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "scanner.objectName" (dict "root" .root "parts" (list .component (print $spec $queue | sha256sum | trunc 8))) }}
  labels:
    {{- include "scanner.labels" . | nindent 4 }}
    {{- with $queue }}
    {{- /* Kueue itself suspends the Job until it is admitted: `suspend: true` here would stop a running one at each upgrade. */}}
    {{- . | nindent 4 }}
    {{- end }}
spec:
  {{- $spec | nindent 2 }}
{{- end }}

{{- define "scanner.trainingJobSpec" -}}
backoffLimit: {{ .step.backoffLimit | int }}
activeDeadlineSeconds: {{ .step.deadlineSeconds | int }}
# Two pods never write to one folder.
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
    # A node that is drained or taken back is nobody's fault: the next pod goes on from the last checkpoint.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    # What another try would not mend: settings, missing or damaged input; of a promotion also 1, a bundle that is worse.
    # Not 73, a folder that another job holds: the pod of the Job before this one may still be saving its state.
    - action: FailJob
      onExitCodes:
        containerName: {{ .component }}
        operator: In
        values: {{ .fail | toJson }}
template:
  metadata:
    labels:
      {{- include "scanner.podLabels" . | nindent 6 }}
  spec:
    {{- include "scanner.trainingPodSpec" . | nindent 4 }}
{{- end }}

{{- define "scanner.trainingPodSpec" -}}
restartPolicy: Never
serviceAccountName: {{ include "scanner.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "scanner.imagePullSecrets" .root }}
{{ . }}
{{- end }}
{{- with .step.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- include "scanner.podSecurityContext" .root | nindent 2 }}
# On SIGTERM a training saves its state, on the mirror too.
terminationGracePeriodSeconds: 120
{{- with include "scanner.drawContainers" . }}
initContainers:
  {{- . | trim | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "scanner.image" (dict "root" .root "component" .image "variant" (ternary "gpu" "cpu" .step.gpu)) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- .args | nindent 6 }}
      {{- range .step.extraArgs }}
      - {{ . | quote }}
      {{- end }}
    {{- with include "scanner.objectStorageEnv" .root }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    {{- if .metrics }}
    ports:
      - name: metrics
        containerPort: 9464
    {{- include "scanner.metricsProbes" . | nindent 4 }}
    {{- end }}
    resources:
      {{- include "scanner.resources" (dict "resources" .step.resources "gpu" (ternary .step.gpuResource "" .step.gpu)) | nindent 6 }}
    securityContext:
      {{- include "scanner.containerSecurityContext" .root | nindent 6 }}
    volumeMounts:
      {{- include "scanner.volumeMounts" .root | nindent 6 }}
      - name: scratch
        mountPath: /scratch
volumes:
  {{- include "scanner.volumes" .root | nindent 2 }}
  {{- include "scanner.scratchVolume" .root | nindent 2 }}
{{- with .step.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .step.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .step.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Containers that draw sets before the work begins; those that are there are not drawn again.
*/}}
{{- define "scanner.drawContainers" -}}
{{- $ := . -}}
{{- range $i, $words := .step.draw }}
- name: draw-{{ $i }}
  image: {{ include "scanner.image" (dict "root" $.root "component" $.image "variant" (ternary "gpu" "cpu" $.step.gpu)) }}
  imagePullPolicy: {{ $.root.Values.image.pullPolicy }}
  args:
    - simulate
    {{- range $words }}
    - {{ . | quote }}
    {{- end }}
  resources:
    {{- toYaml $.step.resources | nindent 4 }}
  securityContext:
    {{- include "scanner.containerSecurityContext" $.root | nindent 4 }}
  volumeMounts:
    {{- include "scanner.volumeMounts" $.root | nindent 4 }}
    - name: scratch
      mountPath: /scratch
{{- end }}
{{- end }}
