{{/* The name of everything, also of the manager's service; the longest behind it is `-taskmanager`, with a pod's number and hash. */}}
{{- define "standpipe.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 30 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end }}

{{/* What pods are found by, and what never changes of a release; of a component with (dict "root" $ "component" NAME). */}}
{{- define "standpipe.selector" -}}
app.kubernetes.io/name: standpipe
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Metadata of an object, as those of a component: (dict "root" $ "component" NAME "name" NAME "annotations" MAP). The namespace is the one that it is applied to. */}}
{{- define "standpipe.metadata" -}}
name: {{ .name }}
labels:
  {{- $version := dict "app.kubernetes.io/version" .root.Chart.AppVersion }}
  {{- merge (include "standpipe.selector" . | fromYaml) $version .root.Values.labels | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "standpipe.tokenSecret" -}}
{{- .Values.token.existingSecret | default (printf "%s-token" (include "standpipe.fullname" .)) -}}
{{- end }}

{{- define "standpipe.serviceAccount" -}}
{{- $own := ternary (include "standpipe.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $own -}}
{{- end }}

{{- define "standpipe.probe" -}}
httpGet: {path: {{ .path }}, port: {{ .port }}, scheme: {{ .scheme }}}
periodSeconds: {{ .period }}
timeoutSeconds: 5
failureThreshold: {{ .failures }}
{{- end }}
