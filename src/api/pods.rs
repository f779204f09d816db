//! Pods that read once what they trust and who they are, and how they are started anew.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Method;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::api::trust::GIVEN;
use crate::model::ObjectId;

/// A pod that calls the API with what its namespace and its service account give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallingPod {
    /// Where.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When its kubelet took it up (RFC 3339, UTC, whole seconds); empty where none has.
    pub started: String,
    /// What makes a new one in its place step by step: a Deployment, DaemonSet or StatefulSet. None where nothing does.
    pub workload: Option<ObjectId>,
}

impl Api {
    /// Every pod that runs and is given a token or the cluster's authority. Static pods are given neither.
    pub async fn calling_pods(&self) -> Result<Vec<CallingPod>, ApiError> {
        let sets = self.listed("/apis/apps/v1/replicasets", "reading what pods belong to").await?;
        let deployments: BTreeMap<(String, String), String> = sets
            .iter()
            .filter_map(|set| {
                let (kind, deployment) = owner(set)?;
                let key = (text(&set["metadata"]["namespace"]), text(&set["metadata"]["name"]));
                (kind == "Deployment").then_some((key, deployment))
            })
            .collect();
        let pods = self.listed("/api/v1/pods", "reading which pods call the API").await?;
        Ok(pods.iter().filter_map(|pod| calling(pod, &deployments)).collect())
    }

    /// The addresses of running pods with these labels.
    pub async fn pod_addresses(&self, namespace: &str, labels: &str) -> Result<Vec<IpAddr>, ApiError> {
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector={}", encoded(namespace), encoded(labels));
        let pods = self.listed(&path, "reading where pods are").await?;
        let running = pods
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null());
        Ok(running.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).collect())
    }

    /// Has a workload replace its pods, as `kubectl rollout restart` does. `stamp` makes it one restart however often it is asked.
    pub async fn restart(&self, workload: &ObjectId, stamp: &str) -> Result<(), ApiError> {
        let resource = self.resource(workload).await?;
        let doing = format!("restarting {workload}");
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": stamp});
        let body = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}).to_string();
        let call = Call {
            method: Method::PATCH,
            // Not the name under which bastide applies: what it does not apply again it would take away.
            path: format!(
                "{}?fieldManager=bastide-restart",
                resource.object(workload.namespace.as_deref(), &workload.name)
            ),
            body: Some(("application/merge-patch+json", body.as_bytes())),
            accept: None,
            doing: &doing,
            secret: false,
        };
        self.request(&call).await.map(drop)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Kind and name of what made it.
fn owner(object: &Value) -> Option<(String, String)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((text(&owner["kind"]), text(&owner["name"])))
}

fn calling(pod: &Value, deployments: &BTreeMap<(String, String), String>) -> Option<CallingPod> {
    let ended = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let given = volumes.into_iter().any(|volume| {
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        let projected =
            |source: &Value| source["configMap"]["name"] == GIVEN || !source["serviceAccountToken"].is_null();
        volume["configMap"]["name"] == GIVEN || sources.into_iter().any(projected)
    });
    if ended || !given {
        return None;
    }
    let namespace = text(&pod["metadata"]["namespace"]);
    let workload = owner(pod).and_then(|(kind, name)| match kind.as_str() {
        "DaemonSet" | "StatefulSet" => Some((kind, name)),
        "ReplicaSet" => Some(("Deployment".to_owned(), deployments.get(&(namespace.clone(), name))?.clone())),
        _ => None,
    });
    Some(CallingPod {
        name: text(&pod["metadata"]["name"]),
        started: text(&pod["status"]["startTime"]),
        workload: workload.map(|(kind, name)| ObjectId {
            api_version: "apps/v1".to_owned(),
            kind,
            namespace: Some(namespace.clone()),
            name,
        }),
        namespace,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::calling;

    fn pod(owner: &Value, volumes: &Value, phase: &str) -> Value {
        json!({
            "metadata": {"namespace": "a", "name": "p", "ownerReferences": [owner]},
            "spec": {"volumes": volumes},
            "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z"},
        })
    }

    #[test]
    fn pods_that_are_given_trust_or_a_token_call_and_are_restarted_by_what_made_them() {
        let token = || json!([{"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
        let trust = json!([{"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]);
        let set = || json!({"kind": "ReplicaSet", "name": "web-1", "controller": true});
        let deployments = [(("a".to_owned(), "web-1".to_owned()), "web".to_owned())].into();
        let seen = |pod: &Value| calling(pod, &deployments);
        let web = seen(&pod(&set(), &token(), "Running")).unwrap();
        assert_eq!(web.workload.unwrap().to_string(), "Deployment a/web");
        let bare = seen(&pod(&json!({"kind": "Job", "name": "j", "controller": true}), &trust, "Pending")).unwrap();
        assert_eq!((bare.workload, bare.started.as_str()), (None, "2026-01-01T00:00:00Z"));
        assert_eq!(seen(&pod(&set(), &token(), "Succeeded")), None);
        assert_eq!(seen(&pod(&set(), &json!([{"emptyDir": {}}]), "Running")), None);
    }
}
