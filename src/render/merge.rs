//! Laying a user's structure over bastide's.

use serde_json::Value;

/// Lays `over` over `base`: objects are merged key by key, everything else replaces, null takes away.
pub(super) fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(key);
                } else if let Some(inner) = base.get_mut(key) {
                    overlay(inner, value);
                } else {
                    base.insert(key.clone(), value.clone());
                }
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over.clone(),
    }
}

/// Every scalar or list of `value` with its dotted path.
pub(super) fn leaves(value: &Value) -> Vec<(String, &Value)> {
    fn walk<'v>(path: &str, value: &'v Value, found: &mut Vec<(String, &'v Value)>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, inner) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, inner, found);
                }
            }
            _ if path.is_empty() => {}
            other => found.push((path.to_owned(), other)),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::leaves;
    use super::overlay;

    #[test]
    fn objects_merge_other_values_replace_and_null_takes_away() {
        let mut base = json!({"a": {"b": 1, "c": [1, 2]}, "d": true, "e": 5});
        overlay(&mut base, &json!({"a": {"c": [3], "x": {"y": 1}}, "d": null, "e": "five"}));
        assert_eq!(base, json!({"a": {"b": 1, "c": [3], "x": {"y": 1}}, "e": "five"}));
        overlay(&mut base, &json!(null));
        assert_eq!(base["e"], "five");
    }

    #[test]
    fn leaves_are_named_by_their_path() {
        let value = json!({"a": {"b": 1, "c": []}, "d": {}});
        let found: Vec<_> = leaves(&value).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["a.b", "a.c", "d"]);
    }
}
