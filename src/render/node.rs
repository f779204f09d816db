//! What bastide owns of a Node object: its name, labels and taints by role, as RKE has them, and the file's own.

use std::collections::BTreeMap;

use crate::config::Node;
use crate::model::HostName;
use crate::model::Role;
use crate::model::Taint;

/// RKE's role labels, and kubeadm's for control planes, which tools look for.
pub(super) fn labels(node: &Node) -> BTreeMap<String, String> {
    let mut labels = node.labels.clone();
    for role in [Role::ControlPlane, Role::Etcd, Role::Worker] {
        if node.roles.has(role) {
            labels.insert(format!("node-role.kubernetes.io/{}", role.as_str()), "true".to_owned());
        }
    }
    if node.roles.control_plane() {
        labels.insert("node-role.kubernetes.io/control-plane".to_owned(), String::new());
    }
    labels
}

/// RKE's role taints for hosts that take no workloads, then the file's.
pub(super) fn taints(node: &Node) -> Vec<Taint> {
    let taint = |role: Role, effect: &str| Taint {
        key: format!("node-role.kubernetes.io/{}", role.as_str()),
        value: "true".to_owned(),
        effect: effect.to_owned(),
    };
    let mut taints = Vec::new();
    if !node.roles.worker() {
        if node.roles.control_plane() {
            taints.push(taint(Role::ControlPlane, "NoSchedule"));
        }
        if node.roles.etcd() {
            taints.push(taint(Role::Etcd, "NoExecute"));
        }
    }
    for own in &node.taints {
        if !taints.iter().any(|taint| taint.key == own.key && taint.effect == own.effect) {
            taints.push(own.clone());
        }
    }
    taints
}

/// Whether the kubelet finds the node's name by itself. (It takes the system's, in lower case.)
pub(super) fn is_named_alike(node: &HostName, own: &str) -> bool {
    own.eq_ignore_ascii_case(node.as_str())
}
