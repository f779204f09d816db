//! Nodes: what they report, and bastide's labels and taints on them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::FIELD_MANAGER;
use crate::api::POLL;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::model::HostName;
use crate::model::ObservedNode;
use crate::model::Taint;

/// Remembers which taints bastide added: `key:effect`, separated by commas. Taints are one list with one owner in the eyes
/// of the API server, so that field managers cannot tell.
const TAINTS: &str = "bastide.dev/taints";
/// Role taints are bastide's even where the kubelet registered with them, on bastide's word.
const ROLE: &str = "node-role.kubernetes.io/";

impl Api {
    /// All nodes.
    pub(super) async fn nodes(&self) -> Result<BTreeMap<HostName, ObservedNode>, ApiError> {
        let list = self.request(&Call::get("/api/v1/nodes".to_owned(), "reading the nodes")).await?;
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let named = items.iter().filter_map(|node| {
            let name = HostName::new(node["metadata"]["name"].as_str()?).ok()?;
            Some((name, observed(node)))
        });
        Ok(named.collect())
    }

    /// One node, where there is one.
    pub async fn node(&self, name: &HostName) -> Result<Option<ObservedNode>, ApiError> {
        match self.read_node(name).await {
            Ok(node) => Ok(Some(observed(&node))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Why the node is not ready with this boot; none when it is. A node that lost its power stays Ready in the API for
    /// some 40 s, hence the boot.
    pub async fn node_ready(&self, name: &HostName, boot_id: &str) -> Result<Option<String>, ApiError> {
        let node = match self.read_node(name).await {
            Err(error) if error.is_absent() => return Ok(Some("the node has not registered".to_owned())),
            other => other?,
        };
        let seen = observed(&node);
        if seen.boot_id != boot_id {
            return Ok(Some("the node has not reported its present boot".to_owned()));
        }
        if seen.ready {
            return Ok(None);
        }
        let condition = condition(&node);
        let message = condition.and_then(|ready| ready["message"].as_str()).unwrap_or("no condition Ready yet");
        Ok(Some(message.to_owned()))
    }

    async fn read_node(&self, name: &HostName) -> Result<Value, ApiError> {
        let doing = format!("reading node {name}");
        self.request(&Call::get(node_path(name), &doing)).await
    }

    /// The node, once its kubelet has registered it.
    async fn await_node(&self, name: &HostName) -> Result<Value, ApiError> {
        let until = Instant::now() + self.waiting;
        loop {
            match self.read_node(name).await {
                Err(error) if error.is_absent() && Instant::now() + POLL < until => tokio::time::sleep(POLL).await,
                Err(error) if error.is_absent() => {
                    return Err(ApiError::Waited {
                        what: format!("node {name} was not registered by its kubelet"),
                        patience: self.waiting,
                        last: "there is no such node".to_owned(),
                    });
                }
                other => return other,
            }
        }
    }

    /// Afterwards bastide's labels and taints on the node are exactly these.
    pub(super) async fn set_node(
        &self,
        name: &HostName,
        labels: &BTreeMap<String, String>,
        taints: &[Taint],
    ) -> Result<(), ApiError> {
        let node = self.await_node(name).await?;
        let doing = format!("labelling node {name}");
        // The uid keeps an apply from creating a node that was deleted meanwhile.
        let body = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name.as_str(), "uid": node["metadata"]["uid"], "labels": labels},
        })
        .to_string();
        let call = Call {
            method: Method::PATCH,
            path: format!("{}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict", node_path(name)),
            body: Some(("application/apply-patch+yaml", body.as_bytes())),
            accept: None,
            doing: &doing,
            secret: false,
        };
        let node = self.request(&call).await?;
        self.set_taints(name, node, taints).await
    }

    async fn set_taints(&self, name: &HostName, mut node: Value, wanted: &[Taint]) -> Result<(), ApiError> {
        let doing = format!("tainting node {name}");
        let until = Instant::now() + self.patience;
        loop {
            let Some(patch) = taint_patch(&node, wanted) else { return Ok(()) };
            let body = patch.to_string();
            let call = Call {
                method: Method::PATCH,
                path: format!("{}?fieldManager={FIELD_MANAGER}-taints", node_path(name)),
                body: Some(("application/merge-patch+json", body.as_bytes())),
                accept: None,
                doing: &doing,
                secret: false,
            };
            match self.request(&call).await {
                Ok(_) => return Ok(()),
                // Somebody else changed the node in between: look again, lest their taint be lost.
                Err(ApiError::Refused { code: 409, .. }) if Instant::now() < until => {}
                Err(error) => return Err(error),
            }
            node = self.read_node(name).await?;
        }
    }
}

fn node_path(name: &HostName) -> String {
    format!("/api/v1/nodes/{}", encoded(name.as_str()))
}

