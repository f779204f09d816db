//! Carries out one action on the cluster's objects.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::FIELD_MANAGER;
use crate::api::POLL;
use crate::api::rest::Call;
use crate::api::rest::Refusal;
use crate::api::rest::refused;
use crate::api::sets;
use crate::model::Blobs;
use crate::model::DesiredObject;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::ObjectAction;
use crate::model::ObjectId;
use crate::model::ObjectSet;

/// Whose mark an object must carry before it may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Bastide's label.
    Ours,
    /// None: kubelets make nodes, and nobody labels them.
    Kubelets,
}

impl Api {
    /// Afterwards the action holds. All of them may be repeated.
    pub async fn apply(&self, action: &ObjectAction, blobs: &Blobs) -> Result<(), ApiError> {
        match action {
            ObjectAction::Apply { id, digest, set, .. } => self.apply_object(id, *digest, set, blobs).await,
            ObjectAction::Delete { id, with_data } => self.delete(id, Whose::Ours, *with_data).await,
            ObjectAction::Forget { node } => self.delete(&node_id(node), Whose::Kubelets, false).await,
            ObjectAction::Node { node, labels, taints } => self.set_node(node, labels, taints).await,
        }
    }

    async fn apply_object(
        &self,
        id: &ObjectId,
        digest: Digest,
        set: &ObjectSet,
        blobs: &Blobs,
    ) -> Result<(), ApiError> {
        let body = parsed(id, &digest, set, blobs)?.to_string();
        let resource = self.resource(id).await?;
        self.announce(set, id).await?;
        let doing = format!("applying {id}");
        let call = Call {
            method: Method::PATCH,
            path: format!(
                "{}?fieldManager={FIELD_MANAGER}&force={}&fieldValidation=Strict",
                resource.object(id.namespace.as_deref(), &id.name),
                *set == ObjectSet::System
            ),
            body: Some(("application/apply-patch+yaml", body.as_bytes())),
            accept: None,
            doing: &doing,
            secret: id.kind == "Secret",
        };
        match self.request_detailed(&call).await {
            Ok(_) => {}
            Err(Refusal::Other(error)) => return Err(error),
            Err(Refusal::Status(status)) => {
                let fields = conflicts(&status);
                return Err(if fields.is_empty() {
                    refused(&status, &call)
                } else {
                    ApiError::Conflict { id: id.clone(), fields }
                });
            }
        }
        if id.kind == "CustomResourceDefinition" {
            self.await_definition(id).await?;
        }
        Ok(())
    }

