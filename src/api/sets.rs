//! Which objects are bastide's: each set has a parent object and its members a label, as KEP-3659 (ApplySet) lays down,
//! so that pruning asks only for the kinds that the parent lists.
//!
//! A parent's lists only grow: a kind is written there before the first object of it, so that a run which dies in between
//! leaves nothing that is not found again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::FIELD_MANAGER;
use crate::api::kinds;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::model::DesiredObject;
use crate::model::Digest;
use crate::model::ObjectId;
use crate::model::ObjectSet;

/// The label of every member; its value is the parent's id.
pub(super) const PART_OF: &str = "applyset.kubernetes.io/part-of";
const ID: &str = "applyset.kubernetes.io/id";
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
/// For people who find a parent: whose members it stands for.
const TITLE: &str = "bastide.dev/set";
/// Tells bastide's parents from those of other tools.
const OURS: &str = "bastide.dev/applyset";
const NAMESPACE: &str = "kube-system";

/// What a parent says of its members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// `Deployment.apps`, `Secret`.
    pub(super) kinds: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Members {
    fn add(&mut self, id: &ObjectId) {
        let group = kinds::group(&id.api_version);
        let kind = if group.is_empty() { id.kind.clone() } else { format!("{}.{group}", id.kind) };
        self.kinds.insert(kind);
        self.namespaces.extend(id.namespace.clone().filter(|namespace| namespace != NAMESPACE));
    }

    fn covers(&self, other: &Self) -> bool {
        self.kinds.is_superset(&other.kinds) && self.namespaces.is_superset(&other.namespaces)
    }
}

/// What is known of the parents.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// As the cluster has them, by the parent's name; none until asked.
    known: Option<BTreeMap<String, Members>>,
    /// What each parent will need, so that it is written once and not for every kind anew.
    planned: BTreeMap<String, Members>,
}

/// The parent's name.
fn parent(set: &ObjectSet) -> String {
    match set {
        ObjectSet::System => "bastide-system".to_owned(),
        ObjectSet::Addon(name) => format!("bastide-addon-{}", Digest::of(name.as_bytes()).short()),
    }
}

/// The id of the parent with this name, as the KEP computes it.
fn id_of(parent: &str) -> String {
    let digest = Digest::of(format!("{parent}.{NAMESPACE}.ConfigMap.").as_bytes());
    format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(digest.0))
}

/// The value of [`PART_OF`] for members of `set`.
pub(super) fn label(set: &ObjectSet) -> String {
    id_of(&parent(set))
}

/// The label selector for members of any of these parents.
pub(super) fn selector<'a>(parents: impl Iterator<Item = &'a String>) -> String {
    let ids: Vec<String> = parents.map(|name| id_of(name)).collect();
    encoded(&format!("{PART_OF} in ({})", ids.join(",")))
}

fn split(annotation: &Value) -> BTreeSet<String> {
    annotation.as_str().unwrap_or_default().split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn join(parts: &BTreeSet<String>) -> String {
    parts.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

impl Api {
    /// Reads all of bastide's parents, and keeps in mind what `desired` will need of them.
    pub(super) async fn read_sets(&self, desired: &[DesiredObject]) -> Result<BTreeMap<String, Members>, ApiError> {
        let found = self.list_parents().await?;
        let mut sets = self.sets.lock().await;
        sets.planned.clear();
        for object in desired {
            sets.planned.entry(parent(&object.set)).or_default().add(&object.id);
        }
        sets.known = Some(found.clone());
        Ok(found)
    }

    async fn list_parents(&self) -> Result<BTreeMap<String, Members>, ApiError> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector={}", encoded(OURS));
        let list = self.request(&Call::get(path, "reading the owned sets")).await?;
        let mut found = BTreeMap::new();
        for item in list["items"].as_array().into_iter().flatten() {
            let Some(name) = item["metadata"]["name"].as_str() else { continue };
            let annotations = &item["metadata"]["annotations"];
            let members = Members { kinds: split(&annotations[KINDS]), namespaces: split(&annotations[NAMESPACES]) };
            found.insert(name.to_owned(), members);
        }
        Ok(found)
    }

    /// Afterwards the parent of `set` lists the kind and namespace of `id`.
    pub(super) async fn announce(&self, set: &ObjectSet, id: &ObjectId) -> Result<(), ApiError> {
        let name = parent(set);
        let mut sets = self.sets.lock().await;
        if sets.known.is_none() {
            sets.known = Some(self.list_parents().await?);
        }
        let before = sets.known.as_ref().and_then(|known| known.get(&name)).cloned();
        let mut needed = Members::default();
        needed.add(id);
        if before.as_ref().is_some_and(|before| before.covers(&needed)) {
            return Ok(());
        }
        for more in sets.planned.get(&name).into_iter().chain(&before) {
            needed.kinds.extend(more.kinds.iter().cloned());
            needed.namespaces.extend(more.namespaces.iter().cloned());
        }
        let title = match set {
            ObjectSet::System => "system".to_owned(),
            ObjectSet::Addon(addon) => format!("addon {addon}"),
        };
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {ID: id_of(&name), OURS: "true"},
                "annotations": {
                    TITLE: title,
                    TOOLING: concat!("bastide/v", env!("CARGO_PKG_VERSION")),
                    KINDS: join(&needed.kinds),
                    NAMESPACES: join(&needed.namespaces),
                },
            },
        })
        .to_string();
        let call = Call {
            method: Method::PATCH,
            path: format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{name}?fieldManager={FIELD_MANAGER}&force=true"),
            body: Some(("application/apply-patch+yaml", body.as_bytes())),
            accept: None,
            doing: "writing down which kinds are owned",
            secret: false,
        };
        self.request(&call).await?;
        sets.known.get_or_insert_default().insert(name, needed);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::ObjectSet;
    use super::label;

    #[test]
    fn every_set_has_a_label_of_its_own_that_kubernetes_accepts() {
        let labels =
            [label(&ObjectSet::System), label(&ObjectSet::Addon("a".into())), label(&ObjectSet::Addon("b/ü".into()))];
        for label in &labels {
            assert!(label.len() <= 63 && label.starts_with("applyset-") && label.ends_with("-v1"), "{label}");
        }
        assert!(labels[0] != labels[1] && labels[1] != labels[2]);
    }
}
