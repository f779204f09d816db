//! Whether workloads are rolled out.

use serde_json::Value;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::model::ObjectId;

impl Api {
    /// What is still being waited for, one line for each Deployment, DaemonSet or StatefulSet among `ids` that is not
    /// rolled out. Empty when all are.
    pub async fn workloads_ready(&self, ids: &[ObjectId]) -> Result<Vec<String>, ApiError> {
        let mut pending = Vec::new();
        for id in ids.iter().filter(|id| ["Deployment", "DaemonSet", "StatefulSet"].contains(&id.kind.as_str())) {
            let resource = self.resource(id).await?;
            let doing = format!("reading {id}");
            let call = Call::get(resource.object(id.namespace.as_deref(), &id.name), &doing);
            let live = match self.request(&call).await {
                Ok(live) => live,
                Err(error) if error.is_absent() => {
                    pending.push(format!("{id}: does not exist"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(reason) = unready(&id.kind, &live) {
                let why = self.first_trouble(&live).await?.map(|why| format!(" ({why})")).unwrap_or_default();
                pending.push(format!("{id}: {reason}{why}"));
            }
        }
        Ok(pending)
    }

    /// What the first pod in trouble says.
    async fn first_trouble(&self, workload: &Value) -> Result<Option<String>, ApiError> {
        let labels = workload["spec"]["selector"]["matchLabels"].as_object();
        let selector: Vec<String> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
            .collect();
        let namespace = workload["metadata"]["namespace"].as_str().unwrap_or("default");
        let path =
            format!("/api/v1/namespaces/{}/pods?labelSelector={}", encoded(namespace), encoded(&selector.join(",")));
        let pods = self.request(&Call::get(path, "reading the pods of a workload")).await?;
        Ok(pods["items"].as_array().into_iter().flatten().find_map(trouble))
    }
}

/// Why a pod is not on a node, or why one of its containers does not run.
fn trouble(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    let list = |key: &str| status[key].as_array().map_or(&[][..], Vec::as_slice);
    let unscheduled = list("conditions").iter().find(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    let waiting = list("initContainerStatuses")
        .iter()
        .chain(list("containerStatuses"))
        .map(|container| &container["state"]["waiting"])
        // ContainerCreating is the ordinary course of things.
        .find(|waiting| {
            waiting["reason"].as_str().is_some_and(|reason| reason.contains("Err") || reason.contains("Back"))
        });
    let said = unscheduled.or(waiting)?;
    let reason = said["reason"].as_str().unwrap_or("not scheduled");
    let message = said["message"].as_str().unwrap_or_default();
    Some(format!("{}: {reason}: {message}", pod["metadata"]["name"].as_str().unwrap_or_default()))
}

fn unready(kind: &str, live: &Value) -> Option<String> {
    let status = &live["status"];
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    if count("observedGeneration") < live["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Some("its controller has not seen it yet".to_owned());
    }
    let (wanted, updated, available, all) = if kind == "DaemonSet" {
        let wanted = count("desiredNumberScheduled");
        (wanted, count("updatedNumberScheduled"), count("numberAvailable"), wanted)
    } else {
        let wanted = live["spec"]["replicas"].as_i64().unwrap_or(1);
        (wanted, count("updatedReplicas"), count("availableReplicas"), count("replicas"))
    };
    if updated < wanted || all > updated {
        Some(format!("{updated} of {wanted} pods are up to date"))
    } else if available < wanted {
        Some(format!("{available} of {wanted} pods are available"))
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::trouble;
    use super::unready;

    #[test]
    fn a_rollout_is_done_when_every_pod_is_new_and_available() {
        let done = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
        assert_eq!(unready("Deployment", &done), None);
        let mut old_pod_left = done.clone();
        old_pod_left["status"]["replicas"] = json!(3);
        assert_eq!(unready("Deployment", &old_pod_left), Some("2 of 2 pods are up to date".to_owned()));
        let mut unseen = done;
        unseen["metadata"]["generation"] = json!(3);
        assert!(unready("Deployment", &unseen).is_some());
    }

    #[test]
    fn a_daemon_set_waits_for_every_node() {
        let live = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1,
            "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}});
        assert_eq!(unready("DaemonSet", &live), Some("2 of 3 pods are available".to_owned()));
    }

    #[test]
    fn a_pod_that_no_node_takes_or_whose_image_is_missing_says_so() {
        let pending = json!({"metadata": {"name": "a-1"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]}});
        assert_eq!(trouble(&pending), Some("a-1: Unschedulable: 0/1 nodes are available".to_owned()));
        let pulling = json!({"metadata": {"name": "a-2"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}}]}});
        assert_eq!(trouble(&pulling), Some("a-2: ImagePullBackOff: no such host".to_owned()));
        let creating = json!({"metadata": {"name": "a-3"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ContainerCreating"}}}]}});
        assert_eq!(trouble(&creating), None);
    }
}
