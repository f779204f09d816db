//! Cluster DNS.

use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;
use serde_json::json;

use crate::config::Cluster;
use crate::config::Dns;
use crate::model::Release;
use crate::render::objects::Made;
use crate::render::objects::ObjectsError;
use crate::render::objects::image;
use crate::render::objects::node_selector;
use crate::render::objects::rbac;
use crate::render::objects::startup_probe;
use crate::render::objects::token_mount;
use crate::render::objects::token_volume;
use crate::render::objects::tolerations;

const NAMESPACE: &str = "kube-system";

pub(super) fn add(made: &mut Made, cluster: &Cluster, release: &Release) -> Result<(), ObjectsError> {
    let dns = &cluster.dns;
    if !dns.coredns {
        return Ok(());
    }
    let image = image(release, "coredns")?;
    made.add::<ServiceAccount>(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "coredns", "namespace": NAMESPACE},
        "automountServiceAccountToken": false,
    }))?;
    made.add::<ClusterRole>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "bastide:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["namespaces", "pods", "services"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }))?;
    made.add::<ClusterRoleBinding>(rbac::binding(
        "bastide:coredns",
        "bastide:coredns",
        &json!([rbac::account(NAMESPACE, "coredns")]),
    ))?;
    made.add::<ConfigMap>(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": NAMESPACE},
        "data": {"Corefile": corefile(dns)?},
    }))?;
    made.add::<Service>(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": NAMESPACE,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": dns.server,
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
            ],
        },
    }))?;
    // maxUnavailable rather than minAvailable: on a single host the latter would make draining impossible.
    made.add::<PodDisruptionBudget>(json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "coredns", "namespace": NAMESPACE},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }))?;
    let replicas = if cluster.nodes.len() > 1 { 2 } else { 1 };
    let startup = startup_probe(cluster, &json!({"path": "/health", "port": 8080, "scheme": "HTTP"}));
    made.add::<Deployment>(deployment(dns, image.as_str(), replicas, &startup))
}

/// CoreDNS' configuration. `reload` takes up a change by itself, so that no restart is needed.
fn corefile(dns: &Dns) -> Result<String, ObjectsError> {
    let domain = word("dns domain", &dns.domain)?;
    let reverse = words("dns.reversecidrs", &dns.reverse_cidrs)?;
    let upstream = match dns.upstream.as_slice() {
        [] => "/etc/resolv.conf".to_owned(),
        servers => words("dns.upstreamnameservers", servers)?,
    };
    let mut text = format!(
        ".:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {domain} {reverse} {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus :9153
    forward . {upstream} {{
        max_concurrent 1000
    }}
    cache 30
    loop
    reload
    loadbalance
}}
"
    );
    for (zone, servers) in &dns.stub_domains {
        let zone = word("dns.stubdomains", zone)?;
        let servers = words("dns.stubdomains", servers)?;
        // Writing to a String cannot fail.
        let _ = write!(text, "{zone}:53 {{\n    errors\n    cache 30\n    loop\n    forward . {servers}\n}}\n");
    }
    Ok(text)
}

fn words(at: &'static str, values: &[String]) -> Result<String, ObjectsError> {
    let words: Vec<&str> = values.iter().map(|value| word(at, value)).collect::<Result<_, _>>()?;
    Ok(words.join(" "))
}

/// `value`, if it is one word of a Corefile, where neither braces nor quotes can be escaped.
fn word<'a>(at: &'static str, value: &'a str) -> Result<&'a str, ObjectsError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-_[]%".contains(&byte);
    if value.is_empty() || !value.bytes().all(plain) {
        return Err(ObjectsError::Unquotable { at, value: value.to_owned() });
    }
    Ok(value)
}

fn deployment(dns: &Dns, image: &str, replicas: u32, startup: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-dns"}},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "automountServiceAccountToken": false,
                    "nodeSelector": node_selector(&dns.node_selector),
                    "tolerations": tolerations(),
                    // Never two on one host while another could take one; a host that is away or tainted does not count,
                    // lest a replica wait for it for ever.
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "nodeTaintsPolicy": "Honor",
                        "matchLabelKeys": ["pod-template-hash"],
                        "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    }],
                    "dnsPolicy": "Default",
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                        // Port 53 without root and without relying on a capability of the image's file.
                        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
                    },
                    "containers": [{
                        "name": "coredns",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "ports": [
                            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                            {"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
                        ],
                        "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}, "limits": {"memory": "256Mi"}},
                        "startupProbe": startup,
                        "livenessProbe": {
                            "httpGet": {"path": "/health", "port": 8080, "scheme": "HTTP"},
                            "timeoutSeconds": 5,
                            "failureThreshold": 5,
                        },
                        "readinessProbe": {
                            "httpGet": {"path": "/ready", "port": 8181, "scheme": "HTTP"},
                            "periodSeconds": 3,
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            // The capability that upstream's file carries: without it in reach the kernel refuses to run it.
                            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                        "volumeMounts": [
                            {"name": "configuration", "mountPath": "/etc/coredns", "readOnly": true},
                            token_mount(),
                        ],
                    }],
                    "volumes": [
                        {"name": "configuration", "configMap": {
                            "name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}},
                        token_volume(),
                    ],
                },
            },
        },
    })
}
