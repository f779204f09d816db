//! Which kinds the server serves, and where.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::model::ObjectId;

/// One document for all groups, instead of one request per group.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// Where a kind's objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// `/apis/apps/v1` or `/api/v1`.
    base: String,
    plural: String,
    pub(super) namespaced: bool,
}

impl Resource {
    /// The path of one object. A namespaced object without a namespace is in `default`, as everywhere in Kubernetes.
    pub(super) fn object(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace.unwrap_or("default"))), encoded(name))
    }

    /// The path of all objects, in one namespace or (none) in all.
    pub(super) fn collection(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{}/namespaces/{}/{}", self.base, encoded(namespace), self.plural)
            }
            _ => format!("{}/{}", self.base, self.plural),
        }
    }
}

/// What the server serves, as seen at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    /// By apiVersion and kind.
    resources: BTreeMap<(String, String), Resource>,
    /// The version the server prefers, by group and kind.
    preferred: BTreeMap<(String, String), String>,
}

impl Kinds {
    /// Where objects of this apiVersion and kind are.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// The apiVersion that the server prefers for a kind of a group.
    pub(super) fn preferred(&self, group: &str, kind: &str) -> Option<&str> {
        self.preferred.get(&(group.to_owned(), kind.to_owned())).map(String::as_str)
    }

    /// Adds one discovery document. Entries of an aggregated API whose server is away have no resources: they stay out.
    fn add(&mut self, document: &Value) {
        for group in array(document, "items") {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in array(group, "versions") {
                let number = version["version"].as_str().unwrap_or_default();
                let (api_version, base) = if name.is_empty() {
                    (number.to_owned(), format!("/api/{number}"))
                } else {
                    (format!("{name}/{number}"), format!("/apis/{name}/{number}"))
                };
                for resource in array(version, "resources") {
                    let Some(kind) = resource["responseKind"]["kind"].as_str() else { continue };
                    let Some(plural) = resource["resource"].as_str() else { continue };
                    let place = Resource {
                        base: base.clone(),
                        plural: plural.to_owned(),
                        namespaced: resource["scope"] == "Namespaced",
                    };
                    self.resources.entry((api_version.clone(), kind.to_owned())).or_insert(place);
                    self.preferred.entry((name.to_owned(), kind.to_owned())).or_insert_with(|| api_version.clone());
                }
            }
        }
    }
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// `apps` of `apps/v1`, nothing of `v1`.
pub(super) fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl Api {
    /// What the server serves; asked once and again after [`Api::forget_kinds`].
    pub(super) async fn kinds(&self) -> Result<Arc<Kinds>, ApiError> {
        let mut known = self.kinds.lock().await;
        if let Some(kinds) = &*known {
            return Ok(kinds.clone());
        }
        let mut kinds = Kinds::default();
        for path in ["/api", "/apis"] {
            let call = Call { accept: Some(AGGREGATED), ..Call::get(path.to_owned(), "reading the served kinds") };
            kinds.add(&self.request(&call).await?);
        }
        let kinds = Arc::new(kinds);
        *known = Some(kinds.clone());
        Ok(kinds)
    }

    /// The next question is asked anew.
    pub(super) async fn forget_kinds(&self) {
        *self.kinds.lock().await = None;
    }

    /// Where `id` is; asks once more before it says that the kind is unknown.
    pub(super) async fn resource(&self, id: &ObjectId) -> Result<Resource, ApiError> {
        if let Some(found) = self.kinds().await?.find(&id.api_version, &id.kind) {
            return Ok(found.clone());
        }
        self.forget_kinds().await;
        let kinds = self.kinds().await?;
        kinds.find(&id.api_version, &id.kind).cloned().ok_or_else(|| ApiError::UnknownKind { id: id.clone() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::Kinds;

    #[test]
    fn the_first_version_of_a_group_is_the_preferred_one_and_stale_groups_are_left_out() {
        let mut kinds = Kinds::default();
        kinds.add(&json!({"items": [
            {"metadata": {"name": "autoscaling"}, "versions": [
                {"version": "v2", "resources": [{"resource": "horizontalpodautoscalers", "scope": "Namespaced",
                    "responseKind": {"kind": "HorizontalPodAutoscaler"}}]},
                {"version": "v1", "resources": [{"resource": "horizontalpodautoscalers", "scope": "Namespaced",
                    "responseKind": {"kind": "HorizontalPodAutoscaler"}}]}]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1beta1", "freshness": "Stale"}]}]}));
        assert_eq!(kinds.preferred("autoscaling", "HorizontalPodAutoscaler"), Some("autoscaling/v2"));
        let place = kinds.find("autoscaling/v1", "HorizontalPodAutoscaler").unwrap();
        assert_eq!(place.object(None, "a/b"), "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/a%2Fb");
        assert_eq!(kinds.preferred("metrics.k8s.io", "NodeMetrics"), None);
    }
}
