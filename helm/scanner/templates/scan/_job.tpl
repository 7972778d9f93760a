{{/*
Spec of the Job that does one scan: include "scanner.scanJobSpec" (dict "root" $ "survey" "q1" "component" "scan"), as all
partials of this file.
*/}}
{{- define "scanner.scanJobSpec" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
backoffLimit: {{ $survey.backoffLimit | int }}
# Two drivers never meet at one run folder: a failed pod is gone before the next begins.
podReplacementPolicy: Failed
activeDeadlineSeconds: {{ $survey.deadlineSeconds | int }}
ttlSecondsAfterFinished: {{ $survey.ttlSecondsAfterFinished | int }}
podFailurePolicy:
  rules:
    # A node that is drained or taken back is nobody's fault: the next pod goes on where this one was.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    # What another try would not mend: 3 tiles failed (each was tried engine.attempts times), 64 settings, 65 tile list,
    # 66 input missing, 73 output not writable, 78 damaged content or other settings than the run began with.
    - action: FailJob
      onExitCodes:
        containerName: scan
        operator: In
        values: [3, 64, 65, 66, 73, 78]
template:
  metadata:
    labels:
      {{- include "scanner.podLabels" . | nindent 6 }}
    annotations:
      checksum/config: {{ include "scanner.scanConfigData" . | sha256sum }}
      {{- include "scanner.keepOnNode" . | nindent 6 }}
  spec:
    {{- include "scanner.scanPodSpec" . | nindent 4 }}
{{- end }}

{{- define "scanner.scanPodSpec" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
{{- $gpu := and $survey.workers.gpu (eq $survey.workers.scaling "local") -}}
{{- $gpuResource := $gpu | ternary $survey.workers.gpuResource "" -}}
restartPolicy: Never
serviceAccountName: {{ include "scanner.scanServiceAccountName" . | quote }}
# The token lets the driver set the number of its workers, and nothing else.
automountServiceAccountToken: {{ eq $survey.workers.scaling "driver" }}
enableServiceLinks: false
{{- with include "scanner.imagePullSecrets" .root }}
{{ . }}
{{- end }}
{{- with $survey.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- include "scanner.podSecurityContext" .root | nindent 2 }}
terminationGracePeriodSeconds: 120
containers:
  - name: scan
    image: {{ include "scanner.image" (dict "root" .root "component" "scan" "variant" (ternary "gpu" "cpu" $gpu)) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- include "scanner.scanArgs" . | nindent 6 }}
    {{- with include "scanner.objectStorageEnv" .root }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    ports:
      {{- if include "scanner.listens" . }}
      - name: dask
        containerPort: 8786
      {{- end }}
      - name: metrics
        containerPort: 9464
    {{- include "scanner.metricsProbes" . | nindent 4 }}
    resources:
      {{- include "scanner.resources" (dict "resources" $survey.resources "gpu" $gpuResource) | nindent 6 }}
    securityContext:
      {{- include "scanner.containerSecurityContext" .root | nindent 6 }}
    volumeMounts:
      - name: survey
        mountPath: /etc/scanner/survey
        readOnly: true
      {{- include "scanner.surveyVolumeMounts" . | nindent 6 }}
volumes:
  - name: survey
    configMap:
      name: {{ include "scanner.surveyObjectName" . }}
  {{- include "scanner.surveyVolumes" . | nindent 2 }}
{{- with $survey.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $survey.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $survey.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
