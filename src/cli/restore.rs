//! `etcd snapshot restore` and `etcd recover`: their flags, and what they lead to.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::cli::args::Caution;
use crate::cli::args::Consent;
use crate::cli::args::Reach;
use crate::cli::rke::Restoring;
use crate::cli::run::invocation;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::ops;
use crate::ops::OpsError;
use crate::ops::Reached;
use crate::ops::RestoreOptions;
use crate::ops::RestoreWay;
use crate::ops::Talk;
use crate::ops::Wanted;

/// What completes a restore that left hosts out. The same command would restore once more, and take away what was written since.
pub(super) const REJOIN: &str = "once they answer, `bastide etcd snapshot restore --rejoin` lets etcd's members among them join, and `bastide up` \
                      brings the others there";

/// `etcd snapshot restore`
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Restore {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub consent: Consent,
    /// Take a plain database, as etcdctl and RKE save it, although nothing proves whose it is
    #[arg(long)]
    pub accept_foreign: bool,
    #[command(flatten)]
    pub caution: Caution,
    /// Put the data from before a restore that was cut off back
    #[arg(long)]
    pub abort: bool,
    /// Let members that the restore went without join the others as learners; needs no snapshot
    #[arg(long, conflicts_with = "abort")]
    pub rejoin: bool,
    /// Print where the time went
    #[arg(long)]
    pub timings: bool,
}

/// Make etcd whole again from one member that survived, where quorum is lost and there is no snapshot
///
/// Shows what will be done, and asks for the cluster's name. The control plane stops everywhere; then the survivor's data, its log
/// included, are made into a database, every member keeps its old data aside as /var/lib/etcd.before-…, gets that database
/// as a member of a new etcd cluster, and everything starts again. Hosts that are gone for good must be taken out of
/// cluster.yml or installed anew at their addresses first. Refused while etcd has a quorum. Cut off at any step, the same
/// command goes on, or --abort puts the old data back.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Recover {
    #[command(flatten)]
    pub reach: Reach,
    /// The host of the member that survived; of several, the one that holds most
    #[arg(long, value_name = "HOST", value_parser = host_name, required_unless_present_any = ["abort", "rejoin"], conflicts_with = "rejoin")]
    pub from: Option<HostName>,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub caution: Caution,
    /// Put the data from before a recovery that was cut off back
    #[arg(long)]
    pub abort: bool,
    /// Let members that the recovery went without join the others as learners
    #[arg(long, conflicts_with = "abort")]
    pub rejoin: bool,
    /// Print where the time went
    #[arg(long)]
    pub timings: bool,
}

/// Replace a member that lost its data, while the others go on
///
/// Shows what will be done, and asks for the cluster's name. A snapshot is taken; then what etcd lists on that host leaves for good,
/// what is left of its data is kept aside as /var/lib/etcd.before-…, and a learner begins there, which gets everything from the
/// others, and its vote once it has it. Nothing else stops. Before each change of the members it is asked whether a quorum holds
/// before and after it. A learner that gets no further is taken out again. Cut off at any step, the same command goes on.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Rejoin {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub caution: Caution,
    /// Print where the time went
    #[arg(long)]
    pub timings: bool,
    /// The host whose member lost its data
    #[arg(value_name = "HOST", value_parser = host_name)]
    pub host: HostName,
}

/// Runs `etcd rejoin`.
pub(super) async fn rejoin(
    rejoin: Rejoin,
    config: &Path,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let options = RestoreOptions {
        way: RestoreWay::Rejoin,
        member: Some(rejoin.host),
        yes: rejoin.consent.yes,
        cluster: rejoin.consent.cluster,
        timings: rejoin.timings,
        ..RestoreOptions::default()
    };
    let invocation = rejoin.caution.with(invocation(config, &rejoin.reach, "etcd rejoin"));
    Box::pin(ops::restore(&invocation, &options, talk, cancel)).await
}

/// Runs `etcd recover`.
pub(super) async fn recover(
    recover: Recover,
    config: &Path,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let options = RestoreOptions {
        snapshot: recover.from.map(Wanted::Survivor),
        accept_foreign: false,
        way: way(recover.abort, recover.rejoin),
        member: None,
        yes: recover.consent.yes,
        cluster: recover.consent.cluster,
        timings: recover.timings,
    };
    let invocation = recover.caution.with(invocation(config, &recover.reach, "etcd recover"));
    Box::pin(ops::restore(&invocation, &options, talk, cancel)).await
}

fn way(abort: bool, rejoin: bool) -> RestoreWay {
    match (abort, rejoin) {
        (true, _) => RestoreWay::Abort,
        (false, true) => RestoreWay::Rejoin,
        (false, false) => RestoreWay::Restore,
    }
}

/// A host by its node's name.
pub(super) fn host_name(text: &str) -> Result<HostName, String> {
    HostName::new(text).map_err(|error| error.to_string())
}

/// Runs the command.
pub(super) async fn run(
    snapshot: Option<Wanted>,
    restore: Restore,
    rke: Restoring,
    config: &Path,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let options = RestoreOptions {
        snapshot,
        accept_foreign: restore.accept_foreign,
        way: way(restore.abort, restore.rejoin),
        member: None,
        yes: restore.consent.yes,
        cluster: restore.consent.cluster,
        timings: restore.timings,
    };
    let invocation = rke.with(invocation(config, &restore.reach, "etcd snapshot restore"), &**talk)?;
    Box::pin(ops::restore(&restore.caution.with(invocation), &options, talk, cancel)).await
}

/// A file where there is one, or where a path is meant; else a name.
pub(super) fn wanted(text: &str) -> Result<Wanted, String> {
    let path = Path::new(text);
    if text.contains('/') || path.is_file() {
        return Ok(Wanted::File(path.to_owned()));
    }
    let bare = text.strip_suffix(crate::snapshot::ENDING).unwrap_or(text);
    SnapshotName::new(bare).map(Wanted::Named).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Wanted;
    use super::wanted;

    #[test]
    fn a_path_is_a_file_and_everything_else_a_name() {
        assert_eq!(wanted("./a.snapshot"), Ok(Wanted::File("./a.snapshot".into())));
        assert_eq!(wanted("Cargo.toml"), Ok(Wanted::File("Cargo.toml".into())));
        let Wanted::Named(name) = wanted("etcd_20261122T140300Z.snapshot").unwrap() else { unreachable!() };
        assert_eq!(name.as_str(), "etcd_20261122T140300Z");
        assert!(wanted("").is_err());
    }
}
