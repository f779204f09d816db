//! Top-level keys of RKE that mean nothing here, or nothing yet.

use crate::config::field::Section;

/// Keys that only made sense with Docker or inside Rancher.
const DEAD: [(&str, &str); 11] = [
    ("ignore_docker_version", "bastide runs containerd, not Docker"),
    ("enable_cri_dockerd", "bastide runs containerd, not Docker"),
    ("cri_dockerd_stream_server_address", "bastide runs containerd, not Docker"),
    ("cri_dockerd_stream_server_port", "bastide runs containerd, not Docker"),
    ("docker_root_dir", "bastide runs containerd, not Docker"),
    ("win_prefix_path", "there are no Windows nodes"),
    ("default_pod_security_policy_template_id", "only Rancher gives it a meaning"),
    ("local_cluster_auth_endpoint", "only Rancher gives it a meaning"),
    ("enable_network_policy", "only Rancher gives it a meaning"),
    ("windows_prefered_cluster", "only Rancher gives it a meaning"),
    ("addon_job_timeout", "bastide applies addons itself, without Jobs; see bastide.deadlines"),
];

/// Keys that change what RKE does and that bastide cannot honour.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("private_registries", "remove it and name a bundle under bastide.artifacts.bundle"),
    ("system_images", "remove it: kubernetes_version alone chooses every image"),
    ("cloud_provider", "remove it and install an external cloud provider with addons_include"),
    ("restore", "remove it"),
    ("rotate_certificates", "remove it: `bastide up` renews certificates by itself"),
    ("rotate_encryption_key", "remove it"),
];

/// Reads what has no other reader.
pub(super) fn top(top: &Section) {
    for (key, why) in DEAD {
        top.dead(key, why);
    }
    if let Some(field) = top.given("prefix_path") {
        match field.text().as_deref() {
            Some("/") => field.warn_with("ignored: it is the root folder anyhow", "remove it"),
            Some(_) => field
                .error_with("RKE knows this key, bastide does not support it yet", "remove it: paths are kubeadm's"),
            None => {}
        }
    }
    if let Some(provider) = top.get("cloud_provider")
        && let Some(section) = provider.section()
        && section.text("name").as_deref() == Some("none")
    {
        provider.warn_with("ignored: there is no provider to configure", "remove it");
    } else {
        top.unsupported("cloud_provider", UNSUPPORTED[2].1);
    }
    for (key, hint) in UNSUPPORTED.iter().filter(|(key, _)| *key != "cloud_provider") {
        top.unsupported(key, hint);
    }
}
