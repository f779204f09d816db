//! `etcd snapshot restore`. Not in a usual build before its tests on hosts have passed (issue 4): the feature `unproven`.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::cli::args::Reach;
use crate::cli::run::invocation;
use crate::ops;
use crate::ops::OpsError;
use crate::ops::Reached;
use crate::ops::RestoreOptions;
use crate::ops::RestoreWay;
use crate::ops::Talk;

/// `etcd`
#[derive(Debug, Subcommand)]
pub(super) enum Etcd {
    /// Snapshots of etcd
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// RKE's name for `etcd snapshot restore`
    #[command(hide = true)]
    SnapshotRestore {
        /// The snapshot
        #[arg(long, value_name = "SNAPSHOT")]
        name: Option<PathBuf>,
        #[command(flatten)]
        restore: Restore,
    },
}

/// `etcd snapshot`
#[derive(Debug, Subcommand)]
pub(super) enum Snapshot {
    /// Replace etcd's data by a snapshot's
    ///
    /// Shows what will be done and asks for the cluster's name. Then the control plane stops everywhere, every member keeps
    /// its old data aside as /var/lib/etcd.before-…, gets the snapshot's as a member of a new etcd cluster, and everything
    /// starts again. Hosts with empty disks at the addresses of cluster.yml are made anew on the way. Cut off at any
    /// step, the same command goes on, or --abort puts the old data back. docs/restore.md is the page for the night.
    Restore {
        /// The snapshot's file
        #[arg(value_name = "SNAPSHOT", required_unless_present = "abort")]
        snapshot: Option<PathBuf>,
        #[command(flatten)]
        restore: Restore,
    },
}

/// `etcd snapshot restore`
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Restore {
    #[command(flatten)]
    pub reach: Reach,
    /// Do not ask; needs --cluster
    #[arg(short, long, requires = "cluster")]
    pub yes: bool,
    /// The cluster's name, as a proof that this one is meant
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Take a plain database, as etcdctl and RKE save it, although nothing proves whose it is
    #[arg(long)]
    pub accept_foreign: bool,
    /// Put the data from before a restore that was cut off back
    #[arg(long)]
    pub abort: bool,
    /// Give members that were away during the restore of this very snapshot its data, and leave the others alone
    #[arg(long, conflicts_with = "abort")]
    pub rejoin: bool,
    /// Print where the time went
    #[arg(long)]
    pub timings: bool,
}

/// Runs the command.
pub(super) async fn run(
    command: Etcd,
    config: &Path,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let (Etcd::Snapshot(Snapshot::Restore { snapshot, restore }) | Etcd::SnapshotRestore { name: snapshot, restore }) =
        command;
    let way = match (restore.abort, restore.rejoin) {
        (true, _) => RestoreWay::Abort,
        (false, true) => RestoreWay::Rejoin,
        (false, false) => RestoreWay::Restore,
    };
    let options = RestoreOptions {
        snapshot,
        accept_foreign: restore.accept_foreign,
        way,
        yes: restore.yes,
        cluster: restore.cluster,
        timings: restore.timings,
    };
    Box::pin(ops::restore(&invocation(config, &restore.reach, "etcd snapshot restore"), &options, talk, cancel)).await
}
