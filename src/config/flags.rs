//! Whether a flag or feature gate exists in the program of that minor (design 11.8).
//!
//! One table a minor under `flags/`, written from the real programs by tests/bed/flag-table.py. A new minor is a new file
//! and a line in [`TABLES`].

use std::collections::BTreeMap;

use crate::config::cluster::ComponentSettings;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::suggest::nearest;

const TABLES: [(u16, &str); 2] = [(36, include_str!("flags/v1.36.txt")), (37, include_str!("flags/v1.37.txt"))];
const REMOVED: &str = include_str!("flags/removed.txt");

/// Programs whose deprecated flags are the ordinary way to set something without writing their whole configuration file.
const CONFIGURED_BY_FILE: [&str; 2] = ["kubelet", "kube-scheduler"];

/// What one minor's programs accept.
pub(super) struct FlagTable {
    minor: u16,
    /// Section heading to names with their mark.
    sections: BTreeMap<&'static str, BTreeMap<&'static str, &'static str>>,
}

impl FlagTable {
    /// The table of a minor, if there is one.
    pub(super) fn of(minor: u16) -> Option<Self> {
        let (_, text) = TABLES.iter().find(|(known, _)| *known == minor)?;
        let mut sections: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        let mut heading = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                heading = name;
            } else {
                let (name, mark) = line.split_once(' ').unwrap_or((line, ""));
                sections.entry(heading).or_default().insert(name, mark);
            }
        }
        Some(Self { minor, sections })
    }

    fn flag(&self, program: &str, name: &str) -> Option<&'static str> {
        self.sections.get(program)?.get(name).copied()
    }

    fn gates(&self, program: &str) -> Vec<&'static str> {
        let own = format!("gates {program}");
        let shared = if program == "etcd" { None } else { self.sections.get("gates") };
        [shared, self.sections.get(own.as_str())].into_iter().flatten().flat_map(BTreeMap::keys).copied().collect()
    }
}

/// Checks every flag of one component. `section` is its part of the file, `program` its name.
pub(super) fn check(section: Option<&Section>, program: &str, settings: &ComponentSettings, table: Option<&FlagTable>) {
    let Some(section) = section else { return };
    let fields = ["extra_args", "extra_args_array"].into_iter().filter_map(|key| section.get(key));
    for (name, field) in fields.flat_map(|field| field.members()) {
        let given = settings.extra_args.contains_key(&name) || settings.extra_args_array.contains_key(&name);
        if given
            && !reserved(program, &name, &field)
            && let Some(table) = table
        {
            check_flag(table, program, &name, &field);
        }
    }
}

/// Flags whose place is the AuthenticationConfiguration, which bastide writes as a whole.
fn reserved(program: &str, name: &str, field: &Field) -> bool {
    if program != "kube-apiserver" {
        return false;
    }
    let listed = field.node.scalar().is_none();
    match name {
        _ if listed && (name == "anonymous-auth" || name.starts_with("oidc-")) => {
            field.error_with("it takes one value", "write it under extra_args");
        }
        "authentication-config" => field.error_with(
            "bastide renders the AuthenticationConfiguration itself",
            "remove it: oidc-* and anonymous-auth become part of bastide's; a configuration of your own is not supported yet",
        ),
        _ => return false,
    }
    true
}

fn check_flag(table: &FlagTable, program: &str, name: &str, field: &Field) {
    match table.flag(program, name) {
        Some("deprecated") if !CONFIGURED_BY_FILE.contains(&program) => {
            field.warn(format!("{program} of v1.{} calls this flag deprecated", table.minor));
        }
        Some(_) => {}
        None => {
            let (message, hint) = if let Some(hint) = removed(program, name, table.minor) {
                (format!("{program} of v1.{} no longer has the flag --{name}", table.minor), hint.to_owned())
            } else {
                let known = table.sections.get(program).into_iter().flat_map(BTreeMap::keys).copied();
                let hint = match nearest(name, known) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => "remove it: the program would not start with it".to_owned(),
                };
                (format!("{program} of v1.{} has no flag --{name}", table.minor), hint)
            };
            field.error_at_key(message, Some(hint));
        }
    }
    if name == "feature-gates" {
        check_gates(table, program, field);
    }
}

fn removed(program: &str, name: &str, minor: u16) -> Option<&'static str> {
    REMOVED.lines().find_map(|line| {
        let mut words = line.splitn(4, ' ');
        let (owner, flag, since, hint) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let since: u16 = since.parse().ok()?;
        let owned = owner == program || (owner == "*" && program != "etcd");
        (owned && flag == name && since <= minor).then_some(hint)
    })
}

/// `feature-gates`, as one text or as a list of texts.
fn check_gates(table: &FlagTable, program: &str, field: &Field) {
    let list = field.node.kind() == "a list";
    let values = if list { field.items() } else { vec![field.clone()] };
    let known = table.gates(program);
    for value in values {
        let Some(text) = value.text() else { continue };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, state) = part.split_once('=').unwrap_or((part, ""));
            let name = name.strip_prefix("kube:").unwrap_or(name);
            if !matches!(
                state,
                "true" | "false" | "True" | "False" | "TRUE" | "FALSE" | "1" | "0" | "t" | "f" | "T" | "F"
            ) {
                value
                    .error_with(format!("{part:?} is not a feature gate with its value"), format!("write {name}=true"));
            } else if !known.contains(&name) {
                let hint = match nearest(name, known.iter().copied()) {
                    Some(word) if word.len().abs_diff(name.len()) <= 2 => format!("did you mean `{word}`?"),
                    _ => "remove it: what has become a fixed part of Kubernetes needs no gate".to_owned(),
                };
                value.error_with(
                    format!("{program} of v1.{} has no feature gate {name} that can be set", table.minor),
                    hint,
                );
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::FlagTable;
    use super::REMOVED;
    use super::TABLES;

    const PROGRAMS: [&str; 6] =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "etcd"];

    #[test]
    fn every_table_knows_every_program() {
        for (minor, _) in TABLES {
            let table = FlagTable::of(minor).unwrap();
            for program in PROGRAMS {
                assert!(table.sections[program].len() > 40, "v1.{minor} {program}");
                assert_eq!(table.flag(program, "feature-gates"), Some(""), "v1.{minor} {program}");
            }
            assert!(table.gates("kubelet").len() > 100 && table.gates("etcd").len() > 5);
        }
        assert!(FlagTable::of(20).is_none());
    }

    #[test]
    fn what_is_called_removed_is_in_no_table_of_that_minor_or_a_later_one() {
        for line in REMOVED.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let since: u16 = words[2].parse().unwrap();
            for (minor, _) in TABLES.iter().filter(|(minor, _)| *minor >= since) {
                let table = FlagTable::of(*minor).unwrap();
                let owners: Vec<&str> = if words[0] == "*" { PROGRAMS[..5].to_vec() } else { vec![words[0]] };
                for owner in owners {
                    assert_eq!(table.flag(owner, words[1]), None, "v1.{minor}: {line}");
                }
            }
        }
    }
}
