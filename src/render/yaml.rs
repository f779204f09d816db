//! YAML of bastide's own files: block style, text always in double quotes, so that no value can become structure.

use std::fmt::Write as _;

use serde_json::Value;

/// A scalar on one line. Text stands in double quotes with everything but printable ASCII escaped (YAML 1.2.2, 5.7).
pub(super) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// A structure in block style, keys in the order of `value`, ending with a newline.
pub(super) fn block(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_value(&mut out, value, 0, Place::Start),
        Value::Array(list) if !list.is_empty() => write_value(&mut out, value, 0, Place::Start),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

/// Where the writer stands on its line.
#[derive(Clone, Copy)]
enum Place {
    /// At the start of an indented line, or right behind `- `.
    Start,
    /// Behind `key:`.
    Key,
}

fn write_value(out: &mut String, value: &Value, indent: usize, place: Place) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut first = true;
            if matches!(place, Place::Key) {
                out.push('\n');
                first = false;
            }
            for (key, inner) in map {
                if !first {
                    out.push_str(&" ".repeat(indent));
                }
                first = false;
                out.push_str(&key_text(key));
                out.push(':');
                write_value(out, inner, indent + 2, Place::Key);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let mut first = true;
            if matches!(place, Place::Key) {
                out.push('\n');
                first = false;
            }
            for inner in list {
                if !first {
                    out.push_str(&" ".repeat(indent));
                }
                first = false;
                out.push_str("- ");
                write_value(out, inner, indent + 2, Place::Start);
            }
        }
        other => {
            if matches!(place, Place::Key) {
                out.push(' ');
            }
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

/// A key: plain where it can only be text, else quoted.
fn key_text(key: &str) -> String {
    const NOT_TEXT: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric())
        && !NOT_TEXT.contains(&key.to_ascii_lowercase().as_str());
    if plain { key.to_owned() } else { quote(key) }
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            ' '..='~' => out.push(character),
            other => {
                let code = u32::from(other);
                // Writing to a String cannot fail.
                let _ = if code > 0xffff { write!(out, "\\U{code:08x}") } else { write!(out, "\\u{code:04x}") };
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::json;

    use super::block;

    #[test]
    fn nested_structures_keep_their_shape() {
        let value = json!({
            "list": [{"a": 1, "b": [true, null]}, [[], {}], "x"],
            "map": {"deep": {"deeper": "v"}},
            "no": "yes",
        });
        assert_eq!(
            block(&value),
            "list:\n  - a: 1\n    b:\n      - true\n      - null\n  - - []\n    - {}\n  - \"x\"\nmap:\n  deep:\n    deeper: \"v\"\n\"no\": \"yes\"\n"
        );
    }

    fn structures() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ \"'{}#:%&*!|>\\-\n\r\t\u{85}\u{2028}\u{feff}]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,10}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back_as_itself(value in structures()) {
            let text = block(&value);
            let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            prop_assert_eq!(read, value);
        }
    }
}
