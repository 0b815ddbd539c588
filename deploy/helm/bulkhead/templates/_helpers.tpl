{{/* Names. */}}
{{- define "bulkhead.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "bulkhead.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bulkhead.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "bulkhead.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: firewall
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "bulkhead.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "bulkhead.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "bulkhead.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The object that has the configuration: the chart's or one that exists. */}}
{{- define "bulkhead.configurationName" -}}
{{- default (include "bulkhead.fullname" .) .Values.configuration.existing -}}
{{- end -}}

{{/* Whether the configuration is in a ConfigMap. */}}
{{- define "bulkhead.usesConfigMap" -}}
{{- if ne .Values.configuration.source "firewall" }}yes{{ end -}}
{{- end -}}

{{/* Whether the pod talks to the API at all. */}}
{{- define "bulkhead.usesApi" -}}
{{- if or (ne .Values.configuration.source "mounted") .Values.rbac.status .Values.rbac.events .Values.rbac.podGroups .Values.rbac.addressGroupNamespaces .Values.multiNetworkPolicies }}yes{{ end -}}
{{- end -}}

{{/* Whether the number of replicas is not ours to say. */}}
{{- define "bulkhead.autoscaled" -}}
{{- if and (eq .Values.mode "ingress") .Values.autoscaling.enabled }}yes{{ end -}}
{{- end -}}

{{- define "bulkhead.replicas" -}}
{{- if eq .Values.mode "ingress" }}{{ .Values.replicas }}{{ else }}1{{ end -}}
{{- end -}}

{{/* The attachments, as Multus reads them from the pod: [{"name", "namespace", "interface", "ips", "mac"}]. */}}
{{- define "bulkhead.attachments" -}}
{{- $list := list -}}
{{- range .Values.networks -}}
{{- $item := dict "interface" .interface -}}
{{- if .create -}}
{{- $_ := set $item "name" (printf "%s-%s" (include "bulkhead.fullname" $) .interface) -}}
{{- $_ := set $item "namespace" $.Release.Namespace -}}
{{- else -}}
{{- $parts := splitList "/" .attachment -}}
{{- $_ := set $item "name" (last $parts) -}}
{{- $_ := set $item "namespace" (ternary (first $parts) $.Release.Namespace (gt (len $parts) 1)) -}}
{{- end -}}
{{- with .ips }}{{ $_ := set $item "ips" . }}{{ end -}}
{{- with .mac }}{{ $_ := set $item "mac" . }}{{ end -}}
{{- $list = append $list $item -}}
{{- end -}}
{{- toJson $list -}}
{{- end -}}

{{/* What the schema cannot say. */}}
{{- define "bulkhead.checks" -}}
{{- $names := list -}}
{{- range .Values.networks -}}
{{- if has .interface $names -}}
{{- fail (printf "networks: the interface %s is named twice" .interface) -}}
{{- end -}}
{{- $names = append $names .interface -}}
{{- end -}}
{{- if and .Values.configuration.existing .Values.configuration.spec -}}
{{- fail "configuration: give `spec` or `existing`, not both" -}}
{{- end -}}
{{- if not (or .Values.configuration.existing .Values.configuration.spec) -}}
{{- fail "configuration: give `spec`, which the firewall enforces, or `existing`, the name of an object that has it" -}}
{{- end -}}
{{- $guarded := list -}}
{{- range .Values.configuration.spec.interfaces -}}
{{- if not (has .name $names) -}}
{{- fail (printf "configuration.spec.interfaces: %s is no interface of `networks` (%s)" .name (join ", " $names)) -}}
{{- end -}}
{{- $guarded = append $guarded .name -}}
{{- end -}}
{{- if .Values.configuration.spec -}}
{{- range $names -}}
{{- if not (has . $guarded) -}}
{{- fail (printf "networks: %s is no interface of configuration.spec.interfaces (%s), and the firewall refuses a document that does not name all of its networks" . (join ", " $guarded)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or (include "bulkhead.autoscaled" .) (gt (int (include "bulkhead.replicas" .)) 1) -}}
{{- range .Values.networks -}}
{{- if or .ips .mac -}}
{{- fail (printf "networks: %s has `ips` or `mac`, and every replica would have the same; leave them to the IPAM plug-in of the network" .interface) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.rbac.create -}}
{{- range (.Values.configuration.spec).addresses -}}
{{- if and .pods (not $.Values.rbac.podGroups) (not $.Values.multiNetworkPolicies) -}}
{{- fail (printf "configuration.spec.addresses: %s has `pods`, and nobody may ask for them; set rbac.podGroups" .name) -}}
{{- end -}}
{{- if and .pods $.Values.rbac.podGroups $.Values.rbac.podGroupNamespaces (not $.Values.multiNetworkPolicies) -}}
{{- $namespaces := .pods.namespaces | default list -}}
{{- if kindIs "string" $namespaces }}{{ $namespaces = list $namespaces }}{{ end -}}
{{- if not $namespaces -}}
{{- fail (printf "configuration.spec.addresses: %s follows pods of the whole cluster, and nobody may ask for them; name its `namespaces`, or leave rbac.podGroupNamespaces empty" .name) -}}
{{- end -}}
{{- $name := .name -}}
{{- range $namespaces -}}
{{- if not (has . $.Values.rbac.podGroupNamespaces) -}}
{{- fail (printf "configuration.spec.addresses: %s follows pods of %s, and nobody may ask for them; add it to rbac.podGroupNamespaces" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .addressGroup -}}
{{- $namespace := first (splitList "/" .) -}}
{{- if not (has $namespace $.Values.rbac.addressGroupNamespaces) -}}
{{- fail (printf "configuration.spec.addresses: nobody may ask for the object AddressGroup %s; add %s to rbac.addressGroupNamespaces" . $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.multiNetworkPolicies (.Values.configuration.spec).wires -}}
{{- fail "multiNetworkPolicies: configuration.spec has `wires`, which the firewall refuses to guard by them; switch it off, or route" -}}
{{- end -}}
{{- if and .Values.rbac.podGroupNamespaces (not .Values.rbac.podGroups) -}}
{{- fail "rbac.podGroupNamespaces does nothing without rbac.podGroups" -}}
{{- end -}}
{{- $drain := .Values.launch.drain -}}
{{- $seconds := 0 -}}
{{- if regexMatch "^[0-9]+m$" $drain }}{{ $seconds = mul 60 (int (trimSuffix "m" $drain)) }}{{ end -}}
{{- if regexMatch "^[0-9]+s$" $drain }}{{ $seconds = int (trimSuffix "s" $drain) }}{{ end -}}
{{- if and (gt (int $seconds) 0) (ge (int $seconds) (int .Values.terminationGracePeriodSeconds)) -}}
{{- fail (printf "launch.drain: after %s nothing is left of terminationGracePeriodSeconds: %d, and the pod is killed" $drain (int .Values.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling: minReplicas %d is more than maxReplicas %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.state.persistence.enabled (eq .Values.mode "ingress") -}}
{{- fail "state.persistence: replicas cannot share revisions; leave it off in the mode `ingress`" -}}
{{- end -}}
{{- if and (eq .Values.mode "ingress") .Values.autoscaling.enabled (not (or .Values.autoscaling.sessions (ne (toString .Values.autoscaling.throughputBytesPerSecond) "0"))) -}}
{{- fail "autoscaling: give `sessions` or `throughputBytesPerSecond` a target, or switch it off" -}}
{{- end -}}
{{- end -}}