    /// Waits until the API serves the kind that a definition brings.
    async fn await_definition(&self, id: &ObjectId) -> Result<(), ApiError> {
        let path = self.resource(id).await?.object(None, &id.name);
        let doing = format!("waiting for {id}");
        let started = Instant::now();
        let until = started + self.waiting;
        loop {
            let live = self.request(&Call::get(path.clone(), &doing)).await?;
            let (last, hopeless) = match unestablished(&live) {
                Some((reason, hopeless)) => (reason, hopeless),
                None => match self.unserved(&live).await? {
                    None => return Ok(()),
                    Some(reason) => (reason, false),
                },
            };
            if hopeless || Instant::now() + POLL >= until {
                return Err(ApiError::Waited {
                    what: format!("{id} was not established"),
                    patience: started.elapsed(),
                    last,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Discovery lags a moment behind the condition.
    async fn unserved(&self, definition: &Value) -> Result<Option<String>, ApiError> {
        self.forget_kinds().await;
        let kinds = self.kinds().await?;
        let spec = &definition["spec"];
        let (group, kind) = (spec["group"].as_str().unwrap_or_default(), spec["names"]["kind"].as_str());
        let kind = kind.unwrap_or_default();
        let versions = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
        for name in versions.filter_map(|version| version["name"].as_str()) {
            if kinds.find(&format!("{group}/{name}"), kind).is_none() {
                return Ok(Some(format!("{kind} of {group}/{name} is not served yet")));
            }
        }
        Ok(None)
    }

    /// Afterwards the object is gone, or was never there.
    async fn delete(&self, id: &ObjectId, whose: Whose, with_data: bool) -> Result<(), ApiError> {
        if id.holds_data() && !with_data {
            return Err(ApiError::Protected { id: id.clone() });
        }
        // A kind that is not served any more has no objects.
        let resource = match self.resource(id).await {
            Err(ApiError::UnknownKind { .. }) => return Ok(()),
            other => other?,
        };
        let path = resource.object(id.namespace.as_deref(), &id.name);
        let doing = format!("deleting {id}");
        let read = Call { secret: id.kind == "Secret", ..Call::get(path.clone(), &doing) };
        let live = match self.request(&read).await {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        if whose == Whose::Ours && live["metadata"]["labels"][sets::PART_OF].is_null() {
            return Err(ApiError::NotOurs { id: id.clone() });
        }
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": live["metadata"]["uid"]},
        })
        .to_string();
        let call = Call {
            method: Method::DELETE,
            body: Some(("application/json", options.as_bytes())),
            ..Call::get(path.clone(), &doing)
        };
        match self.request(&call).await {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        // A namespace goes when everything in it has gone.
        let patience = if with_data { self.waiting } else { self.patience };
        self.await_gone(id, path, &live["metadata"]["uid"], patience).await
    }

    async fn await_gone(&self, id: &ObjectId, path: String, uid: &Value, patience: Duration) -> Result<(), ApiError> {
        let doing = format!("waiting for the end of {id}");
        let read = Call { secret: id.kind == "Secret", ..Call::get(path, &doing) };
        let until = Instant::now() + patience;
        loop {
            let live = match self.request(&read).await {
                Err(error) if error.is_absent() => return Ok(()),
                other => other?,
            };
            if &live["metadata"]["uid"] != uid {
                return Ok(());
            }
            if Instant::now() + POLL >= until {
                let last = format!("finalizers {}", live["metadata"]["finalizers"]);
                return Err(ApiError::Waited { what: format!("{id} did not go"), patience, last });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Why a definition does not serve yet, and whether it never will: another one has its names.
fn unestablished(definition: &Value) -> Option<(String, bool)> {
    let conditions = definition["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    if conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True") {
        return None;
    }
    match conditions.iter().find(|one| one["type"] == "NamesAccepted" && one["status"] == "False") {
        Some(refused) => Some((refused["message"].as_str().unwrap_or("its names are taken").to_owned(), true)),
        None => Some(("no condition Established yet".to_owned(), false)),
    }
}

/// The object of a desired one, with the label of its set.
pub(super) fn content(object: &DesiredObject, blobs: &Blobs) -> Result<Value, ApiError> {
    parsed(&object.id, &object.digest, &object.set, blobs)
}

fn node_id(node: &HostName) -> ObjectId {
    ObjectId { api_version: "v1".to_owned(), kind: "Node".to_owned(), namespace: None, name: node.to_string() }
}

fn parsed(id: &ObjectId, digest: &Digest, set: &ObjectSet, blobs: &Blobs) -> Result<Value, ApiError> {
    let bytes = blobs.get(digest).ok_or_else(|| ApiError::missing(id, digest))?;
    let wrong = |reason: &str| ApiError::Content { id: id.clone(), reason: reason.to_owned() };
    // serde_json's own words may quote what they stumbled over.
    let mut object: Value = serde_json::from_slice(bytes.expose()).map_err(|_| wrong("content is not JSON"))?;
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or_else(|| wrong("content has no metadata"))?;
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    labels
        .as_object_mut()
        .ok_or_else(|| wrong("metadata.labels is no map"))?
        .insert(sets::PART_OF.to_owned(), Value::String(sets::label(set)));
    Ok(object)
}

/// Field and manager of each conflict that a refusal names.
pub(super) fn conflicts(status: &kube::core::Status) -> Vec<(String, String)> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| {
            let manager = cause.message.split('"').nth(1).unwrap_or(&cause.message);
            (cause.field.trim_start_matches('.').to_owned(), manager.to_owned())
        })
        .collect()
}
