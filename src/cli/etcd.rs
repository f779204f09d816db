//! `etcd`: its arguments, and what they lead to.

mod shown;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::cli::args::Output;
use crate::cli::args::OutputFormat;
use crate::cli::args::Reach;
use crate::cli::console::Console;
use crate::cli::error;
use crate::cli::etcd::shown::list;
use crate::cli::etcd::shown::overview;
use crate::cli::etcd::shown::proven;
use crate::cli::etcd::shown::size;
use crate::cli::restore;
use crate::cli::restore::Recover;
use crate::cli::restore::Rejoin;
use crate::cli::restore::Restore;
use crate::cli::restore::host_name;
use crate::cli::rke;
use crate::cli::run::ended;
use crate::cli::run::invocation;
use crate::cli::run::print;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::ops;
use crate::ops::OpsError;
use crate::ops::SaveOptions;
use crate::ops::SeenSnapshots;
use crate::ops::Talk;
use crate::ops::Wanted;

/// `etcd`
#[derive(Debug, Subcommand)]
pub(super) enum Etcd {
    /// Show the members: leader, sizes, alarms, hashes, disk latency
    ///
    /// Every member is asked on its own host. Exits with 0 when all is well and 4 when something is not.
    Status {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        output: Output,
    },
    /// Give free pages of the database files back, one member at a time
    ///
    /// A member answers nobody while it works; the leader comes last, and each must be well again before the next one's turn.
    /// Alarms for want of space are taken back where there is space again.
    Defrag {
        #[command(flatten)]
        reach: Reach,
    },
    Recover(Recover),
    Rejoin(Rejoin),
    /// Snapshots: sealed, signed, and all that a restore needs beside the identity
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// RKE's name for `etcd snapshot save`
    #[command(hide = true, name = "snapshot-save")]
    SnapshotSave {
        #[command(flatten)]
        save: Save,
        #[command(flatten)]
        rke: rke::Snapshots,
    },
    /// RKE's name for `etcd snapshot restore`
    #[command(hide = true, name = "snapshot-restore")]
    SnapshotRestore {
        /// The snapshot
        #[arg(long, value_name = "SNAPSHOT", value_parser = restore::wanted, required_unless_present_any = ["abort", "rejoin"], conflicts_with = "rejoin")]
        name: Option<Wanted>,
        #[command(flatten)]
        restore: Restore,
        #[command(flatten)]
        rke: rke::Restoring,
    },
}

/// `etcd snapshot`
#[derive(Debug, Subcommand)]
pub(super) enum Snapshot {
    /// Take a snapshot and put it onto every etcd host, and into the S3 bucket that cluster.yml names
    ///
    /// Streamed from one healthy member, checked, sealed to the state's identity and recipients, and signed. It holds the
    /// database and the sealed state: whoever has it and the identity has the cluster. Exits with 3 where some place did not get
    /// it; what was cut off is listed nowhere.
    Save(Save),
    /// List the snapshots on all hosts, in the S3 bucket, and in a folder here
    ///
    /// Exits with 3 where some place could not be looked at.
    List {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        local: Local,
        #[command(flatten)]
        output: Output,
    },
    /// Verify a snapshot, and restore it into an etcd of its own to prove it
    ///
    /// Every byte is checked against the signed manifest. Then the database is restored beside the cluster's etcd, on an etcd
    /// host, with the release's own programs and on sockets of its own; revision, keys and hash must be the snapshot's.
    Verify {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        local: Local,
        #[command(flatten)]
        output: Output,
        /// Read the copy in the S3 bucket
        #[arg(long, conflicts_with = "folder")]
        s3: bool,
        /// Restore on this etcd host
        #[arg(long, value_name = "HOST", value_parser = host_name)]
        on: Option<HostName>,
        /// Believe a database that etcdctl saved, which nobody signed
        #[arg(long)]
        accept_foreign: bool,
        /// Which snapshot
        #[arg(value_parser = snapshot_name)]
        name: SnapshotName,
    },
    /// Remove a snapshot from all hosts, from the S3 bucket, and from a folder here
    Delete {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        local: Local,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Which snapshot
        #[arg(value_parser = snapshot_name)]
        name: SnapshotName,
    },
    /// Replace etcd's data by a snapshot's
    ///
    /// Shows what will be done and lost, and asks for the cluster's name. While etcd still answers, a last snapshot is taken. Then the
    /// control plane stops everywhere, every member keeps its old data aside as /var/lib/etcd.before-…, gets the snapshot's as a member of a
    /// new etcd cluster, and everything starts again. Empty hosts are made anew on the way. Cut off at any step, the same command goes on,
    /// or --abort puts the old data back. Dead hosts are left out with --without; once one is back, --rejoin lets it join the others.
    Restore {
        /// Its name, as `etcd snapshot list` shows it, or the path of a file
        #[arg(value_name = "SNAPSHOT", value_parser = restore::wanted, required_unless_present_any = ["abort", "rejoin"], conflicts_with = "rejoin")]
        snapshot: Option<Wanted>,
        #[command(flatten)]
        restore: Restore,
    },
    /// Remove old snapshots
    ///
    /// From all hosts, the S3 bucket and a folder here. Only what this cluster's identity signed; RKE's, damaged and unknown
    /// files stay. Uploads that a command left unfinished more than an hour ago are given up.
    Prune {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        local: Local,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Keep so many of the newest [default: backup_config.retention, else 6]
        #[arg(long, value_name = "COUNT")]
        keep: Option<u32>,
        /// Keep younger ones too: 72h, 30d
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Option<i64>,
    },
}

