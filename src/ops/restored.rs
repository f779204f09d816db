//! What a restore leaves for all other commands to mind.

use std::collections::BTreeSet;

use crate::model::Desired;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::Revision;
use crate::model::RevisionState;
use crate::ops::OpsError;
use crate::ops::kept::Kept;

/// The barrier that a restore puts into the history.
pub(super) const BARRIER: &str = "etcd-restore";
/// And that of members who join a restore that is over. Cut off, it is finished like a restore; ended, it changes nothing
/// for the members that were there before.
pub(super) const LATE: &str = "etcd-restore-late";

/// The restore that was begun and has not come to its end.
pub(super) fn unfinished(history: &[Revision]) -> Option<&Revision> {
    history.last().filter(|newest| {
        (barred(newest, BARRIER) || barred(newest, LATE))
            && matches!(newest.state, RevisionState::Started | RevisionState::Failed)
    })
}

/// Whether only members that had been away were at stake in it.
pub(super) fn is_late(revision: &Revision) -> bool {
    barred(revision, LATE)
}

/// The newest restore that came to its end.
pub(super) fn newest(history: &[Revision]) -> Option<&Revision> {
    history.iter().rev().find(|revision| barred(revision, BARRIER) && has_ended(revision))
}

/// Hosts that the newest restore passed by and that have not been given its data since.
pub(super) fn away(history: &[Revision]) -> BTreeSet<String> {
    let last = history
        .iter()
        .rev()
        .find(|revision| (barred(revision, BARRIER) || barred(revision, LATE)) && has_ended(revision));
    match last.map(|revision| &revision.state) {
        Some(RevisionState::ReachedExcept { hosts }) => hosts.iter().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

fn has_ended(revision: &Revision) -> bool {
    matches!(revision.state, RevisionState::Reached | RevisionState::ReachedExcept { .. })
}

fn barred(revision: &Revision, name: &str) -> bool {
    revision.barrier.as_ref().is_some_and(|barrier| barrier.name == name)
}

/// Refuses what would start etcd on data of two clusters: in the middle of a restore, or on a member that was away during
/// one.
pub(super) fn allow(
    kept: &Kept,
    target: &Desired,
    observed: &Observed,
    without: &BTreeSet<HostName>,
) -> Result<(), OpsError> {
    let Some(store) = &kept.store else { return Ok(()) };
    let history = store.history();
    if let Some(open) = unfinished(&history) {
        return Err(OpsError::RestoreUnfinished { revision: open.id.clone(), why: open.why.clone() });
    }
    let Some(restore) = newest(&history) else { return Ok(()) };
    let hosts = behind(restore, target, observed, without);
    if hosts.is_empty() {
        return Ok(());
    }
    Err(OpsError::DataBeforeRestore { hosts, revision: restore.id.clone() })
}

/// Members whose own record says that they were last worked on before `restore`.
pub(super) fn behind(
    restore: &Revision,
    target: &Desired,
    observed: &Observed,
    without: &BTreeSet<HostName>,
) -> Vec<HostName> {
    let members = target.hosts.iter().filter(|(name, host)| host.roles.etcd() && !without.contains(*name));
    members
        .filter(|(name, _)| {
            let record = observed.hosts.get(*name).and_then(|seen| seen.record.as_ref());
            record.is_some_and(|record| record.revision.number < restore.id.number)
        })
        .map(|(name, _)| name.clone())
        .collect()
}
