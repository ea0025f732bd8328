{{/* Name of the Deployment and of everything else: `redfleet-operator` for a release called redfleet. */}}
{{- define "redfleet.fullname" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "redfleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.name -}}
{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create -}}
{{ include "redfleet.fullname" . }}
{{- else -}}
{{- /* No default: the namespace's own ServiceAccount would hand the operator's rights to every pod of it. */ -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false: it gets the rights of the operator" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the operator's pods. The name is fixed: the network policies of sets refer to it. */}}
{{- define "redfleet.selectorLabels" -}}
app.kubernetes.io/name: redfleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "redfleet.labels" -}}
{{ include "redfleet.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
