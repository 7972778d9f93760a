{{/*
Spec of a pod of the catalogue service.
*/}}
{{- define "scanner.servicePodSpec" -}}
{{- $service := .Values.service -}}
serviceAccountName: {{ include "scanner.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "scanner.imagePullSecrets" . }}
{{ . }}
{{- end }}
securityContext:
  {{- include "scanner.podSecurityContext" . | nindent 2 }}
{{- with $service.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
terminationGracePeriodSeconds: 30
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "scanner.selectorLabels" (dict "root" . "component" "service") | nindent 8 }}
{{- with $service.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $service.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $service.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: service
    image: {{ include "scanner.image" (dict "root" . "component" "api") }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      - serve
      {{- range $service.folders }}
      - {{ tpl . $ | quote }}
      {{- end }}
      - --config=/etc/scanner/service/service.toml
      - {{ printf "--host=%s" $service.listen | quote }}
      - --port=8420
      {{- with include "scanner.serviceBaseUrl" . }}
      - --base-url={{ . }}
      {{- end }}
      {{- if $service.tokens.existingSecret }}
      - --tokens=/etc/scanner/tokens/{{ $service.tokens.key }}
      {{- end }}
      {{- if $service.public }}
      - --public
      {{- end }}
      {{- if $service.grades.enabled }}
      - --grades=/grades/grades.sqlite
      {{- end }}
      # A survey that is not scanned yet is shown once it is.
      - --wait
      - --cache=/cache
      - --log-format=json
    env:
      # Results of TAP's jobs, which may be large, lie beside what was fetched.
      - name: TMPDIR
        value: /cache
      {{- include "scanner.objectStorageEnv" . | nindent 6 }}
    ports:
      - name: http
        containerPort: 8420
    # Alive from the first second on, ready when every catalogue is open.
    startupProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 15
      timeoutSeconds: 5
      failureThreshold: 4
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 3
    lifecycle:
      preStop:
        # Until every proxy has learnt that this pod goes, requests still come.
        exec: {command: [sleep, "5"]}
    resources:
      {{- toYaml $service.resources | nindent 6 }}
    securityContext:
      {{- include "scanner.containerSecurityContext" . | nindent 6 }}
    volumeMounts:
      - name: config
        mountPath: /etc/scanner/service
        readOnly: true
      - name: cache
        mountPath: /cache
      {{- if $service.tokens.existingSecret }}
      - name: tokens
        mountPath: /etc/scanner/tokens
        readOnly: true
      {{- end }}
      {{- if $service.grades.enabled }}
      - name: grades
        mountPath: /grades
      {{- end }}
      {{- range include "scanner.volumeMounts" . | fromYamlArray }}
      - {{ ternary (merge (dict "readOnly" true) .) . (eq .name "data") | toYaml | nindent 8 | trim }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "scanner.serviceName" . }}
  - name: cache
    emptyDir:
      sizeLimit: {{ $service.cache.size | quote }}
  {{- with $service.tokens.existingSecret }}
  # A folder, not a single file: a token that is taken back is of no use as soon as the Secret has changed.
  - name: tokens
    secret:
      secretName: {{ . | quote }}
      defaultMode: 0440
  {{- end }}
  {{- if $service.grades.enabled }}
  - name: grades
    persistentVolumeClaim:
      claimName: {{ include "scanner.gradesClaimName" . | quote }}
  {{- end }}
  {{- include "scanner.volumes" . | nindent 2 }}
{{- end }}

{{- define "scanner.gradesClaimName" -}}
{{- .Values.service.grades.existingClaim | default (include "scanner.objectName" (dict "root" . "parts" (list "grades"))) -}}
{{- end }}
