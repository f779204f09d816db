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

/// The newest change of who belongs to etcd that came to its end.
fn last(history: &[Revision]) -> Option<&Revision> {
    history.iter().rev().find(|revision| (barred(revision, BARRIER) || barred(revision, LATE)) && has_ended(revision))
}

/// Hosts that etcd goes on without: the newest restore did, or a member that had lost its data was given up, and they have not joined
/// since. One whose joining was cut off is among them.
pub(super) fn away(history: &[Revision]) -> BTreeSet<HostName> {
    let mut away = match last(history).map(|revision| &revision.state) {
        Some(RevisionState::ReachedExcept { hosts }) => {
            hosts.iter().filter_map(|host| HostName::new(host.clone()).ok()).collect()
        }
        _ => BTreeSet::new(),
    };
    away.extend(unfinished(history).and_then(|open| open.joins.clone()));
    away
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
        return Err(refusal(open));
    }
    let Some(last) = last(&history) else { return Ok(()) };
    let mut hosts = newest(&history).map(|restore| behind(restore, target, observed, without)).unwrap_or_default();
    // One whose joining was cut off, and which was given up then, bears a later revision's number.
    let away = away_members(&history, target).into_iter();
    hosts.extend(away.filter(|name| observed.hosts.contains_key(name) && !without.contains(name)));
    hosts.sort();
    hosts.dedup();
    if hosts.is_empty() {
        return Ok(());
    }
    let revision = newest(&history).unwrap_or(last).id.clone();
    Err(OpsError::DataBeforeRestore { hosts, revision })
}

/// Why nothing else may begin while this is unfinished.
pub(super) fn refusal(open: &Revision) -> OpsError {
    OpsError::RestoreUnfinished { revision: open.id.clone(), why: open.why.clone(), joins: is_late(open) }
}

/// The etcd hosts among those that [`away`] names.
pub(super) fn away_members(history: &[Revision], target: &Desired) -> Vec<HostName> {
    let is_member = |name: &HostName| target.hosts.get(name).is_some_and(|host| host.roles.etcd());
    away(history).into_iter().filter(is_member).collect()
}

/// What a person should know of members that a restore went without: a sentence each.
pub(super) fn notes(history: &[Revision], target: &Desired, observed: &Observed) -> Vec<String> {
    let Some(last) = newest(history).or_else(|| last(history)) else { return Vec::new() };
    let note = |name: HostName| {
        let now = if observed.hosts.contains_key(&name) { "is back" } else { "does not answer" };
        format!(
            "{name} {now}: etcd goes on without it (revision {}), and what lies there of etcd's data is not the cluster's; once it is \
             back, `bastide etcd snapshot restore --rejoin` lets it join the others",
            last.id
        )
    };
    away_members(history, target).into_iter().map(note).collect()
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
