//! Data as text or JSON.

use std::fmt::Write as _;

use comfy_table::Table;

use crate::cli::args::OutputFormat;
use crate::model::Revision;
use crate::model::RevisionState;
use crate::model::utc as time;
use crate::ops::Overall;
use crate::ops::Status;
use crate::store::Contents;
use crate::store::Examined;

/// The revisions, newest last.
pub(super) fn history(revisions: &[Revision], format: OutputFormat) -> String {
    match format {
        OutputFormat::Json => format!("{:#}\n", serde_json::json!({ "schema": 1, "revisions": revisions })),
        OutputFormat::Text => {
            let mut table = Table::new();
            table.load_style(comfy_table::presets::NOTHING);
            table.set_header(["REVISION", "WHEN", "WHO", "COMMAND", "KUBERNETES", "STATE", "WHY"]);
            for revision in revisions {
                table.add_row([
                    revision.id.to_string(),
                    time(revision.at),
                    revision.who.clone(),
                    revision.command.clone(),
                    revision.kubernetes.to_string(),
                    state(&revision.state),
                    revision.why.clone(),
                ]);
            }
            format!("{}\n", table.trim_fmt())
        }
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
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["REVISION", "STATE", "CONTENTS"]);
    for (revision, contents) in &examined.revisions {
        table.add_row([revision.id.to_string(), state(&revision.state), word(contents)]);
    }
    let mut out = format!("{}\n{files} sealed files, {bytes} bytes\n", table.trim_fmt());
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
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["HOST", "KUBELET", "COMPONENTS", "DRIFT", "LOCK"]);
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
    let _ = writeln!(out, "{}", table.trim_fmt());
    if let Some(workloads) = &status.workloads {
        let _ = writeln!(out, "workloads {workloads}");
    }
    for object in &status.objects {
        let _ = writeln!(out, "object {object}");
    }
    for (certificate, seconds) in &status.certificates {
        let _ = writeln!(out, "certificate {certificate} ends in {} days", seconds / 86_400);
    }
    if status.file_changed {
        out.push_str("cluster.yml changed since this revision; `bastide plan` shows what that means\n");
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
