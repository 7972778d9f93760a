{{/*
What every pod of the chart has in common. Each takes the root context, unless said otherwise.
*/}}
{{- define "scanner.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser | int64 }}
runAsGroup: {{ .Values.podSecurity.runAsGroup | int64 }}
fsGroup: {{ .Values.podSecurity.fsGroup | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "scanner.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
imagePullSecrets of a pod; nothing where there are none.
*/}}
{{- define "scanner.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
Environment of a container that reaches object stores (s3://…); nothing where all is left to the machine.
*/}}
{{- define "scanner.objectStorageEnv" -}}
{{- $storage := .Values.objectStorage -}}
{{- $env := list -}}
{{- with $storage.endpoint -}}
{{- $env = append $env (dict "name" "AWS_ENDPOINT_URL" "value" .) -}}
{{- end -}}
{{- with $storage.region -}}
{{- $env = append $env (dict "name" "AWS_REGION" "value" .) -}}
{{- end -}}
{{- with $storage.existingSecret -}}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" -}}
{{- $reference := dict "name" $storage.existingSecret "key" $key -}}
{{- $env = append $env (dict "name" $key "valueFrom" (dict "secretKeyRef" $reference)) -}}
{{- end -}}
{{- end -}}
{{- if $storage.certificateAuthority.existingConfigMap -}}
{{- $env = append $env (dict "name" "SSL_CERT_FILE" "value" (printf "/etc/scanner/storage-ca/%s" $storage.certificateAuthority.key)) -}}
{{- end -}}
{{- with $env -}}
{{- toYaml . -}}
{{- end -}}
{{- end }}

{{/*
Volumes and mounts that every container may write to, or needs for its object store: /tmp, /data where there is a data volume.
*/}}
{{- define "scanner.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.persistence.tmp.sizeLimit | quote }}
{{- if .Values.persistence.data.enabled }}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "scanner.dataClaimName" . | quote }}
{{- end }}
{{- with .Values.objectStorage.certificateAuthority.existingConfigMap }}
- name: storage-ca
  configMap:
    name: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "scanner.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.persistence.data.enabled }}
- name: data
  mountPath: /data
  {{- with .Values.persistence.data.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- if .Values.objectStorage.certificateAuthority.existingConfigMap }}
- name: storage-ca
  mountPath: /etc/scanner/storage-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "scanner.dataClaimName" -}}
{{- .Values.persistence.data.existingClaim | default (include "scanner.objectName" (dict "root" . "parts" (list "data"))) -}}
{{- end }}

{{/*
/scratch of one pod: fetched, decompressed and resampled mosaics. It goes with the pod.
*/}}
{{- define "scanner.scratchVolume" -}}
{{- $scratch := .Values.persistence.scratch -}}
- name: scratch
{{- if eq $scratch.kind "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $scratch.storageClassName }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ $scratch.size | quote }}
{{- else }}
  emptyDir:
    sizeLimit: {{ $scratch.size | quote }}
{{- end }}
{{- end }}
