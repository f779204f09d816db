//! Merging a kubeconfig into another one.

use serde_json::Value;
use serde_json::json;

/// `incoming` merged into `existing`: clusters, users and contexts of the same name are replaced, everything else stays,
/// and the current context becomes the incoming one.
///
/// Both are YAML texts; an empty `existing` is an empty kubeconfig. The error says what could not be read.
pub(super) fn merge(existing: &str, incoming: &str) -> Result<String, String> {
    let mut target: Value = if existing.trim().is_empty() {
        json!({"apiVersion": "v1", "kind": "Config"})
    } else {
        serde_saphyr::from_str(existing).map_err(|error| format!("the existing kubeconfig: {error}"))?
    };
    let source: Value = serde_saphyr::from_str(incoming).map_err(|error| format!("the new kubeconfig: {error}"))?;
    if !target.is_object() {
        return Err("the existing kubeconfig is not a mapping".to_owned());
    }
    for section in ["clusters", "users", "contexts"] {
        let ours = source[section].as_array().cloned().unwrap_or_default();
        let mut entries = target[section].as_array().cloned().unwrap_or_default();
        entries.retain(|entry| !ours.iter().any(|new| new["name"] == entry["name"]));
        entries.extend(ours);
        target[section] = Value::Array(entries);
    }
    target["current-context"] = source["current-context"].clone();
    serde_saphyr::to_string(&target).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::merge;

    const NEW: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: demo\n  cluster: {server: https://b:6443}\n\
        users:\n- name: demo-admin\n  user: {}\ncontexts:\n- name: demo\n  context: {cluster: demo, user: demo-admin}\n\
        current-context: demo\n";

    #[test]
    fn the_same_name_is_replaced_and_others_stay() {
        let old = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: https://w}\n\
            - name: demo\n  cluster: {server: https://a:6443}\nusers: []\ncontexts: []\n";
        let merged: serde_json::Value = serde_saphyr::from_str(&merge(old, NEW).unwrap()).unwrap();
        let servers: Vec<_> =
            merged["clusters"].as_array().unwrap().iter().map(|entry| entry["cluster"]["server"].clone()).collect();
        assert_eq!(servers, ["https://w", "https://b:6443"]);
        assert_eq!(merged["current-context"], "demo");
    }

    #[test]
    fn nothing_becomes_a_kubeconfig() {
        let merged: serde_json::Value = serde_saphyr::from_str(&merge("", NEW).unwrap()).unwrap();
        assert_eq!(merged["kind"], "Config");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        assert!(merge("- a\n- b\n", NEW).is_err());
    }
}
