//! Data as text or JSON.

use std::fmt::Write as _;

use crate::cli::args::OutputFormat;
use crate::cli::table::drawn;
use crate::cli::table::table;
use crate::model::RevisionState;
use crate::model::utc as time;
use crate::ops::Change;
use crate::ops::Diff;
use crate::ops::Overall;
use crate::ops::Past;
use crate::ops::Status;
use crate::store::Contents;
use crate::store::Examined;
use crate::store::Pruned;

/// The revisions, newest last.
pub(super) fn history(past: &[Past], format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        return format!("{:#}\n", serde_json::json!({ "schema": 1, "revisions": past }));
    }
    let mut table = table(&["REVISION", "WHEN", "WHO", "COMMAND", "KUBERNETES", "STATE", "WHY"]);
    for Past { revision, undone, kept } in past {
        let mut state = state(&revision.state);
        if let Some(undone) = undone {
            state = format!("{state}, rolled back to {} by {}", undone.to, undone.by);
        }
        if !kept {
            state.push_str(", contents dropped");
        }
        let barrier = revision.barrier.as_ref().map(|barrier| format!("; barrier {}: {}", barrier.name, barrier.why));
        table.add_row([
            revision.id.to_string(),
            time(revision.at),
            revision.who.clone(),
            revision.command.clone(),
            revision.kubernetes.to_string(),
            state,
            format!("{}{}", revision.why, barrier.unwrap_or_default()),
        ]);
    }
    drawn(table)
}

/// What differs, by host; objects last.
pub(super) fn diff(diff: &Diff, format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        return serde_json::to_string_pretty(diff).map(|text| text + "\n").unwrap_or_default();
    }
    let mut out = format!("--- {}\n+++ {}\n", diff.from, diff.to);
    for difference in &diff.differences {
        let host = difference.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
        let (sign, word) = match difference.change {
            Change::Added => ('+', ""),
            Change::Removed => ('-', ""),
            Change::Changed if difference.lines.is_empty() => ('~', " (changed)"),
            Change::Changed => ('~', ""),
        };
        let _ = writeln!(out, "{sign} {host}{}{word}", difference.what);
        for line in &difference.lines {
            let _ = writeln!(out, "    {line}");
        }
    }
    match (diff.differences.is_empty(), diff.notes.is_empty()) {
        (true, true) => out.push_str("nothing differs\n"),
        (true, false) => out.push_str("nothing differs of what could be compared\n"),
        (false, _) => {}
    }
    for note in &diff.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// What a pruning did.
pub(super) fn pruned(pruned: &Pruned) -> String {
    let names: Vec<_> = pruned.dropped.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => "nothing to drop\n".to_owned(),
        names => format!("dropped the contents of revisions {} ({} bytes)\n", names.join(", "), pruned.freed),
    }
}

/// What a look at the state folder found.
pub(super) fn examined(examined: &Examined, format: OutputFormat) -> String {
    let word = |contents: &Contents| match contents {
        Contents::Whole => "whole".to_owned(),
        Contents::NotKept => "not kept".to_owned(),
        Contents::Damaged(why) => format!("lost: {why}"),
    };
    let (files, bytes) = examined.sealed;
    if format == OutputFormat::Json {
        let revisions: Vec<_> = examined
            .revisions
            .iter()
            .map(|(revision, contents)| serde_json::json!({ "revision": revision.id, "contents": word(contents) }))
            .collect();
        let found = serde_json::json!({
            "schema": 1, "well": examined.is_well(), "revisions": revisions, "findings": examined.findings,
            "sealed_files": files, "sealed_bytes": bytes,
        });
        return format!("{found:#}\n");
    }
    let mut table = table(&["REVISION", "STATE", "CONTENTS"]);
    for (revision, contents) in &examined.revisions {
        table.add_row([revision.id.to_string(), state(&revision.state), word(contents)]);
    }
    let mut out = format!("{}{files} sealed files, {bytes} bytes\n", drawn(table));
    for finding in &examined.findings {
        let _ = writeln!(out, "{finding}");
    }
    out
}

/// Revision, hosts, certificates and drift.
pub(super) fn status(status: &Status, format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        return serde_json::to_string_pretty(status).map(|text| text + "\n").unwrap_or_default();
    }
    let mut out = format!("cluster {}: {}\n", status.cluster, word(status.health));
    if let Some(revision) = &status.revision {
        let _ = writeln!(
            out,
            "revision {} ({}), Kubernetes {}, {} by {}",
            revision.id,
            state(&revision.state),
            revision.kubernetes,
            time(revision.at),
            revision.who
        );
    }
    let mut table = table(&["HOST", "KUBELET", "COMPONENTS", "DRIFT", "LOCK"]);
    for (name, host) in &status.hosts {
        let ill = host.components.iter().filter_map(|(component, reason)| Some((component, reason.as_ref()?)));
        let ill: Vec<_> = ill.map(|(component, reason)| format!("{component}: {reason}")).collect();
        let components = match &host.unreachable {
            Some(reason) => format!("does not answer: {reason}"),
            None if ill.is_empty() => format!("{} well", host.components.len()),
            None => ill.join("\n"),
        };
        let drift = if host.drift.is_empty() { "none".to_owned() } else { host.drift.join("\n") };
        let lock = host.lock.as_ref().map(|lock| format!("{} ({})", lock.who, lock.command)).unwrap_or_default();
        table.add_row([name.to_string(), host.kubelet.clone().unwrap_or_default(), components, drift, lock]);
    }
    out.push_str(&drawn(table));
    let taken = status.hosts.iter().filter_map(|(name, host)| Some((name, host.recurring.as_ref()?.last.as_ref()?)));
    if let Some((name, last)) = taken.max_by_key(|(_, last)| last.taken_at) {
        let _ = writeln!(out, "recurring snapshot {} was taken by {name}", last.name);
    }
    for (name, host) in &status.hosts {
        for trouble in &host.recurring_troubles {
            let _ = writeln!(out, "recurring snapshots, {name}: {trouble}");
        }
    }
    if let Some(workloads) = &status.workloads {
        let _ = writeln!(out, "workloads {workloads}");
    }
    for object in &status.objects {
        let _ = writeln!(out, "object {object}");
    }
    for (certificate, seconds) in &status.certificates {
        let _ = if *seconds > 0 {
            writeln!(out, "certificate {certificate} ends in {} days", seconds / 86_400)
        } else {
            writeln!(out, "certificate {certificate} has ended")
        };
    }
    match (status.file_changed, status.revision.as_ref().and_then(|revision| revision.returns_to.as_ref())) {
        (false, _) => {}
        (true, None) => out.push_str("cluster.yml changed since this revision; `bastide plan` shows what that means\n"),
        (true, Some(to)) => {
            let _ = writeln!(
                out,
                "the cluster was taken back to revision {to}, and cluster.yml is ahead of it; `bastide up` would go forward"
            );
        }
    }
    for note in &status.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn word(health: Overall) -> &'static str {
    match health {
        Overall::Healthy => "healthy",
        Overall::Degraded => "degraded",
        Overall::Unreachable => "unreachable: no API server is ready",
    }
}

fn state(state: &RevisionState) -> String {
    match state {
        RevisionState::Started => "started".to_owned(),
        RevisionState::Reached => "reached".to_owned(),
        RevisionState::ReachedExcept { hosts } => format!("reached except {}", hosts.join(", ")),
        RevisionState::Failed => "failed".to_owned(),
    }
}
