//! What is in the cluster, against what should be.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use futures::StreamExt;
use futures::TryStreamExt;
use http::Method;
use serde_json::Value;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::FIELD_MANAGER;
use crate::api::apply::conflicts;
use crate::api::apply::content;
use crate::api::compare;
use crate::api::kinds::Kinds;
use crate::api::kinds::Resource;
use crate::api::kinds::group;
use crate::api::rest::Call;
use crate::api::rest::Refusal;
use crate::api::sets;
use crate::model::Blobs;
use crate::model::DesiredObject;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::model::ObjectState;
use crate::model::ObservedObjects;

/// Requests in flight over the one connection.
const WIDTH: usize = 16;
/// Names and labels alone, without specs.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

impl Api {
    /// How every desired object compares, which objects are bastide's, and the nodes. Changes nothing: what an apply would
    /// change is asked by dry run.
    pub async fn observe(&self, desired: &[DesiredObject], blobs: &Blobs) -> Result<ObservedObjects, ApiError> {
        let kinds = self.kinds().await?;
        let parents = self.read_sets(desired).await?;
        let owned_kinds: BTreeSet<&String> = parents.values().flat_map(|members| &members.kinds).collect();
        let selector = sets::selector(parents.keys());
        let objects = futures::stream::iter(desired.iter().map(|object| self.observe_object(&kinds, object, blobs)))
            .buffer_unordered(WIDTH)
            .try_collect::<Vec<_>>();
        let owned = futures::stream::iter(owned_kinds.into_iter().map(|kind| self.members(&kinds, kind, &selector)))
            .buffer_unordered(WIDTH)
            .try_collect::<Vec<_>>();
        let (objects, owned, nodes) = futures::try_join!(objects, owned, self.nodes())?;
        let wanted = Wanted::new(&kinds, desired);
        Ok(ObservedObjects {
            objects: objects.into_iter().flatten().collect(),
            owned: owned.into_iter().flatten().map(|id| wanted.as_desired(id)).collect(),
            nodes,
        })
    }

    async fn observe_object(
        &self,
        kinds: &Kinds,
        object: &DesiredObject,
        blobs: &Blobs,
    ) -> Result<Option<(ObjectId, ObjectState)>, ApiError> {
        let id = &object.id;
        let wanted = content(object, blobs)?;
        // The definition of an addon's own kind comes with the addon: until then there is nothing of that kind.
        let Some(resource) = kinds.find(&id.api_version, &id.kind) else { return Ok(None) };
        let path = resource.object(id.namespace.as_deref(), &id.name);
        let doing = format!("reading {id}");
        let call = Call { secret: object.secret, ..Call::get(path, &doing) };
        let live = match self.request(&call).await {
            Ok(live) => live,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let state = self.compare(resource, object, &wanted, &live).await?;
        Ok(Some((id.clone(), state)))
    }

    async fn compare(
        &self,
        resource: &Resource,
        object: &DesiredObject,
        wanted: &Value,
        live: &Value,
    ) -> Result<ObjectState, ApiError> {
        let id = &object.id;
        let doing = format!("comparing {id}");
        let body = wanted.to_string();
        let force = object.set == ObjectSet::System;
        let call = Call {
            method: Method::PATCH,
            path: format!(
                "{}?fieldManager={FIELD_MANAGER}&force={force}&dryRun=All&fieldValidation=Strict",
                resource.object(id.namespace.as_deref(), &id.name)
            ),
            body: Some(("application/apply-patch+yaml", body.as_bytes())),
            accept: None,
            doing: &doing,
            secret: object.secret,
        };
        let found = match self.request_detailed(&call).await {
            Ok(after) => compare::differences(live, &after),
            Err(Refusal::Other(error)) => return Err(error),
            Err(Refusal::Status(status)) if status.code == 401 || status.code == 403 && force => {
                return Err(crate::api::rest::refused(&status, &call));
            }
            Err(Refusal::Status(status)) => {
                let conflicts = conflicts(&status);
                if !conflicts.is_empty() {
                    let fields: BTreeSet<String> = conflicts.iter().map(|(field, _)| field.clone()).collect();
                    let owners = conflicts.into_iter().map(|(field, manager)| (manager, field)).collect();
                    return Ok(ObjectState::Differs { fields: fields.into_iter().collect(), owners });
                }
                // Refused for another reason, such as a webhook that knows no dry run, or a field that cannot change.
                // The apply itself will say why; here it is enough to know whether there is anything to apply.
                tracing::debug!(%id, message = %status.message, "dry run refused");
                let mut found = compare::uncovered(live, wanted);
                if found.is_empty() && !status.message.contains("webhook") {
                    found = compare::differences(&Value::Null, wanted);
                }
                found
            }
        };
        if found.is_empty() {
            return Ok(ObjectState::Equal);
        }
        let owners = compare::owners(live, &found);
        let mut fields: Vec<String> = found.iter().map(ToString::to_string).collect();
        fields.sort();
        Ok(ObjectState::Differs { fields, owners })
    }

    /// Objects of one kind (`Deployment.apps`) that carry bastide's label.
    async fn members(&self, kinds: &Kinds, kind: &str, selector: &str) -> Result<Vec<ObjectId>, ApiError> {
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        let Some(api_version) = kinds.preferred(group, kind) else { return Ok(Vec::new()) };
        let Some(resource) = kinds.find(api_version, kind) else { return Ok(Vec::new()) };
        let path = format!("{}?labelSelector={selector}", resource.collection(None));
        let doing = format!("listing owned objects of kind {kind}");
        let list = self.request(&Call { accept: Some(METADATA), ..Call::get(path, &doing) }).await?;
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(items.iter().filter_map(|item| member(api_version, kind, &item["metadata"])).collect())
    }
}

/// An owned object that may be pruned. Not so one that is going already, and one that Kubernetes itself brings along:
/// bastide shares those, and their removal would harm the cluster.
fn member(api_version: &str, kind: &str, metadata: &Value) -> Option<ObjectId> {
    let name = metadata["name"].as_str()?;
    let built_in = !metadata["labels"]["kubernetes.io/bootstrapping"].is_null()
        || kind == "ServiceAccount" && name == "default"
        || kind == "Namespace"
            && (name == "default" || ["kube-system", "kube-public", "kube-node-lease"].contains(&name));
    if built_in || !metadata["deletionTimestamp"].is_null() {
        return None;
    }
    Some(ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: metadata["namespace"].as_str().map(str::to_owned),
        name: name.to_owned(),
    })
}

/// Group, kind, namespace, name.
type Key = (String, String, Option<String>, String);

/// The desired objects by what identifies them in the cluster: whatever version of the API they are written in, and
/// whether or not they name the namespace `default`.
struct Wanted(BTreeMap<Key, ObjectId>);

impl Wanted {
    fn new(kinds: &Kinds, desired: &[DesiredObject]) -> Self {
        let keyed = desired.iter().map(|object| {
            let id = &object.id;
            let namespaced = kinds.find(&id.api_version, &id.kind).is_some_and(|resource| resource.namespaced);
            let namespace = namespaced.then(|| id.namespace.clone().unwrap_or_else(|| "default".to_owned()));
            ((group(&id.api_version).to_owned(), id.kind.clone(), namespace, id.name.clone()), id.clone())
        });
        Self(keyed.collect())
    }

    fn as_desired(&self, id: ObjectId) -> ObjectId {
        let key = (group(&id.api_version).to_owned(), id.kind.clone(), id.namespace.clone(), id.name.clone());
        self.0.get(&key).cloned().unwrap_or(id)
    }
}
