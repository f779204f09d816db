//! `upgrade_strategy`: how many nodes may be away while a cluster changes.

use std::num::NonZeroU32;
use std::num::NonZeroUsize;

use crate::config::field::Field;
use crate::config::field::Section;

/// RKE changes no more hosts at once, whatever the file says.
const MOST: usize = 50;

/// A number of nodes, or a part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Nodes(NonZeroU32),
    /// So many of a hundred.
    Percent(NonZeroU32),
}

impl Default for Share {
    /// RKE's, for workers.
    fn default() -> Self {
        Self::Percent(NonZeroU32::MIN.saturating_add(9))
    }
}

impl Share {
    /// How many of `nodes` that are: rounded down, at least one, at most fifty, as RKE reads it.
    pub fn of(self, nodes: usize) -> NonZeroUsize {
        let number = match self {
            Self::Nodes(number) => usize::try_from(number.get()).unwrap_or(usize::MAX),
            Self::Percent(part) => nodes.saturating_mul(usize::try_from(part.get()).unwrap_or(0)) / 100,
        };
        NonZeroUsize::new(number.min(MOST)).unwrap_or(NonZeroUsize::MIN)
    }

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a number of nodes or a percentage above 0");
        match text.strip_suffix('%') {
            Some(part) => part.parse().ok().filter(|part: &NonZeroU32| part.get() <= 100).map(Self::Percent),
            None => text.parse().ok().map(Self::Nodes),
        }
        .ok_or_else(wrong)
    }
}

/// How many workers may be away at once. What bastide does not do yet is said.
pub(super) fn max_unavailable_worker(top: &Section) -> Share {
    let Some(section) = top.section("upgrade_strategy") else { return Share::default() };
    let share = |key| section.given(key).and_then(|field| Some((field.parsed(Share::read)?, field)));
    let workers = share("max_unavailable_worker").map(|(share, _)| share);
    if let Some((most, field)) = share("max_unavailable_controlplane")
        && most != Share::Nodes(NonZeroU32::MIN)
    {
        field.warn_with("ignored: control planes change one at a time", "write 1, RKE's default, or remove it");
    }
    if let Some(field) = section.given("drain")
        && field.boolean() == Some(true)
    {
        field.warn_with(
            "ignored: bastide drains no node yet",
            "drain nodes yourself before a change that restarts them",
        );
    }
    if let Some(drain) = section.get("node_drain_input").and_then(|field| Field::section(&field)) {
        for key in ["force", "ignore_daemonsets", "delete_local_data"] {
            if let Some(field) = drain.get(key) {
                field.boolean();
            }
        }
        for key in ["grace_period", "timeout"] {
            if let Some(field) = drain.get(key) {
                field.number::<i32>(-1, 86_400);
            }
        }
        drain.finish();
    }
    section.finish();
    workers.unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Share;

    #[test]
    fn a_part_is_rounded_down_and_never_nothing_and_never_too_much() {
        let of = |text: &str, nodes| Share::read(text).unwrap().of(nodes).get();
        assert_eq!([of("10%", 25), of("10%", 3), of("10%", 0), of("100%", 7), of("33%", 10)], [2, 1, 1, 7, 3]);
        assert_eq!([of("4", 10), of("4", 2), of("100%", 500), of("200", 500)], [4, 4, 50, 50]);
        assert_eq!(Share::default().of(40).get(), 4);
        for text in ["0", "0%", "-1", "101%", "x", "%", "1.5"] {
            assert!(Share::read(text).is_err(), "{text}");
        }
    }
}
