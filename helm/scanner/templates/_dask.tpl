{{/*
How Dask's processes speak to one another.
*/}}
{{- define "scanner.daskProtocol" -}}
{{- .Values.dask.tls.enabled | ternary "tls" "tcp" -}}
{{- end }}

{{- define "scanner.daskTlsSecretName" -}}
{{- .Values.dask.tls.existingSecret | default (include "scanner.objectName" (dict "root" . "parts" (list "dask-tls"))) -}}
{{- end }}

{{- define "scanner.daskTlsArgs" -}}
{{- if .Values.dask.tls.enabled -}}
- --tls-ca=/etc/scanner/tls/ca.crt
- --tls-cert=/etc/scanner/tls/tls.crt
- --tls-key=/etc/scanner/tls/tls.key
{{- else -}}
# Whoever reaches the port can run code in the pods: the network policies let nobody but these pods.
- --insecure
{{- end }}
{{- end }}

{{- define "scanner.daskTlsVolume" -}}
{{- if .Values.dask.tls.enabled -}}
- name: dask-tls
  secret:
    secretName: {{ include "scanner.daskTlsSecretName" . | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "scanner.daskTlsVolumeMount" -}}
{{- if .Values.dask.tls.enabled -}}
- name: dask-tls
  mountPath: /etc/scanner/tls
  readOnly: true
{{- end }}
{{- end }}
