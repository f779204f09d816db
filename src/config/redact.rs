//! Keeps secrets of the file out of the snippets that a problem shows.
//!
//! A snippet holds the line of the problem and its neighbours, and a neighbour may be a private key. Masking keeps the
//! number of bytes and lines, so that positions stay right.

use std::ops::Range;

use crate::config::tree::Node;
use crate::config::tree::Value;

/// A key whose scalar values are masked, wherever it stands.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_a_place = ["_path", "_file", "_env", "-file", "_config"].iter().any(|ending| key.ends_with(ending));
    let names_a_secret =
        ["password", "secret", "token", "access_key", "ssh_key", "private_key"].iter().any(|part| key.contains(part));
    (names_a_secret && !names_a_place) || matches!(key.as_str(), "key" | "addons" | "custom_ca" | "extra_env")
}

/// Replaces every character of `range` but white space by asterisks, byte for byte.
pub(super) fn mask(text: &mut String, range: Range<usize>) {
    if !text.is_char_boundary(range.start) || !text.is_char_boundary(range.end) || range.start >= range.end {
        return;
    }
    let masked: String = text[range.clone()]
        .chars()
        .map(|c| if c.is_whitespace() { c.to_string() } else { "*".repeat(c.len_utf8()) })
        .collect();
    text.replace_range(range, &masked);
}

/// Masks by the look of the lines alone, for text that does not parse.
pub(super) fn mask_lines(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    // Indentation of the key whose block is being masked.
    let mut block: Option<usize> = None;
    let mut pem = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        let trimmed = bare.trim_start();
        let indent = bare.len() - trimmed.len();
        if block.is_some_and(|outer| !trimmed.is_empty() && indent <= outer) {
            block = None;
        }
        pem |= trimmed.contains("PRIVATE KEY-----") || trimmed.contains("AGE-SECRET-KEY");
        let hide_from = if pem || block.is_some() {
            Some(indent)
        } else {
            let item = trimmed.trim_start_matches(['-', ' ', '{', '"', '\'']);
            let at = bare.len() - item.len();
            item.split_once(':').filter(|(key, _)| is_secret_key(key.trim_end_matches(['"', '\'']))).map(|(key, _)| {
                block = Some(indent);
                at + key.len() + 1
            })
        };
        pem &= !trimmed.contains("-----END");
        match hide_from {
            Some(at) => {
                masked.push_str(&line[..at]);
                let hidden = &line[at..bare.len()];
                for c in hidden.chars() {
                    if c == ' ' { masked.push(' ') } else { (0..c.len_utf8()).for_each(|_| masked.push('*')) }
                }
                masked.push_str(&line[bare.len()..]);
            }
            None => masked.push_str(line),
        }
    }
    masked
}

/// Masks the scalars that stand under a secret key, however they are written.
pub(super) fn mask_tree(node: &Node, text: &mut String) {
    match &*node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter().for_each(|item| mask_tree(item, text)),
        Value::Mapping(entries) => {
            for entry in entries {
                if is_secret_key(&entry.key) {
                    mask_scalars(&entry.value, text);
                } else {
                    mask_tree(&entry.value, text);
                }
            }
        }
    }
}

fn mask_scalars(node: &Node, text: &mut String) {
    match &*node.value {
        Value::Scalar { .. } => mask(text, node.span.clone()),
        Value::Sequence(items) => items.iter().for_each(|item| mask_scalars(item, text)),
        Value::Mapping(_) => mask_tree(node, text),
    }
}
