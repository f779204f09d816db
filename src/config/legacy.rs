//! Top-level keys of RKE that mean nothing here, or nothing yet.

use crate::config::field::Field;
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
const UNSUPPORTED: [(&str, &str); 3] = [
    ("private_registries", "remove it and name a bundle under bastide.artifacts.bundle"),
    ("system_images", "remove it: kubernetes_version alone chooses every image"),
    ("cloud_provider", "remove it and install an external cloud provider with addons_include"),
];

/// Keys that give an order, which a file that is read again and again is no place for.
const ORDERS: [(&str, &str); 2] =
    [("restore", "etcd snapshot restore"), ("rotate_encryption_key", "encrypt rotate-key")];

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
    for (key, command) in ORDERS {
        order(top, key, command);
    }
    if let Some(section) = top.section("rotate_certificates") {
        rotation(top, &section);
    }
    for (key, hint) in UNSUPPORTED.iter().filter(|(key, _)| *key != "cloud_provider") {
        top.unsupported(key, hint);
    }
}

/// RKE's `up` becomes a rotation where the file says so.
fn rotation(top: &Section, rotation: &Section) {
    let authorities = rotation.get("cacertificates").and_then(|field| field.boolean()).unwrap_or_default();
    let services = rotation.get("services").map(|field| field.items()).unwrap_or_default();
    let mut command = "rotate-certs".to_owned();
    if authorities {
        // Every certificate is issued anew with them, whatever services are named.
        command.push_str(" --ca");
    } else {
        for service in services.iter().filter_map(Field::text) {
            command.push_str(" --service ");
            command.push_str(&service);
        }
    }
    order(top, "rotate_certificates", &command);
}

fn order(top: &Section, key: &'static str, command: &str) {
    top.refused(key, "is an order, not a setting", &format!("remove it and run `bastide {command}`"));
}
