//! Input of every kind is an answer, never a panic, and the answer does not take long.

use std::fmt::Write;
use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;

use super::read;
use super::said;
use super::with;

/// What is said about a text that must be refused within `seconds` (generous: the machine may be busy).
fn refused(text: &str, seconds: u64) -> String {
    let begun = Instant::now();
    let errors = read(text).unwrap_err();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(seconds), "took {took:?}");
    errors.problems[0].to_string()
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "b{level}: &a{level} [{aliases}]").unwrap();
    }
    assert_eq!(refused(&text, 5), "more than 200000 values once its aliases are written out");
}

#[test]
fn a_merge_bomb_is_refused() {
    let mut text = "a: &a {".to_owned();
    (0..1_900).for_each(|number| write!(text, "k{number}: 1, ").unwrap());
    writeln!(text, "}}").unwrap();
    (0..12).for_each(|number| writeln!(text, "b{number}: {{<<: *a}}").unwrap());
    assert_eq!(refused(&text, 20), "merge keys bring in more than 20000 keys");
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert_eq!(refused("a: &a [*a]\n", 5), "an alias that stands inside its own anchor");
    assert!(refused("a: *nobody\n", 5).contains("not YAML"));
}

#[test]
fn deep_nesting_is_refused() {
    assert!(refused(&"[".repeat(100_000), 5).contains("not YAML"));
    assert!(!refused(&format!("a: {}", "- ".repeat(100_000)), 5).is_empty());
    let mut text = String::new();
    (0..500).for_each(|level| writeln!(text, "{}a:", " ".repeat(level)).unwrap());
    assert!(!refused(&text, 5).is_empty());
}

#[test]
fn a_large_file_is_refused_before_it_is_read() {
    let said = refused(&"a".repeat(10 << 20), 5);
    assert!(said.ends_with("the file has 10485760 bytes, more than the 4194304 that are read"), "{said}");
    let mut keys = String::new();
    (0..100_000).for_each(|number| writeln!(keys, "k{number}: 1").unwrap());
    assert_eq!(refused(&keys, 20), "more than 2000 keys in one map");
    assert_eq!(refused(&"- a\n".repeat(1 << 20), 60), "more than 200000 values");
}

#[test]
fn a_thousand_wrong_nodes_do_not_take_a_minute() {
    let nodes = "- {adress: 192.0.2.11, user: root, role: [wroker]}\n".repeat(1_000);
    assert!(!refused(&format!("nodes:\n{nodes}"), 20).is_empty());
}

#[test]
fn other_bytes_than_text_are_refused() {
    for text in ["\u{1}\u{2}", "\u{feff}\u{feff}", "a: \u{7f}\u{0}", "\t\t- a", "%YAML 9.9\n---\n", "--- !!binary x"] {
        assert!(read(text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let text = with("cluster_name: demo\nservices:\n  kubelet:\n    cluster_domain: a.example\n");
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(read(&windows).unwrap(), read(&text).unwrap());
    assert_eq!(said(&format!("{windows}oops: 1\r\n")).lines().next(), Some("9:1 error: oops: unknown key"));
}

/// Pieces that mean something in a cluster.yml or in YAML.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "nodes",
        "address",
        "192.0.2.11",
        "role",
        "controlplane",
        "services",
        "kube-api",
        "extra_args",
        "bastide",
        "ssh",
        "hosts",
        "taints",
        "labels",
        "&a",
        "*a",
        "<<",
        "!!str",
        "~",
        "null",
        "yes",
        "0x1F",
        "-1",
        "1e9",
        "''",
        "\"\\u00e9\"",
        "|",
        ">-",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "#",
        "'",
        "\"",
        "---",
        "...",
        "é",
        "%",
    ];
    prop_oneof![5 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,300}") {
        if let Err(errors) = read(&text) {
            prop_assert!(errors.error_count() > 0);
        }
    }

    #[test]
    fn anything_like_yaml_is_answered(pieces in proptest::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        for text in [with(&text), text] {
            if let Err(errors) = read(&text) {
                prop_assert!(errors.error_count() > 0);
            }
        }
    }

    #[test]
    fn a_damaged_file_is_answered(at in 0_usize..2_000, noise in "[\\PC\\n\\t]{1,4}", length in 0_usize..20) {
        let text = include_str!("full.yml");
        let mut characters: Vec<char> = text.chars().collect();
        let at = at % characters.len();
        let end = (at + length).min(characters.len());
        characters.splice(at..end, noise.chars());
        let _ = read(&characters.into_iter().collect::<String>());
    }
}