/// `etcd snapshot save`
#[derive(Debug, Args)]
pub(super) struct Save {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    local: Local,
    /// What to call it [default: etcd_ and the time]
    #[arg(long, value_parser = snapshot_name)]
    name: Option<SnapshotName>,
    /// Take it from the member on this host [default: a healthy one that does not lead]
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    from: Option<HostName>,
}

/// `--local`
#[derive(Debug, Args)]
pub(super) struct Local {
    /// A folder on this machine that holds snapshots too
    #[arg(long = "local", value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(super) fn snapshot_name(text: &str) -> Result<SnapshotName, String> {
    let bare = text.strip_suffix(crate::snapshot::ENDING).unwrap_or(text);
    SnapshotName::new(bare).map_err(|error| error.to_string())
}

/// `72h` or `30d` in seconds.
pub(super) fn age(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no age such as 72h or 30d");
    let (number, unit) = match (text.strip_suffix('h'), text.strip_suffix('d')) {
        (Some(hours), _) => (hours, 3_600),
        (_, Some(days)) => (days, 86_400),
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(i64::from(number) * unit)
}

/// Runs the command and gives the exit code.
pub(super) async fn run(
    command: Etcd,
    config: &Path,
    console: &Arc<Console>,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    match command {
        Etcd::Status { reach, output } => {
            let seen = ops::etcd_status(&invocation(config, &reach, "etcd status"), talk).await?;
            print(&overview(&seen, output.output))?;
            Ok(if seen.healthy { 0 } else { error::DEGRADED })
        }
        Etcd::Defrag { reach } => {
            let seen = ops::defragment(&invocation(config, &reach, "etcd defrag"), talk, cancel).await?;
            console.settle();
            print(&overview(&seen, OutputFormat::Text))?;
            Ok(if seen.healthy { 0 } else { error::DEGRADED })
        }
        Etcd::Recover(recover) => {
            let reached = restore::recover(recover, config, talk, cancel).await?;
            console.settle();
            Ok(ended(&reached, restore::REJOIN, console))
        }
        Etcd::Rejoin(rejoin) => {
            let reached = restore::rejoin(rejoin, config, talk, cancel).await?;
            console.settle();
            Ok(ended(&reached, restore::REJOIN, console))
        }
        Etcd::Snapshot(Snapshot::Save(save)) => {
            taken(save, rke::Snapshots::default(), config, console, talk, cancel).await
        }
        Etcd::SnapshotSave { save, rke } => taken(save, rke, config, console, talk, cancel).await,
        Etcd::Snapshot(Snapshot::List { reach, local, output }) => {
            let invocation = invocation(config, &reach, "etcd snapshot list");
            let seen = ops::list_snapshots(&invocation, local.folder.as_deref(), talk).await?;
            console.settle();
            for words in &seen.unseen {
                console.warn(words);
            }
            print(&list(&seen.snapshots, output.output))?;
            Ok(complete(&seen))
        }
        Etcd::Snapshot(Snapshot::Verify { reach, local, output, s3, on, accept_foreign, name }) => {
            let invocation = invocation(config, &reach, "etcd snapshot verify");
            let folder = local.folder.as_deref();
            let proof = ops::verify_snapshot(&invocation, &name, folder, s3, on.as_ref(), accept_foreign, talk).await?;
            console.settle();
            print(&proven(&proof, output.output))?;
            Ok(0)
        }
        Etcd::Snapshot(Snapshot::Delete { reach, local, yes, name }) => {
            let invocation = invocation(config, &reach, "etcd snapshot delete");
            let gone = ops::delete_snapshot(&invocation, &name, local.folder.as_deref(), yes, talk).await?;
            Ok(complete(&gone))
        }
        Etcd::Snapshot(Snapshot::Restore { snapshot, restore }) => {
            let reached = restore::run(snapshot, restore, rke::Restoring::default(), config, talk, cancel).await?;
            console.settle();
            Ok(ended(&reached, restore::REJOIN, console))
        }
        Etcd::SnapshotRestore { name, restore, rke } => {
            let reached = restore::run(name, restore, rke, config, talk, cancel).await?;
            console.settle();
            Ok(ended(&reached, restore::REJOIN, console))
        }
        Etcd::Snapshot(Snapshot::Prune { reach, local, yes, keep, older_than }) => {
            let invocation = invocation(config, &reach, "etcd snapshot prune");
            let gone = ops::prune_snapshots(&invocation, keep, older_than, local.folder.as_deref(), yes, talk).await?;
            console.settle();
            console.say(&format!("{} snapshots removed", gone.snapshots.len()));
            Ok(complete(&gone))
        }
    }
}

/// Takes a snapshot and says where it lies.
async fn taken(
    save: Save,
    rke: rke::Snapshots,
    config: &Path,
    console: &Console,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    let options = SaveOptions { name: save.name, from: save.from, local: save.local.folder, why: "save".to_owned() };
    let invocation = rke.with(invocation(config, &save.reach, "etcd snapshot save"), &**talk)?;
    let saved = ops::save_snapshot(&invocation, &options, talk, cancel).await?;
    console.settle();
    for (place, reason) in &saved.missing {
        console.warn(&format!("not on {place}: {reason}"));
    }
    let manifest = &saved.manifest;
    let places: Vec<_> = saved.places.iter().map(ToString::to_string).collect();
    let (revision, keys) = (manifest.etcd_revision, manifest.keys);
    console.say(&format!(
        "etcd at revision {revision}, {keys} keys, {} sealed to {}, on {}",
        size(manifest.database.size),
        size(manifest.sealed.size),
        places.join(", ")
    ));
    print(&format!("{}\n", manifest.name))?;
    Ok(if saved.missing.is_empty() { 0 } else { error::EXCEPT })
}

/// Whether every place was looked at.
fn complete(seen: &SeenSnapshots) -> u8 {
    if seen.unseen.is_empty() { 0 } else { error::EXCEPT }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::age;
    use super::snapshot_name;

    #[test]
    fn ages_are_hours_or_days() {
        assert_eq!(age("72h"), Ok(72 * 3600));
        assert_eq!(age("30d"), Ok(30 * 86_400));
        for bad in ["", "h", "3", "-1d", "3w", "1.5h"] {
            assert!(age(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_snapshot_may_be_named_by_its_file() {
        assert_eq!(snapshot_name("a.snapshot").unwrap().as_str(), "a");
        assert!(snapshot_name("../a").is_err());
        assert!(snapshot_name("").is_err());
    }
}
