//! YAML as a tree that remembers where everything stands, and how its scalars read.

use std::ops::Range;
use std::rc::Rc;

use serde_json::Map;
use serde_json::Number;
use serde_json::Value as Json;

/// A value and its place. Cheap to copy: an alias shares what its anchor holds.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Rc<Value>,
    /// Bytes in the text.
    pub(super) span: Range<usize>,
    /// How many values it holds with all aliases written out, itself included.
    pub(super) size: usize,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// Unquoted and untagged: may be null, a boolean or a number.
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// Merge keys resolved, keys unique, in the order of the file.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&*self.value, Value::Scalar { text, plain: true } if is_null_word(text))
    }

    /// Null, an empty text, an empty list or an empty map: what a generated file writes for "not given".
    pub(super) fn is_empty(&self) -> bool {
        match &*self.value {
            Value::Scalar { text, .. } => text.is_empty() || self.is_null(),
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
        }
    }

    /// Asks for nothing: empty, false or zero all the way down.
    pub(super) fn is_inert(&self) -> bool {
        match &*self.value {
            Value::Scalar { text, .. } => self.is_empty() || text == "0" || boolean_word(text) == Some(false),
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.iter().all(|entry| entry.value.is_inert()),
        }
    }

    /// A single value's text.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &*self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// For people: what kind of value this is.
    pub(super) fn kind(&self) -> &'static str {
        match &*self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a map",
        }
    }

    /// The value as JSON, with the types that `yaml.v2` and so RKE and Kubernetes give to plain scalars.
    pub(super) fn json(&self) -> Json {
        match &*self.value {
            Value::Scalar { text, plain } => scalar_json(text, *plain),
            Value::Sequence(items) => Json::Array(items.iter().map(Self::json).collect()),
            Value::Mapping(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect::<Map<_, _>>())
            }
        }
    }
}

pub(super) fn is_null_word(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// YAML 1.1's booleans, as RKE reads them.
pub(super) fn boolean_word(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    // `yEs` is a text in every YAML.
    if text != lower && text != lower.to_ascii_uppercase() && text.get(1..) != lower.get(1..) {
        return None;
    }
    match lower.as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

fn scalar_json(text: &str, plain: bool) -> Json {
    if !plain {
        return Json::String(text.to_owned());
    }
    if is_null_word(text) {
        return Json::Null;
    }
    // `y` and `n` alone are left as texts: they are names more often than booleans.
    if text.len() > 1
        && let Some(boolean) = boolean_word(text)
    {
        return Json::Bool(boolean);
    }
    if let Some(number) = integer(text) {
        return Json::Number(number);
    }
    let looks_like_a_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    if looks_like_a_number && let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64) {
        return Json::Number(number);
    }
    Json::String(text.to_owned())
}

/// Decimal, `0x`, `0o`, `0b` and YAML 1.1's leading-zero octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    if negative {
        let magnitude = i64::from_str_radix(digits, radix).ok()?;
        Some(Number::from(-magnitude))
    } else {
        u64::from_str_radix(digits, radix).ok().map(Number::from)
    }
}
