{{/*
Spec of the Job that does one scan: include "scanner.scanJobSpec" (dict "root" $ "survey" "q1" "component" "scan").
*/}}
{{- define "scanner.scanJobSpec" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
backoffLimit: {{ $survey.backoffLimit | int }}
# Two drivers never meet at one run folder: a failed pod is gone before the next begins.
podReplacementPolicy: Failed
activeDeadlineSeconds: {{ $survey.deadlineSeconds | int }}
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
      {{- include "scanner.labels" . | nindent 6 }}
      {{- with .root.Values.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    annotations:
      checksum/config: {{ include "scanner.scanConfigData" . | sha256sum }}
  spec:
    {{- include "scanner.scanPodSpec" . | nindent 4 }}
{{- end }}

{{- define "scanner.scanPodSpec" -}}
{{- $survey := include "scanner.survey" . | fromJson -}}
restartPolicy: Never
serviceAccountName: {{ include "scanner.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "scanner.imagePullSecrets" .root }}
{{- . | nindent 0 }}
{{- end }}
securityContext:
  {{- include "scanner.podSecurityContext" .root | nindent 2 }}
terminationGracePeriodSeconds: 120
containers:
  - name: scan
    image: {{ include "scanner.image" (dict "root" .root "component" "scan" "variant" "cpu") }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      - run
      - {{ include "scanner.tileList" $survey | quote }}
      - --out={{ tpl $survey.out .root }}
      - --config=/etc/scanner/survey/scanner.toml
      - --listen={{ include "scanner.daskProtocol" .root }}://0.0.0.0:8786
      {{- include "scanner.daskTlsArgs" .root | nindent 6 }}
      - --metrics-port=9464
      - --log-format=json
    {{- with include "scanner.objectStorageEnv" .root }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    ports:
      - name: dask
        containerPort: 8786
      - name: metrics
        containerPort: 9464
    resources:
      {{- toYaml $survey.resources | nindent 6 }}
    securityContext:
      {{- include "scanner.containerSecurityContext" .root | nindent 6 }}
    volumeMounts:
      - name: survey
        mountPath: /etc/scanner/survey
        readOnly: true
      {{- include "scanner.volumeMounts" .root | nindent 6 }}
      {{- include "scanner.daskTlsVolumeMount" .root | nindent 6 }}
volumes:
  - name: survey
    configMap:
      name: {{ include "scanner.surveyObjectName" . }}
  {{- include "scanner.volumes" .root | nindent 2 }}
  {{- include "scanner.daskTlsVolume" .root | nindent 2 }}
{{- end }}
