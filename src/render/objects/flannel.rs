//! flannel, the pod network: its DaemonSet in the cluster and its CNI configuration on the hosts.
//!
//! The CNI configuration is a file of the host like any other (mode 0600, CIS 1.1.9), so that the pods need neither an
//! init container nor write access to `/etc/cni/net.d`.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;
use serde_json::json;

use crate::config::Cluster;
use crate::config::NetworkPlugin;
use crate::model::Digest;
use crate::model::Release;
use crate::render::objects::Made;
use crate::render::objects::ObjectsError;
use crate::render::objects::image;
use crate::render::objects::rbac;
use crate::render::objects::token_mount;
use crate::render::objects::token_volume;

pub(super) const NAMESPACE: &str = "kube-flannel";

/// `/etc/cni/net.d/10-flannel.conflist`. The plugin `flannel` reads what flanneld writes to `/run/flannel/subnet.env` and
/// hands it to `bridge`.
pub fn flannel_conflist(cluster: &Cluster) -> String {
    let ipv6 = cluster.network.cluster_cidr.addr().is_ipv6();
    let mut delegate = json!({"hairpinMode": true, "isDefaultGateway": true});
    if ipv6 {
        delegate["ipMasq"] = json!(false);
    }
    let list = json!({
        "name": "cbr0",
        "cniVersion": "1.0.0",
        "plugins": [
            {"type": "flannel", "delegate": delegate},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{list:#}\n")
}

pub(super) fn add(made: &mut Made, cluster: &Cluster, release: &Release) -> Result<(), ObjectsError> {
    let NetworkPlugin::Flannel { interface, backend, vni, port } = &cluster.network.plugin else { return Ok(()) };
    let image = image(release, "flannel")?;
    let backend = match backend.as_str() {
        "vxlan" => json!({"Type": "vxlan", "VNI": vni, "Port": port}),
        other => json!({"Type": other}),
    };
    let range = cluster.network.cluster_cidr;
    let network = if range.addr().is_ipv6() {
        json!({"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": range, "Backend": backend})
    } else {
        json!({"Network": range, "Backend": backend})
    };
    let network = format!("{network:#}\n");
    made.add::<ServiceAccount>(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "flannel", "namespace": NAMESPACE},
        "automountServiceAccountToken": false,
    }))?;
    made.add::<ClusterRole>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "bastide:flannel"},
        "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        ],
    }))?;
    made.add::<ClusterRoleBinding>(rbac::binding(
        "bastide:flannel",
        "bastide:flannel",
        &json!([rbac::account(NAMESPACE, "flannel")]),
    ))?;
    let digest = Digest::of(network.as_bytes());
    made.add::<ConfigMap>(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-flannel-cfg", "namespace": NAMESPACE, "labels": {"app": "flannel"}},
        "data": {"net-conf.json": network},
    }))?;
    // By default the address under which Kubernetes knows the node: on a host with several networks the one with the
    // default route may be another.
    let interface = interface.as_deref().unwrap_or("$(NODE_ADDRESS)");
    made.add::<DaemonSet>(daemon_set(image.as_str(), interface, &digest))
}

fn daemon_set(image: &str, interface: &str, configuration: &Digest) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-flannel-ds", "namespace": NAMESPACE, "labels": {"app": "flannel"}},
        "spec": {
            "selector": {"matchLabels": {"app": "flannel"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {
                    "labels": {"app": "flannel"},
                    // flanneld reads its configuration once, at its start.
                    "annotations": {"bastide.dev/configuration": configuration.to_string()},
                },
                "spec": {
                    "hostNetwork": true,
                    "priorityClassName": "system-node-critical",
                    "serviceAccountName": "flannel",
                    "automountServiceAccountToken": false,
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"operator": "Exists"}],
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "kube-flannel",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/opt/bin/flanneld"],
                        "args": ["--ip-masq", "--kube-subnet-mgr", format!("--iface={interface}")],
                        "env": [
                            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}},
                            {"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIP"}}},
                        ],
                        "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}, "limits": {"memory": "256Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
                            "privileged": false,
                            "readOnlyRootFilesystem": true,
                        },
                        "volumeMounts": [
                            {"name": "run", "mountPath": "/run/flannel"},
                            {"name": "configuration", "mountPath": "/etc/kube-flannel", "readOnly": true},
                            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
                            token_mount(),
                        ],
                    }],
                    "volumes": [
                        {"name": "run", "hostPath": {"path": "/run/flannel", "type": "DirectoryOrCreate"}},
                        {"name": "configuration", "configMap": {"name": "kube-flannel-cfg"}},
                        {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
                        token_volume(),
                    ],
                },
            },
        },
    })
}
