//! What a server-side apply would change, and whose it is. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::api::FIELD_MANAGER;

/// What the server writes by itself: never a difference.
const SERVER_OWNED: [&str; 5] = ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"];

/// One step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

/// A place where two objects differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    steps: Vec<Step>,
    /// `spec.template.spec.containers[name=coredns].image`.
    shown: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Where `after` differs from `live`, but for status and what the server writes by itself.
pub(super) fn differences(live: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(&stripped(live), &stripped(after), &mut Vec::new(), String::new(), &mut found);
    found
}

/// Where `live` lacks what `wanted` says. Weaker than a dry run: it does not see what ought to be gone.
pub(super) fn uncovered(live: &Value, wanted: &Value) -> Vec<Difference> {
    differences(live, &overlaid(live, wanted))
}

/// Other managers that own one of `differences` in `live`, with the field.
pub(super) fn owners(live: &Value, differences: &[Difference]) -> Vec<(String, String)> {
    let mut owners = BTreeSet::new();
    for entry in live["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let Some(manager) = entry["manager"].as_str() else { continue };
        if manager == FIELD_MANAGER && entry["operation"] == "Apply" {
            continue;
        }
        for difference in differences {
            if owns(&entry["fieldsV1"], live, &difference.steps) {
                owners.insert((manager.to_owned(), difference.to_string()));
            }
        }
    }
    owners.into_iter().collect()
}

fn stripped(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in SERVER_OWNED {
            metadata.remove(field);
        }
    }
    object
}

fn walk(live: &Value, after: &Value, steps: &mut Vec<Step>, shown: String, found: &mut Vec<Difference>) {
    match (live, after) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                steps.push(Step::Field(key.clone()));
                let shown = field(&shown, key);
                walk(
                    left.get(key).unwrap_or(&Value::Null),
                    right.get(key).unwrap_or(&Value::Null),
                    steps,
                    shown,
                    found,
                );
                steps.pop();
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (one, other)) in left.iter().zip(right).enumerate() {
                steps.push(Step::Item(at));
                walk(one, other, steps, format!("{shown}[{}]", label(one, at)), found);
                steps.pop();
            }
        }
        _ if live != after => found.push(Difference { steps: steps.clone(), shown }),
        _ => {}
    }
}

/// A key with dots or slashes, such as a label's, is put into brackets.
fn field(before: &str, key: &str) -> String {
    if key.contains(['.', '/']) {
        format!("{before}[{key}]")
    } else if before.is_empty() {
        key.to_owned()
    } else {
        format!("{before}.{key}")
    }
}

fn label(item: &Value, at: usize) -> String {
    item["name"].as_str().map_or_else(|| at.to_string(), |name| format!("name={name}"))
}

fn overlaid(live: &Value, wanted: &Value) -> Value {
    match (live, wanted) {
        (Value::Object(left), Value::Object(right)) => {
            let mut out = left.clone();
            for (key, value) in right {
                let below = overlaid(left.get(key).unwrap_or(&Value::Null), value);
                out.insert(key.clone(), below);
            }
            Value::Object(out)
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            Value::Array(left.iter().zip(right).map(|(one, other)| overlaid(one, other)).collect())
        }
        _ => wanted.clone(),
    }
}

/// Whether a `fieldsV1` tree owns the place, something above it as a whole, or something below it.
fn owns(fields: &Value, live: &Value, steps: &[Step]) -> bool {
    let Some(fields) = fields.as_object() else { return false };
    let Some((first, rest)) = steps.split_first() else { return !fields.is_empty() };
    // An empty set at a field means that its whole value is owned (atomic lists and maps, scalars).
    let deeper = |below: &Value, value: &Value| {
        below.as_object().is_some_and(serde_json::Map::is_empty) || owns(below, value, rest)
    };
    match first {
        Step::Field(name) => fields.get(&format!("f:{name}")).is_some_and(|below| deeper(below, &live[name])),
        Step::Item(at) => fields.iter().any(|(key, below)| names(key, &live[at], *at) && deeper(below, &live[at])),
    }
}

/// Whether a list key of `fieldsV1` (`k:{…}`, `v:…`, `i:…`) means this item.
fn names(key: &str, item: &Value, at: usize) -> bool {
    match key.split_once(':') {
        Some(("k", keys)) => serde_json::from_str::<Value>(keys).is_ok_and(|keys| {
            keys.as_object().is_some_and(|keys| keys.iter().all(|(name, value)| &item[name] == value))
        }),
        Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok_and(|value| &value == item),
        Some(("i", index)) => index == at.to_string(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::differences;
    use super::owners;
    use super::uncovered;

    fn shown(live: &serde_json::Value, after: &serde_json::Value) -> Vec<String> {
        differences(live, after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_server_writes_by_itself_is_no_difference() {
        let live =
            json!({"metadata": {"resourceVersion": "1", "generation": 1, "managedFields": [1]}, "status": {"a": 1}});
        let after = json!({"metadata": {"resourceVersion": "2", "generation": 2}, "status": {}});
        assert_eq!(shown(&live, &after), Vec::<String>::new());
    }

    #[test]
    fn a_changed_a_new_and_a_missing_field_are_named_with_the_item_they_are_in() {
        let live = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}], "gone": true},
            "metadata": {"labels": {"app.kubernetes.io/name": "a"}}});
        let after = json!({"spec": {"containers": [{"name": "a", "image": "x:2"}], "replicas": 2},
            "metadata": {"labels": {"app.kubernetes.io/name": "b"}}});
        assert_eq!(
            shown(&live, &after),
            ["metadata.labels[app.kubernetes.io/name]", "spec.containers[name=a].image", "spec.gone", "spec.replicas"]
        );
    }

    #[test]
    fn the_owner_of_a_list_item_is_found_by_its_key() {
        let live = json!({
            "metadata": {"managedFields": [
                {"manager": "bastide", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {
                    "f:replicas": {}, "f:ports": {"k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:name": {}}}}}},
                {"manager": "other", "operation": "Update", "fieldsV1": {"f:spec": {"f:whole": {}}}}]},
            "spec": {"replicas": 1, "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}], "whole": {"a": 1}}});
        let after = json!({"metadata": {},
            "spec": {"replicas": 2, "ports": [{"port": 53, "protocol": "UDP", "name": "x"}], "whole": {"a": 2}}});
        let own = |manager: &str, field: &str| (manager.to_owned(), field.to_owned());
        assert_eq!(
            owners(&live, &differences(&live, &after)),
            [
                own("kubectl-edit", "spec.ports[name=dns].name"),
                own("kubectl-edit", "spec.replicas"),
                own("other", "spec.whole.a")
            ]
        );
    }

    #[test]
    fn an_object_that_holds_all_that_is_wanted_is_covered() {
        let live = json!({"spec": {"a": 1, "defaulted": 2, "list": [{"x": 1, "y": 2}]}});
        assert_eq!(uncovered(&live, &json!({"spec": {"a": 1, "list": [{"x": 1}]}})), []);
        assert_eq!(uncovered(&live, &json!({"spec": {"a": 2}})).len(), 1);
    }
}
