//! Whom the parts of a cluster are told to trust: pods by their namespace's ConfigMap, extension API servers by the API servers',
//! and whoever names a bundle of authorities for what it calls.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::FIELD_MANAGER;
use crate::api::rest::Call;

/// The name of the ConfigMap that every pod is given (kube-controller-manager, `root-ca-certificate-publisher`).
pub(super) const GIVEN: &str = "kube-root-ca.crt";
/// Where API servers publish whom extension API servers shall believe (k8s.io/apiserver, `clusterauthenticationtrust`).
const PUBLISHED: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

/// What the pods of a namespace are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenTrust {
    /// Which.
    pub namespace: String,
    /// PEM certificates.
    pub bundle: String,
    /// When its content was changed last (RFC 3339, UTC, whole seconds).
    pub changed: String,
}

/// Whom extension API servers believe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishedTrust {
    /// PEM certificates of the authorities of clients.
    pub clients: String,
    /// PEM certificates of the authorities of the aggregator's own client certificate.
    pub front_proxies: String,
    /// The version that was read.
    pub version: String,
}

/// An object with a bundle of authorities in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundled {
    /// `ValidatingWebhookConfiguration policy`.
    pub object: String,
    /// PEM certificates.
    pub bundle: String,
}

impl Api {
    /// What every namespace's pods are given.
    pub async fn given_trust(&self) -> Result<Vec<GivenTrust>, ApiError> {
        let path = format!("/api/v1/configmaps?fieldSelector=metadata.name={GIVEN}");
        let all = self.listed(&path, "reading what pods trust").await?;
        Ok(all.iter().map(given).collect())
    }

    /// Whom extension API servers are told to believe; none where nothing is published yet.
    pub async fn published_trust(&self) -> Result<Option<PublishedTrust>, ApiError> {
        let call = Call::get(PUBLISHED.to_owned(), "reading whom extension API servers believe");
        let live = match self.request(&call).await {
            Ok(live) => live,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = |key: &str| live["data"][key].as_str().unwrap_or_default().to_owned();
        Ok(Some(PublishedTrust {
            clients: text("client-ca-file"),
            front_proxies: text("requestheader-client-ca-file"),
            version: live["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
        }))
    }

    /// Writes that, unless somebody wrote since `trust` was read. API servers only ever add what they believe themselves.
    pub async fn publish_trust(&self, trust: &PublishedTrust) -> Result<(), ApiError> {
        let body = json!({
            "metadata": {"resourceVersion": trust.version},
            "data": {"client-ca-file": trust.clients, "requestheader-client-ca-file": trust.front_proxies},
        })
        .to_string();
        let call = Call {
            method: Method::PATCH,
            path: format!("{PUBLISHED}?fieldManager={FIELD_MANAGER}"),
            body: Some(("application/merge-patch+json", body.as_bytes())),
            accept: None,
            doing: "writing whom extension API servers believe",
            secret: false,
        };
        self.request(&call).await.map(drop)
    }

    /// Every webhook, extension API server and conversion with a bundle of authorities of its own.
    pub async fn bundled_trust(&self) -> Result<Vec<Bundled>, ApiError> {
        let mut found = Vec::new();
        for (kind, path) in [
            ("ValidatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
            ("MutatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"),
            ("APIService", "/apis/apiregistration.k8s.io/v1/apiservices"),
            ("CustomResourceDefinition", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
        ] {
            for object in self.listed(path, "reading whom webhooks are verified against").await? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let mut bundles = Vec::new();
                bundles_in(&object["spec"], &mut bundles);
                bundles_in(&object["webhooks"], &mut bundles);
                found.extend(bundles.into_iter().map(|bundle| Bundled { object: format!("{kind} {name}"), bundle }));
            }
        }
        Ok(found)
    }

    /// Everybody whom a role is bound to by name and who is neither Kubernetes' own nor bastide's.
    pub async fn users(&self) -> Result<BTreeSet<String>, ApiError> {
        let mut found = BTreeSet::new();
        for kind in ["clusterrolebindings", "rolebindings"] {
            let path = format!("/apis/rbac.authorization.k8s.io/v1/{kind}");
            for binding in self.listed(&path, "reading whom roles are bound to").await? {
                found.extend(users_of(&binding));
            }
        }
        Ok(found)
    }

    /// Whether the server of this group answers through the aggregator.
    pub async fn serves_group(&self, group_version: &str) -> Result<(), ApiError> {
        let call = Call::get(format!("/apis/{group_version}"), "asking an extension API server");
        self.request(&call).await.map(drop)
    }
}

fn given(map: &Value) -> GivenTrust {
    let metadata = &map["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let writes = metadata["managedFields"].as_array().into_iter().flatten();
    let data = writes.filter(|write| !write["fieldsV1"]["f:data"].is_null()).map(|write| text(&write["time"]));
    GivenTrust {
        namespace: text(&metadata["namespace"]),
        bundle: text(&map["data"]["ca.crt"]),
        changed: data.max().unwrap_or_else(|| text(&metadata["creationTimestamp"])),
    }
}

fn users_of(binding: &Value) -> Vec<String> {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    let names = subjects.filter(|subject| subject["kind"] == "User").filter_map(|subject| subject["name"].as_str());
    names.filter(|name| !name.starts_with("system:") && !name.starts_with("bastide:")).map(str::to_owned).collect()
}

fn bundles_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                match inner.as_str().filter(|_| name == "caBundle") {
                    Some(encoded) => {
                        let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                        found.extend(decoded);
                    }
                    None => bundles_in(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|inner| bundles_in(inner, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::bundles_in;
    use super::given;
    use super::users_of;

    #[test]
    fn what_pods_are_given_changed_when_its_content_was_written() {
        let map = json!({
            "metadata": {"namespace": "a", "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [
                {"time": "2026-02-01T00:00:00Z", "fieldsV1": {"f:data": {"f:ca.crt": {}}}},
                {"time": "2026-03-01T00:00:00Z", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
            ]},
            "data": {"ca.crt": "PEM"},
        });
        let seen = given(&map);
        assert_eq!((seen.namespace.as_str(), seen.bundle.as_str()), ("a", "PEM"));
        assert_eq!(seen.changed, "2026-02-01T00:00:00Z");
        assert_eq!(
            given(&json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})).changed,
            "2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn people_are_those_who_are_bound_by_name() {
        let subject = |kind: &str, name: &str| json!({"kind": kind, "name": name});
        let binding = json!({"subjects": [
            subject("User", "anna"), subject("Group", "ops"), subject("ServiceAccount", "robot"),
            subject("User", "system:kube-scheduler"), subject("User", "bastide:healthcheck"),
        ]});
        assert_eq!(users_of(&binding), ["anna"]);
        assert!(users_of(&json!({"metadata": {"name": "nobody"}})).is_empty());
    }

    #[test]
    fn bundles_are_found_wherever_they_stand() {
        let mut found = Vec::new();
        bundles_in(
            &json!([{"clientConfig": {"caBundle": "UEVN"}}, {"conversion": {"webhook": {"caBundle": "Mg=="}}}]),
            &mut found,
        );
        assert_eq!(found, ["PEM", "2"]);
    }
}
