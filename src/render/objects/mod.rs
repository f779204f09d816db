//! The objects in the cluster that bastide owns, as structures: no text is ever spliced into another, and each structure is
//! read back as its typed Kubernetes object, so that a misspelt field is found here and not by the API server.

mod addons;
mod base;
mod coredns;
mod flannel;
mod metrics_server;
mod rbac;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

pub use addons::AddonProblem;
pub use addons::AddonText;
pub use addons::addons;
pub use flannel::flannel_conflist;

use crate::config::Cluster;
use crate::model::ImageRef;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::model::Release;
use crate::secrets::Secrets;

/// An object with whose it is.
pub type OwnedObject = (ObjectId, Value, ObjectSet);

/// Why the objects cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// The release lacks an image.
    #[error("the release has no image for {0}")]
    MissingImage(&'static str),
    /// The secrets lack a certificate.
    #[error("the secrets hold no certificate {0}")]
    MissingLeaf(String),
    /// A setting that would end one of CoreDNS' own words and begin another.
    #[error("{at}: {value:?} cannot stand in CoreDNS' configuration")]
    Unquotable {
        /// Which setting.
        at: &'static str,
        /// Its value.
        value: String,
    },
    /// An object does not read back as it was written: a fault of bastide's.
    #[error("{id} does not read back as what was meant: {reason} (this is a fault of bastide)")]
    Unfaithful {
        /// Which.
        id: ObjectId,
        /// What differs.
        reason: String,
    },
    /// Addons that cannot be used; all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Addons(Vec<AddonProblem>),
}

/// bastide's own objects, in the order in which they are applied.
pub fn system(cluster: &Cluster, secrets: &Secrets, release: &Release) -> Result<Vec<OwnedObject>, ObjectsError> {
    let mut made = Made::default();
    base::add(&mut made, cluster)?;
    rbac::add(&mut made)?;
    flannel::add(&mut made, cluster, release)?;
    coredns::add(&mut made, cluster, release)?;
    metrics_server::add(&mut made, cluster, secrets, release)?;
    Ok(made.0.into_iter().map(|(id, object)| (id, object, ObjectSet::System)).collect())
}

/// bastide's own objects and the addons', in the order in which they are applied. An addon may not bring an object that
/// bastide or another addon brings: both would go back and forth with every run.
pub fn all(
    cluster: &Cluster,
    secrets: &Secrets,
    release: &Release,
    documents: &[AddonText],
) -> Result<Vec<OwnedObject>, ObjectsError> {
    let mut objects = system(cluster, secrets, release)?;
    let more = addons(documents).map_err(ObjectsError::Addons)?;
    let taken: BTreeSet<addons::Identity> = objects.iter().map(|(id, ..)| addons::identity(id)).collect();
    let clashes: Vec<AddonProblem> = more
        .iter()
        .filter(|(id, ..)| taken.contains(&addons::identity(id)))
        .map(|(id, _, set)| AddonProblem::taken(set, id))
        .collect();
    if !clashes.is_empty() {
        return Err(ObjectsError::Addons(clashes));
    }
    objects.extend(more);
    Ok(objects)
}

/// Objects so far.
#[derive(Default)]
struct Made(Vec<(ObjectId, Value)>);

impl Made {
    /// Adds `object`, once it has come back unchanged from its type.
    fn add<T: Serialize + DeserializeOwned>(&mut self, object: Value) -> Result<(), ObjectsError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = ObjectId {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name: text(&object["metadata"]["name"]),
        };
        let wrong = |reason: String| ObjectsError::Unfaithful { id: id.clone(), reason };
        let typed: T = serde_json::from_value(object.clone()).map_err(|error| wrong(error.to_string()))?;
        let back = serde_json::to_value(typed).map_err(|error| wrong(error.to_string()))?;
        if back != object {
            return Err(wrong("a field is unknown to its type".to_owned()));
        }
        self.0.push((id, object));
        Ok(())
    }
}

/// The reference under which the hosts have a component's image.
fn image<'a>(release: &'a Release, component: &'static str) -> Result<&'a ImageRef, ObjectsError> {
    let artifact = release.images.get(component).ok_or(ObjectsError::MissingImage(component))?;
    Ok(&artifact.reference)
}

/// Runs on control planes and etcd hosts too: RKE's role taints, kubeadm's, and the one that asks only for patience.
fn tolerations() -> Value {
    json!([
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/controlplane", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/etcd", "operator": "Exists"},
    ])
}

/// As with static pods: nobody gives up a container that starts sooner than bastide gives up its health.
fn startup_probe(cluster: &Cluster, get: &Value) -> Value {
    const PERIOD: u64 = 2;
    let failures = cluster.options.deadlines.health.as_secs().div_ceil(PERIOD).clamp(1, 100_000);
    json!({"httpGet": get, "periodSeconds": PERIOD, "timeoutSeconds": 5, "failureThreshold": failures})
}

/// The volume that `TOKEN_MOUNT` mounts: a token of one hour instead of the one that is mounted unasked (CIS 5.1.6), with
/// the authority and the namespace beside it, where every client library looks for them.
fn token_volume() -> Value {
    json!({"name": "api-access", "projected": {"defaultMode": 0o440, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

fn token_mount() -> Value {
    json!({"name": "api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true})
}

/// The node selector of a workload: Linux, and what the file asks for.
fn node_selector(more: &BTreeMap<String, String>) -> Value {
    let mut selector = more.clone();
    selector.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    json!(selector)
}
