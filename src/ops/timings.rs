//! Where the time of a run went, and how many channels it opened.

use std::collections::BTreeMap;

use crate::apply::Report;
use crate::ops::Talk;
use crate::ops::prepare::Prepared;

/// How many channels each host was asked for.
pub(super) fn counts(prepared: &Prepared, talk: &dyn Talk) {
    for (host, channels) in prepared.channels() {
        talk.show(&format!("{host}: {} session channels, {} forwards", channels.sessions, channels.forwards));
    }
}

/// What the time was spent on, longest first.
pub(super) fn timings(report: &Report) -> String {
    let mut rows: Vec<_> = report.timings.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.took));
    let mut by_stage: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in rows {
        let host = row.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
        let line = format!("  {:7.2} s  {host}{}", row.took.as_secs_f64(), row.what);
        by_stage.entry(&row.stage).or_default().push(line);
    }
    by_stage.into_iter().map(|(stage, lines)| format!("{stage}\n{}\n", lines.join("\n"))).collect()
}
