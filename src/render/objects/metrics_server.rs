//! metrics-server: `kubectl top` and the horizontal autoscaler.
//!
//! Both its connections are verified. It is served with a leaf of bastide's, which the aggregator checks against the
//! cluster's authority (upstream's manifest skips that check); it checks kubelets against the same authority, which every
//! namespace has in `kube-root-ca.crt` (upstream's documents tell people to skip that one). It takes up a renewed leaf by
//! itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::Value;
use serde_json::json;

use crate::config::Cluster;
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
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "metrics-server";

pub(super) fn add(
    made: &mut Made,
    cluster: &Cluster,
    secrets: &Secrets,
    release: &Release,
) -> Result<(), ObjectsError> {
    let Some(replicas) = cluster.metrics_server_replicas else { return Ok(()) };
    let image = image(release, NAME)?;
    let leaf = LeafId { name: LeafName::MetricsServer, host: None };
    let missing = || ObjectsError::MissingLeaf(leaf.describe());
    let pair = secrets.leaves.get(&leaf).ok_or_else(missing)?;
    let authority = secrets.authorities.get(&AuthorityName::Kubernetes).ok_or_else(missing)?;
    access(made)?;
    made.add::<Secret>(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "metrics-server-tls", "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": STANDARD.encode(&pair.certificate), "tls.key": STANDARD.encode(pair.key.expose())},
    }))?;
    made.add::<Service>(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": NAME}},
        "spec": {
            "selector": {"k8s-app": NAME},
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 10250}],
        },
    }))?;
    made.add::<PodDisruptionBudget>(json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {"k8s-app": NAME}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }))?;
    let startup = startup_probe(cluster, &json!({"path": "/livez", "port": "https", "scheme": "HTTPS"}));
    made.add::<Deployment>(deployment(image.as_str(), replicas, &startup))?;
    made.add::<APIService>(json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": NAME}},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": NAMESPACE, "name": NAME, "port": 443},
            "caBundle": STANDARD.encode(authority.trust_bundle()),
        },
    }))
}

/// Its account and what that may do.
fn access(made: &mut Made) -> Result<(), ObjectsError> {
    let subjects = json!([rbac::account(NAMESPACE, NAME)]);
    made.add::<ServiceAccount>(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "automountServiceAccountToken": false,
    }))?;
    made.add::<ClusterRole>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "bastide:metrics-server"},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
        ],
    }))?;
    made.add::<ClusterRole>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "bastide:metrics-reader", "labels": {
            "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            "rbac.authorization.k8s.io/aggregate-to-edit": "true",
            "rbac.authorization.k8s.io/aggregate-to-view": "true",
        }},
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    }))?;
    made.add::<ClusterRoleBinding>(rbac::binding("bastide:metrics-server", "bastide:metrics-server", &subjects))?;
    // It asks the API server who calls it and whether they may.
    made.add::<ClusterRoleBinding>(rbac::binding(
        "bastide:metrics-server-delegator",
        "system:auth-delegator",
        &subjects,
    ))?;
    made.add::<RoleBinding>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "bastide:metrics-server-auth-reader", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": rbac::GROUP, "kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": subjects,
    }))
}

fn deployment(image: &str, replicas: u32, startup: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": NAME}},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
            "selector": {"matchLabels": {"k8s-app": NAME}},
            "template": {
                "metadata": {"labels": {"k8s-app": NAME}},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": false,
                    "nodeSelector": node_selector(&std::collections::BTreeMap::new()),
                    "tolerations": tolerations(),
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"k8s-app": NAME}},
                    }],
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": NAME,
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": [
                            "--secure-port=10250",
                            "--cert-dir=/tmp",
                            "--tls-cert-file=/etc/metrics-server/tls/tls.crt",
                            "--tls-private-key-file=/etc/metrics-server/tls/tls.key",
                            "--tls-min-version=VersionTLS12",
                            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
                            "--kubelet-use-node-status-port",
                            "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
                            "--metric-resolution=15s",
                        ],
                        "ports": [{"name": "https", "containerPort": 10250, "protocol": "TCP"}],
                        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"memory": "512Mi"}},
                        "startupProbe": startup,
                        "livenessProbe": {
                            "httpGet": {"path": "/livez", "port": "https", "scheme": "HTTPS"},
                            "periodSeconds": 10,
                            "timeoutSeconds": 5,
                            "failureThreshold": 3,
                        },
                        "readinessProbe": {
                            "httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"},
                            "periodSeconds": 3,
                            "failureThreshold": 20,
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                        "volumeMounts": [
                            {"name": "scratch", "mountPath": "/tmp"},
                            {"name": "tls", "mountPath": "/etc/metrics-server/tls", "readOnly": true},
                            token_mount(),
                        ],
                    }],
                    "volumes": [
                        {"name": "scratch", "emptyDir": {}},
                        {"name": "tls", "secret": {"secretName": "metrics-server-tls", "defaultMode": 0o440}},
                        token_volume(),
                    ],
                },
            },
        },
    })
}
