//! TOML of containerd's configuration, written from a structure (TOML 1.0).

use std::fmt::Write as _;

use serde_json::Map;
use serde_json::Value;

/// `table` as a TOML document: plain values first, then its tables, each under its full name.
///
/// Null has no form in TOML: such entries are left out, which is how a default is taken away.
pub(super) fn document(table: &Map<String, Value>) -> String {
    let mut out = String::new();
    write_table(&mut out, table, &mut Vec::new());
    out
}

fn write_table(out: &mut String, table: &Map<String, Value>, path: &mut Vec<String>) {
    for (key, value) in table {
        if !value.is_null() && !value.is_object() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{} = {}", key_text(key), inline(value));
        }
    }
    for (key, value) in table {
        if let Value::Object(inner) = value {
            path.push(key_text(key));
            if inner.is_empty() || inner.values().any(|value| !value.is_object() && !value.is_null()) {
                let _ = writeln!(out, "\n[{}]", path.join("."));
            }
            write_table(out, inner, path);
            path.pop();
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        // TOML's basic strings are JSON's, but for DEL, which JSON leaves as it is.
        Value::String(text) => Value::String(text.clone()).to_string().replace('\u{7f}', "\\u007f"),
        Value::Array(list) => {
            format!("[{}]", list.iter().filter(|v| !v.is_null()).map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{} = {}", key_text(key), inline(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn key_text(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { inline(&Value::String(key.to_owned())) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn tables_stand_behind_plain_values_under_their_full_name() {
        let value = json!({
            "z": 1,
            "plugins": {"io.containerd.cri": {"a": {"options": {"on": true, "list": ["a\"b", "\n"]}}}},
            "gone": null,
            "version": 3,
        });
        assert_eq!(
            document(value.as_object().unwrap()),
            "version = 3\nz = 1\n\n[plugins.\"io.containerd.cri\".a.options]\nlist = [\"a\\\"b\", \"\\n\"]\non = true\n"
        );
    }
}
