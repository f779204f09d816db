//! Snapshots and members as text or JSON.

use std::fmt::Write as _;

use crate::cli::args::OutputFormat;
use crate::cli::table::drawn;
use crate::cli::table::table;
use crate::model::utc;
use crate::ops::EtcdOverview;
use crate::ops::Listed;
use crate::ops::Proof;

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

pub(super) fn list(listed: &[Listed], format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        return json(&serde_json::json!({ "schema": 1, "snapshots": listed }));
    }
    let mut table = table(&["SNAPSHOT", "TAKEN", "KUBERNETES", "REVISION", "KEYS", "SIZE", "STATE", "WHERE"]);
    for one in listed {
        let places: Vec<_> = one.places.iter().map(ToString::to_string).collect();
        let told = one.manifest.as_ref();
        let state = match (one.foreign, &one.trouble) {
            (Some(whose), _) => format!("{whose}'s, not signed"),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => "signed".to_owned(),
        };
        table.add_row([
            one.name.to_string(),
            utc(one.at),
            told.map(|told| told.kubernetes.to_string()).unwrap_or_default(),
            told.map(|told| told.etcd_revision.to_string()).unwrap_or_default(),
            told.map(|told| told.keys.to_string()).unwrap_or_default(),
            size(one.size),
            state,
            places.join(", "),
        ]);
    }
    drawn(table)
}

pub(super) fn proven(proof: &Proof, format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        let mut value = serde_json::to_value(proof).unwrap_or_default();
        value["schema"] = 1.into();
        return format!("{value:#}\n");
    }
    let hash = match proof.hash_equal {
        Some(_) => "etcd's hash is the same",
        None => "etcd's hash could not be compared (a compaction came between, or nobody signed one)",
    };
    format!(
        "{} from {}: whole; restored on {} in {:.1} s: revision {}, {} keys; {hash}\n",
        proof.name, proof.place, proof.host, proof.seconds, proof.revision, proof.keys
    )
}

pub(super) fn overview(seen: &EtcdOverview, format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        return json(seen);
    }
    let mut table =
        table(&["HOST", "MEMBER", "VERSION", "ROLE", "SIZE", "IN USE", "REVISION", "RAFT", "HASH", "FSYNC", "STATE"]);
    for (name, member) in &seen.members {
        let state = match &member.unreachable {
            Some(reason) => format!("does not answer: {reason}"),
            None if member.ailments.is_empty() && member.warnings.is_empty() => "well".to_owned(),
            None => member.ailments.iter().chain(&member.warnings).cloned().collect::<Vec<_>>().join("\n"),
        };
        let role = if member.leader {
            "leader"
        } else if member.learner {
            "learner"
        } else {
            "follower"
        };
        table.add_row([
            name.to_string(),
            member.id.clone(),
            member.version.clone(),
            if member.unreachable.is_some() { String::new() } else { role.to_owned() },
            size(member.db_size),
            size(member.db_in_use),
            member.revision.to_string(),
            format!("{}/{}", member.raft_applied, member.raft_index),
            member.hash.map(|hash| format!("{hash:08x}")).unwrap_or_default(),
            member.fsync_p99.map(|seconds| format!("{:.0} ms", seconds * 1000.0)).unwrap_or_default(),
            state,
        ]);
    }
    let mut out = drawn(table);
    for note in &seen.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// `1.5 MiB`
pub(super) fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!([size(1023), size(1536), size(5 << 30)], ["1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
