{{/*
The pod of a component, as the mode kubernetes-application makes its own (plugins/deployments/kubernetes/src/pods.rs): (dict "root" $ "component" NAME "values" VALUES "args" LIST
"port" (dict "name" NAME "number" N "scheme" SCHEME) "secrets" LIST "annotations" MAP). Its container has the component's name.
*/}}
{{- define "standpipe.pod" -}}
{{- $values := .root.Values -}}
{{- $own := .values -}}
metadata:
  labels:
    {{- merge (include "standpipe.selector" . | fromYaml) $own.labels $values.labels | toYaml | nindent 4 }}
  {{- with merge (dict) $own.annotations $values.annotations .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "standpipe.serviceAccount" .root }}
  automountServiceAccountToken: false
  # Variables of the namespace's services are nothing that jobs should see.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $own.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    {{- with $values.user }}
    runAsUser: {{ . }}
    runAsGroup: {{ . }}
    fsGroup: {{ . }}
    {{- end }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" }}
  {{- with index $own $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: "{{ $values.image.repository }}:{{ $values.image.tag | default .root.Chart.AppVersion }}"
      {{- with $values.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      command: [standpipe]
      args:
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
      env:
        - {name: HOME, value: /var/lib/standpipe}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        {{- with concat $values.env $own.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with concat $values.envFrom $own.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: {{ .port.name }}, containerPort: {{ .port.number }}}
      startupProbe:
        {{- include "standpipe.probe" (dict "path" "/healthz" "port" .port.name "scheme" .port.scheme "period" 2 "failures" 90) | nindent 8 }}
      readinessProbe:
        {{- include "standpipe.probe" (dict "path" "/readyz" "port" .port.name "scheme" .port.scheme "period" 5 "failures" 3) | nindent 8 }}
      livenessProbe:
        {{- include "standpipe.probe" (dict "path" "/healthz" "port" .port.name "scheme" .port.scheme "period" 10 "failures" 6) | nindent 8 }}
      {{- with $own.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: data, mountPath: /var/lib/standpipe}
        - {name: tmp, mountPath: /tmp}
        - {name: secret, mountPath: /etc/standpipe/secret, readOnly: true}
        {{- with concat $values.volumeMounts $own.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if not $own.persistence.enabled }}
    - {name: data, emptyDir: {}}
    {{- end }}
    - {name: tmp, emptyDir: {}}
    - name: secret
      projected:
        # Readable by the pod's group: 0440.
        defaultMode: 288
        sources:
          {{- toYaml .secrets | nindent 10 }}
    {{- with concat $values.volumes $own.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The claim of each pod of a component for what it keeps, if it has one. */}}
{{- define "standpipe.claims" -}}
{{- with .persistence -}}
{{- if .enabled -}}
volumeClaimTemplates:
  - metadata:
      name: data
      {{- with .annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      accessModes:
        {{- toYaml .accessModes | nindent 8 }}
      {{- with .storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources: {requests: {storage: {{ .size }}}}
{{- end -}}
{{- end -}}
{{- end }}
