//! `drill`: its arguments, and how it is shown.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::args::Output;
use crate::cli::args::OutputFormat;
use crate::cli::args::Reach;
use crate::cli::console::Console;
use crate::cli::error;
use crate::cli::etcd::age;
use crate::cli::etcd::snapshot_name;
use crate::cli::restore::host_name;
use crate::cli::run::invocation;
use crate::cli::run::print;
use crate::cli::table::drawn;
use crate::cli::table::table;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::model::utc;
use crate::ops;
use crate::ops::DrillLimits;
use crate::ops::DrillOptions;
use crate::ops::OpsError;
use crate::ops::Talk;

/// `drill`
#[derive(Debug, Args)]
pub(super) struct Drill {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    output: Output,
    /// This snapshot [default: the newest that this cluster's identity signed]
    #[arg(long, value_name = "SNAPSHOT", value_parser = snapshot_name)]
    name: Option<SnapshotName>,
    /// Read a copy in this folder of this machine
    #[arg(long = "local", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Read the copy in the S3 bucket that cluster.yml names
    #[arg(long, conflicts_with = "folder")]
    s3: bool,
    /// Restore on this etcd host
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    on: Option<HostName>,
    /// Exit with 4 where the snapshot is older: 24h, 2d
    #[arg(long, value_name = "AGE", value_parser = age)]
    max_age: Option<i64>,
    /// Exit with 4 where etcd has gone on by more revisions, or where nobody can count them
    #[arg(long, value_name = "COUNT")]
    max_lost: Option<u64>,
    /// Exit with 4 where the drill took longer
    #[arg(long, value_name = "SECONDS")]
    max_seconds: Option<u32>,
}

/// Runs the command and gives the exit code.
pub(super) async fn run(
    drill: Drill,
    config: &Path,
    console: &Arc<Console>,
    talk: &Arc<dyn Talk>,
) -> Result<u8, OpsError> {
    let options = DrillOptions {
        name: drill.name,
        local: drill.folder,
        in_bucket: drill.s3,
        on: drill.on,
        limits: DrillLimits {
            age: drill.max_age,
            revisions: drill.max_lost,
            seconds: drill.max_seconds.map(f64::from),
        },
    };
    let seen = ops::drill(&invocation(config, &drill.reach, "drill"), &options, talk).await?;
    console.settle();
    for words in &seen.exceeded {
        console.warn(words);
    }
    print(&shown(&seen, drill.output.output))?;
    Ok(match (seen.exceeded.is_empty(), seen.unseen.is_empty()) {
        (false, _) => error::DEGRADED,
        (true, false) => error::EXCEPT,
        (true, true) => 0,
    })
}

fn shown(drill: &ops::Drill, format: OutputFormat) -> String {
    if format == OutputFormat::Json {
        let mut value = serde_json::to_value(drill).unwrap_or_default();
        value["schema"] = 1.into();
        return format!("{value:#}\n");
    }
    let mut out = format!(
        "snapshot {} from {}, taken {}; restored on {} with {} keys, and {} revisions of the cluster's state open from it\n",
        drill.name,
        drill.place,
        utc(drill.taken_at),
        drill.host,
        drill.keys,
        drill.states
    );
    let mut steps = table(&["STEP", "SECONDS"]);
    for step in &drill.steps {
        steps.add_row([step.what.clone(), format!("{:.1}", step.seconds)]);
    }
    steps.add_row(["together".to_owned(), format!("{:.1}", drill.seconds)]);
    out.push_str(&drawn(steps));
    let _ = writeln!(
        out,
        "time: a restore takes at least this long; it also stops the control plane, starts it, and makes empty hosts anew"
    );
    if let Some(last) = &drill.last_restore {
        let _ = writeln!(out, "time: the last real one (revision {}) took {} s", last.revision, last.seconds);
    }
    let age = format!("{} min", drill.age_seconds / 60);
    let _ = match (drill.live_revision, drill.lost_revisions) {
        (Some(live), Some(lost)) => {
            writeln!(out, "loss: {age}, {lost} revisions ({} in the snapshot, {live} now)", drill.revision)
        }
        (Some(_), None) => writeln!(out, "loss: {age}; etcd was restored since, so revisions cannot be counted"),
        (None, _) => writeln!(out, "loss: {age}; etcd does not answer, so revisions cannot be counted"),
    };
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::shown;
    use crate::cli::args::OutputFormat;
    use crate::model::HostName;
    use crate::model::SnapshotName;
    use crate::ops::Drill;
    use crate::ops::DrillStep;
    use crate::ops::Place;

    fn drill() -> Drill {
        let host = HostName::new("h1").unwrap();
        Drill {
            name: SnapshotName::new("nightly").unwrap(),
            place: Place::Host { host: host.clone() },
            host,
            taken_at: 1_795_305_600,
            age_seconds: 7_260,
            revision: 100,
            live_revision: Some(142),
            lost_revisions: Some(42),
            keys: 7,
            states: 2,
            steps: vec![DrillStep { what: "snapshots looked for".to_owned(), seconds: 1.25 }],
            seconds: 1.25,
            last_restore: None,
            exceeded: Vec::new(),
            unseen: Vec::new(),
        }
    }

    #[test]
    fn people_read_time_and_loss() {
        let text = shown(&drill(), OutputFormat::Text);
        assert!(text.contains("snapshot nightly from h1, taken 2026-11-22T00:00:00Z"), "{text}");
        assert!(text.contains("loss: 121 min, 42 revisions (100 in the snapshot, 142 now)"), "{text}");
        let silent = Drill { live_revision: None, lost_revisions: None, ..drill() };
        assert!(shown(&silent, OutputFormat::Text).contains("etcd does not answer"));
    }

    #[test]
    fn programs_read_the_same() {
        let value: serde_json::Value = serde_json::from_str(&shown(&drill(), OutputFormat::Json)).unwrap();
        assert_eq!((value["schema"].as_u64(), value["lost_revisions"].as_u64()), (Some(1), Some(42)));
        assert_eq!(value["place"]["host"], "h1");
        assert_eq!(value["steps"][0]["seconds"], 1.25);
    }
}
