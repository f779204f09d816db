//! `Cluster` + `Secrets` + `Release` -> `Desired` and its blobs. Same input, same bytes.
//!
//! Enters: what the file means, keys and certificates, a release, the user's addons, the hosts' own names. Leaves:
//! every file, unit, image and object with its content, and every reason why there can be none. Never does I/O, reads
//! no clock, draws no randomness.

mod admission_plugins;
mod api_files;
mod api_rules;
mod apiserver;
mod args;
mod authentication;
mod balancer;
mod cluster_objects;
mod containerd;
mod controller_manager;
mod draft;
mod error;
mod etcd;
mod fields;
mod hardening;
mod judge;
mod kms;
mod kubeconfig;
mod kubelet;
mod kubelet_rules;
mod local_images;
mod merge;
mod node;
pub mod objects;
mod pod;
mod proxy;
mod read_back;
mod recurring;
mod renewals;
mod scheduler;
mod shutdown;
mod system;
mod template;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
pub(crate) mod tests;
mod toml;
mod watch;
mod yaml;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub use controller_manager::SIGNER;
pub use draft::unit_inputs;
pub use error::RenderError;
pub use error::RenderErrors;
pub use kms::FOLDER as KMS_FOLDER;
pub use kms::POD as KMS_POD;
pub use pod::pod_inputs;
pub use renewals::renewals_signed_by;

use crate::config::Cluster;
use crate::config::NetworkPlugin;
use crate::config::Node;
use crate::model::Access;
use crate::model::Blobs;
use crate::model::Component;
use crate::model::Content;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::HostName;
use crate::model::Release;
use crate::render::draft::Draft;
use crate::render::draft::Shop;
use crate::render::judge::Judge;
use crate::render::objects::AddonText;
use crate::render::template::Templates;
use crate::secrets::AuthorityName;
use crate::secrets::EncryptionKey;
use crate::secrets::HostSigners;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// Section 3.1 of the hardening notes: what is recorded, and what never is.
pub(crate) const AUDIT_POLICY: &str = include_str!("../../templates/audit-policy.yaml");

/// Where every API server finds its keys for encryption at rest.
pub const ENCRYPTION: &str = "/etc/kubernetes/enc/encryption.yaml";

/// The content of [`ENCRYPTION`] with these keys, the first of which writes.
///
/// # Errors
/// Where the template is wrong, which a test excludes.
pub fn encryption_file(keys: &[EncryptionKey]) -> Result<Content, RenderError> {
    api_files::encryption_text(&Templates::load()?, keys)
}

/// The content of [`ENCRYPTION`] that says what `document` says, an `EncryptionConfiguration`.
pub fn encryption_document(document: &serde_json::Value) -> Content {
    api_files::encryption_document(document)
}

/// A complete target.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// What every host and the cluster should be.
    pub desired: Desired,
    /// The contents that it names. Programs and images are not among them: these are in the release's bundle.
    pub blobs: Blobs,
    /// What a person should know, one sentence each.
    pub notes: Vec<String>,
}

/// Makes the target. `os_names` are the hosts' own names as far as they were seen: the kubelet is told its node's name
/// only where the system's differs (CIS 4.2.7). `signers` are needed where hosts take snapshots by themselves.
///
/// # Errors
/// Every problem at once: settings that weaken a hardened one, values without meaning, things that the release or the
/// secrets lack.
pub fn desired(
    cluster: &Cluster,
    secrets: &Secrets,
    release: &Release,
    addons: &[AddonText],
    os_names: &BTreeMap<HostName, String>,
    signers: Option<&HostSigners>,
) -> Result<Rendered, RenderErrors> {
    let templates = Templates::load().map_err(|error| RenderErrors(vec![error]))?;
    let judge = Judge::new(&cluster.options.allow);
    let mut shop = Shop { cluster, secrets, release, signers, templates, blobs: Blobs::default(), judge };
    let hosts = cluster
        .nodes
        .iter()
        .map(|node| (node.name.clone(), host(&mut shop, node, os_names.get(&node.name).map(String::as_str))))
        .collect();
    let objects = cluster_objects::objects(&mut shop, addons);
    let Shop { blobs, judge, .. } = shop;
    let (allowances, errors, notes) = judge.finish();
    if !errors.is_empty() {
        return Err(RenderErrors(errors));
    }
    let desired = Desired {
        schema: Desired::SCHEMA,
        cluster: secrets.cluster.clone(),
        cluster_name: cluster.name.clone(),
        kubernetes: cluster.kubernetes,
        hosts,
        objects,
        allowances,
    };
    Ok(Rendered { desired, blobs, notes })
}

/// The nodes whose hosts call themselves by the node's name: all of `os_names` that a target depends on.
pub fn named_alike(cluster: &Cluster, os_names: &BTreeMap<HostName, String>) -> BTreeSet<HostName> {
    let names = cluster.nodes.iter().map(|node| &node.name);
    names.filter(|name| os_names.get(*name).is_some_and(|own| node::is_named_alike(name, own))).cloned().collect()
}

/// The recipe of one host, in the order in which its units start.
fn host<'a>(shop: &mut Shop<'a>, node: &'a Node, os_name: Option<&str>) -> DesiredHost {
    let mut draft = Draft::new(shop, node);
    folders(&mut draft);
    system::render(&mut draft);
    containerd::render(&mut draft);
    local_images::render(&mut draft);
    shutdown::render(&mut draft);
    if node.roles.etcd() {
        etcd::render(&mut draft);
    }
    if node.roles.control_plane() {
        apiserver::render(&mut draft);
        controller_manager::render(&mut draft);
        scheduler::render(&mut draft);
        // CIS 1.1.13 and 1.1.14 want an administrator's file to exist; this one is bound to bastide's own group.
        kubeconfig::whole(
            &mut draft,
            Component::Operator,
            "/etc/kubernetes/admin.conf",
            "bastide-admin",
            LeafName::Admin,
        );
    } else {
        balancer::render(&mut draft);
    }
    proxy::render(&mut draft);
    kubelet::render(&mut draft, os_name);
    if node.roles.etcd() {
        recurring::render(&mut draft);
    }
    watch::render(&mut draft);
    workload_images(&mut draft);
    draft.host.labels = node::labels(node);
    draft.host.taints = node::taints(node);
    draft.finish()
}

/// Folders that several components use, the authority that all of them trust, and the one that issues.
fn folders(draft: &mut Draft<'_, '_>) {
    for folder in ["/etc/kubernetes", "/etc/kubernetes/pki"] {
        draft.directory(folder, Access::root(0o700));
    }
    let component = if draft.node.roles.control_plane() { Component::ApiServer } else { Component::Kubelet };
    let trust = draft.trust(AuthorityName::Kubernetes);
    draft.file(component, "/etc/kubernetes/pki/ca.crt", Access::root(0o600), trust);
    controller_manager::signer(draft);
}

/// Images of what runs inside the cluster: any host may be given such a pod, and there may be no registry.
fn workload_images(draft: &mut Draft<'_, '_>) {
    let cluster = draft.shop.cluster;
    if cluster.dns.coredns {
        draft.image("coredns");
    }
    if cluster.metrics_server_replicas.is_some() {
        draft.image("metrics-server");
    }
    if matches!(cluster.network.plugin, NetworkPlugin::Flannel { .. }) {
        draft.image("flannel");
    }
}

/// An address as it stands in a URL: IPv6 in brackets.
fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
