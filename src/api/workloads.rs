//! Whether workloads are rolled out.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::model::HostName;
use crate::model::ObjectId;

impl Api {
    /// What is still being waited for, one line for each Deployment, DaemonSet or StatefulSet among `ids` that is not
    /// rolled out. Empty when all are. Nobody waits for pods on nodes that are `left_out`.
    pub async fn workloads_ready(
        &self,
        ids: &[ObjectId],
        left_out: &BTreeSet<HostName>,
    ) -> Result<Vec<String>, ApiError> {
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
            if unready(&id.kind, &live, 0).is_none() {
                continue;
            }
            let pods = self.pods_of(&live).await?;
            let pods = || pods["items"].as_array().into_iter().flatten();
            let gone = pods().filter(|pod| is_gone(pod, left_out)).count();
            if let Some(reason) = unready(&id.kind, &live, i64::try_from(gone).unwrap_or(i64::MAX)) {
                let why = pods().find_map(trouble).map(|why| format!(" ({why})")).unwrap_or_default();
                pending.push(format!("{id}: {reason}{why}"));
            }
        }
        Ok(pending)
    }

    async fn pods_of(&self, workload: &Value) -> Result<Value, ApiError> {
        let labels = workload["spec"]["selector"]["matchLabels"].as_object();
        let selector: Vec<String> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
            .collect();
        let namespace = workload["metadata"]["namespace"].as_str().unwrap_or("default");
        let path =
            format!("/api/v1/namespaces/{}/pods?labelSelector={}", encoded(namespace), encoded(&selector.join(",")));
        self.request(&Call::get(path, "reading the pods of a workload")).await
    }
}

/// Whether a pod is not available because its node is away.
fn is_gone(pod: &Value, left_out: &BTreeSet<HostName>) -> bool {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    !ready && left_out.iter().any(|host| host.as_str() == node)
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

/// `gone` of its pods are on nodes that are away.
fn unready(kind: &str, live: &Value, gone: i64) -> Option<String> {
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
    if updated < wanted - gone || all > updated + gone {
        Some(format!("{updated} of {wanted} pods are up to date"))
    } else if available < wanted - gone {
        Some(format!("{available} of {wanted} pods are available"))
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::is_gone;
    use super::trouble;
    use super::unready;
    use crate::model::HostName;

    #[test]
    fn a_rollout_is_done_when_every_pod_is_new_and_available() {
        let done = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
        assert_eq!(unready("Deployment", &done, 0), None);
        let mut old_pod_left = done.clone();
        old_pod_left["status"]["replicas"] = json!(3);
        assert_eq!(unready("Deployment", &old_pod_left, 0), Some("2 of 2 pods are up to date".to_owned()));
        let mut unseen = done;
        unseen["metadata"]["generation"] = json!(3);
        assert!(unready("Deployment", &unseen, 0).is_some());
    }

    #[test]
    fn a_daemon_set_waits_for_every_node() {
        let live = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1,
            "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}});
        assert_eq!(unready("DaemonSet", &live, 0), Some("2 of 3 pods are available".to_owned()));
        assert_eq!(unready("DaemonSet", &live, 1), None);
    }

    #[test]
    fn only_a_pod_that_is_unwell_on_a_node_left_out_is_gone() {
        let left_out = [HostName::new("h3").unwrap()].into();
        let pod = |node: &str, ready: &str| json!({"spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        assert!(is_gone(&pod("h3", "False"), &left_out));
        assert!(!is_gone(&pod("h3", "True"), &left_out));
        assert!(!is_gone(&pod("h2", "False"), &left_out));
        assert!(!is_gone(&json!({"status": {}}), &left_out), "it is on no node");
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
