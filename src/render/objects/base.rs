//! Namespaces and the service accounts that pods get unasked.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::json;

use crate::config::Cluster;
use crate::config::NetworkPlugin;
use crate::render::objects::Made;
use crate::render::objects::ObjectsError;
use crate::render::objects::flannel;

/// Kubernetes' own namespaces.
const BUILT_IN: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(super) fn add(made: &mut Made, cluster: &Cluster) -> Result<(), ObjectsError> {
    let mut namespaces = BUILT_IN.to_vec();
    if matches!(cluster.network.plugin, NetworkPlugin::Flannel { .. }) {
        // flannel needs the host's network, which Pod Security's baseline forbids; kube-system is exempt, this one is not.
        made.add::<Namespace>(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": flannel::NAMESPACE, "labels": {
                "pod-security.kubernetes.io/enforce": "privileged",
                "pod-security.kubernetes.io/audit": "privileged",
                "pod-security.kubernetes.io/warn": "privileged",
            }},
        }))?;
        namespaces.push(flannel::NAMESPACE);
    }
    // CIS 5.1.5: what runs under no account of its own gets no token.
    for namespace in namespaces {
        made.add::<ServiceAccount>(json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
            "automountServiceAccountToken": false,
        }))?;
    }
    Ok(())
}
