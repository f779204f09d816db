//! Who may do what: people, API servers towards kubelets, kubelets that renew, health checks.

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;
use serde_json::json;

use crate::render::objects::Made;
use crate::render::objects::ObjectsError;
use crate::secrets::ADMIN_GROUP;
use crate::secrets::HEALTHCHECK_USER;
use crate::secrets::KUBELET_CLIENT_GROUP;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn add(made: &mut Made) -> Result<(), ObjectsError> {
    // A second subject of the binding that Kubernetes brings along, rather than a binding of bastide's own (CIS 5.1.1
    // counts every other one) or a role of bastide's own with the same powers under another name (CIS 5.1.3): whoever
    // asks who is cluster-admin sees it here, and taking the subject away takes the power away. The API server puts a
    // missing system:masters back at its start and leaves further subjects alone. The list has one owner in the eyes of
    // server-side apply, so that it names both.
    made.add::<ClusterRoleBinding>(binding(
        "cluster-admin",
        "cluster-admin",
        &json!([group("system:masters"), group(ADMIN_GROUP)]),
    ))?;
    made.add::<ClusterRoleBinding>(binding(
        "bastide:apiserver-kubelet-client",
        "system:kubelet-api-admin",
        &json!([group(KUBELET_CLIENT_GROUP)]),
    ))?;
    // A kubelet may renew its own client certificate; nothing approves a first one, which comes over SSH.
    made.add::<ClusterRoleBinding>(binding(
        "bastide:kubelet-client-renewal",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &json!([group("system:nodes")]),
    ))?;
    made.add::<ClusterRole>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "bastide:healthcheck"},
        "rules": [{"nonResourceURLs": ["/healthz", "/livez", "/readyz"], "verbs": ["get"]}],
    }))?;
    made.add::<ClusterRoleBinding>(binding(
        "bastide:healthcheck",
        "bastide:healthcheck",
        &json!([{"apiGroup": GROUP, "kind": "User", "name": HEALTHCHECK_USER}]),
    ))
}

fn group(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "Group", "name": name})
}

/// A ClusterRoleBinding.
pub(super) fn binding(name: &str, role: &str, subjects: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

/// A service account as a subject.
pub(super) fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}
