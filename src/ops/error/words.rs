//! The lists in errors.

use std::collections::BTreeMap;

use crate::model::HostName;
use crate::model::LockHolder;
use crate::route::Blocked;

pub(super) fn holders(hosts: &BTreeMap<HostName, Option<LockHolder>>) -> String {
    let words = hosts.iter().map(|(host, holder)| match holder {
        Some(LockHolder { who, command, .. }) => format!("{host} is held by {who} now (`{command}`)"),
        None => format!("nobody holds {host} now"),
    });
    words.collect::<Vec<_>>().join(", ")
}

pub(super) fn blocked_words(blocked: &Blocked) -> String {
    match blocked {
        Blocked::NotKept => "its contents are no longer kept".to_owned(),
        Blocked::Barrier { at, barrier } => {
            format!("revision {at} cannot be walked back over ({}): {}", barrier.name, barrier.why)
        }
        Blocked::Clash(clashes) => clashes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

pub(super) fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

pub(super) fn names(hosts: &[HostName]) -> String {
    hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
}