fn condition(node: &Value) -> Option<&Value> {
    node["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == "Ready")
}

fn observed(node: &Value) -> ObservedNode {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &node["metadata"];
    let labels = metadata["labels"].as_object();
    let applied = metadata["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply");
    let owned_labels = applied
        .filter_map(|entry| entry["fieldsV1"]["f:metadata"]["f:labels"].as_object())
        .flat_map(serde_json::Map::keys)
        .filter_map(|key| key.strip_prefix("f:").map(str::to_owned))
        .collect();
    ObservedNode {
        ready: condition(node).is_some_and(|ready| ready["status"] == "True"),
        boot_id: text(&node["status"]["nodeInfo"]["bootID"]),
        kubelet: text(&node["status"]["nodeInfo"]["kubeletVersion"]),
        labels: labels.into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect(),
        taints: taints(node).into_iter().collect(),
        owned_labels,
        owned_taints: owned_taints(node),
    }
}

/// The taints that stand in the spec.
fn taints(node: &Value) -> Vec<Taint> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = node["spec"]["taints"].as_array().into_iter().flatten();
    list.map(|taint| Taint { key: text(&taint["key"]), value: text(&taint["value"]), effect: text(&taint["effect"]) })
        .collect()
}

/// What the annotation remembers, and the role taints that stand there.
fn owned_taints(node: &Value) -> BTreeSet<(String, String)> {
    let noted = node["metadata"]["annotations"][TAINTS].as_str().unwrap_or_default();
    let noted = noted.split(',').filter_map(|one| one.rsplit_once(':'));
    let noted = noted.map(|(key, effect)| (key.to_owned(), effect.to_owned()));
    let roles = taints(node).into_iter().filter(|taint| taint.key.starts_with(ROLE));
    noted.chain(roles.map(|taint| (taint.key, taint.effect))).collect()
}

/// The patch that makes bastide's taints exactly `wanted`, and touches no other; none when they are.
fn taint_patch(node: &Value, wanted: &[Taint]) -> Option<Value> {
    let before = taints(node);
    let owned = owned_taints(node);
    let key = |taint: &Taint| (taint.key.clone(), taint.effect.clone());
    let wanted_keys: BTreeSet<_> = wanted.iter().map(key).collect();
    let kept = before.iter().filter(|taint| !owned.contains(&key(taint)) && !wanted_keys.contains(&key(taint)));
    let after: Vec<Taint> = kept.chain(wanted).cloned().collect();
    // A taint that stood there, just as wanted and not by bastide, stays somebody else's.
    let foreign = |taint: &Taint| before.contains(taint) && !owned.contains(&key(taint));
    let noted: BTreeSet<String> =
        wanted.iter().filter(|taint| !foreign(taint)).map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    let noted = noted.into_iter().collect::<Vec<_>>().join(",");
    let written = node["metadata"]["annotations"][TAINTS].as_str().unwrap_or_default();
    let same = before.iter().collect::<BTreeSet<_>>() == after.iter().collect::<BTreeSet<_>>();
    if same && noted == written {
        return None;
    }
    // timeAdded of a foreign NoExecute taint must survive, so that its object is taken over as it is.
    let raw = node["spec"]["taints"].as_array().map_or(&[][..], Vec::as_slice);
    let list: Vec<Value> = after
        .iter()
        .map(|taint| {
            let stands = raw.iter().find(|one| {
                one["key"] == *taint.key
                    && one["effect"] == *taint.effect
                    && one["value"].as_str().unwrap_or_default() == taint.value
            });
            stands.cloned().unwrap_or_else(|| match taint.value.as_str() {
                "" => json!({"key": taint.key, "effect": taint.effect}),
                value => json!({"key": taint.key, "effect": taint.effect, "value": value}),
            })
        })
        .collect();
    Some(json!({
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "annotations": {TAINTS: if noted.is_empty() { Value::Null } else { Value::String(noted) }},
        },
        "spec": {"taints": list},
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::TAINTS;
    use super::Taint;
    use super::taint_patch;

    fn taint(key: &str, value: &str) -> Taint {
        Taint { key: key.to_owned(), value: value.to_owned(), effect: "NoSchedule".to_owned() }
    }

    fn node(taints: &Value, noted: &str) -> Value {
        json!({"metadata": {"resourceVersion": "7", "annotations": {TAINTS: noted}}, "spec": {"taints": taints}})
    }

    #[test]
    fn a_foreign_taint_stays_and_only_what_bastide_added_goes() {
        let live = node(
            &json!([{"key": "theirs", "effect": "NoSchedule"}, {"key": "old", "effect": "NoSchedule"}]),
            "old:NoSchedule",
        );
        assert_eq!(
            taint_patch(&live, &[taint("new", "x")]).unwrap(),
            json!({
                "metadata": {"resourceVersion": "7", "annotations": {TAINTS: "new:NoSchedule"}},
                "spec": {"taints": [
                    {"key": "theirs", "effect": "NoSchedule"},
                    {"key": "new", "effect": "NoSchedule", "value": "x"}]}})
        );
    }

    #[test]
    fn what_is_as_it_should_be_needs_no_patch() {
        let live = node(&json!([{"key": "a", "effect": "NoSchedule"}]), "a:NoSchedule");
        assert_eq!(taint_patch(&live, &[taint("a", "")]), None);
    }

    #[test]
    fn an_equal_taint_that_somebody_else_set_is_not_claimed() {
        let live = node(&json!([{"key": "a", "effect": "NoSchedule"}]), "");
        assert_eq!(taint_patch(&live, &[taint("a", "")]), None);
    }
}
