{{/*
Name of the chart's objects: the release's, with the chart's where the release's does not say it already. A release may have
dots in its name and begin with a digit; a Service may not.
*/}}
{{- define "scanner.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- $name := contains "scanner" $release | ternary $release (printf "%s-scanner" $release) -}}
{{- $name = .Values.fullnameOverride | default $name -}}
{{- if regexMatch "^[0-9]" $name -}}
{{- fail (printf "%s: Services cannot be named after this release, as it begins with a digit; set fullnameOverride." $name) -}}
{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/*
Name of one object: include "scanner.objectName" (dict "root" $ "parts" (list "q1" "scan")).
At most 52 characters, which is what a CronJob may have. A longer one is cut and ends with a hash of the whole, so that two
long names never become the same one.
*/}}
{{- define "scanner.objectName" -}}
{{- $name := join "-" (prepend .parts (include "scanner.fullname" .root)) -}}
{{- if gt (len $name) 52 -}}
{{- printf "%s-%s" ($name | trunc 43 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/*
ServiceAccount of every pod that does not talk to the Kubernetes API.
*/}}
{{- define "scanner.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "scanner.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/*
Image of a container: include "scanner.image" (dict "root" $ "component" "scan" "variant" "gpu").
A digest wins over a tag. Component "api" has no variants: leave "variant" out.
*/}}
{{- define "scanner.image" -}}
{{- $image := index .root.Values.images .component -}}
{{- if .variant }}{{ $image = index $image .variant }}{{ end -}}
{{- $repository := $image.repository | default .root.Values.image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else if $image.tag -}}
{{- printf "%s:%s" $repository $image.tag -}}
{{- else -}}
{{- $version := .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- printf "%s:%s" $repository (list $version .component .variant | compact | join "-") -}}
{{- end -}}
{{- end }}
