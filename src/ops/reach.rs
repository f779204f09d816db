//! From a plan to a recorded revision: show, ask, lock, look again, run, look once more, record. Every command that
//! changes a cluster ends here; they differ in the target that they prepared and in their errand.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::apply::Locks;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::apply::Stamp;
use crate::host::Contents;
use crate::host::Host as _;
use crate::model::Barrier;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::LockHolder;
use crate::model::ObjectAction;
use crate::model::Plan;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::model::RevisionState;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::access;
use crate::ops::connect::RealHost;
use crate::ops::encryption;
use crate::ops::exchange;
use crate::ops::last_snapshot;
use crate::ops::local;
use crate::ops::lost;
use crate::ops::perform::Runner;
use crate::ops::perform::perform;
use crate::ops::perform::shelf;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::timings::counts;
use crate::ops::timings::timings;
use crate::plan;
use crate::secrets;
use crate::store::FolderLock;

/// What a command wants with the target that it prepared.
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
#[derive(Debug, Clone, Default)]
pub(super) struct Errand {
    /// For the history.
    pub why: String,
    /// What keeps a rollback from walking back over it.
    pub barrier: Option<Barrier>,
    /// The host whose etcd member joins the others.
    pub joins: Option<HostName>,
    /// The revision whose target is taken up again.
    pub returns_to: Option<RevisionId>,
    /// cluster.yml that the target came from; absent: the one at hand.
    pub config: Option<Digest>,
    /// Do not ask.
    pub yes: bool,
    /// `--no-identity-backup`
    pub no_identity_backup: bool,
    /// `--timings`
    pub timings: bool,
    /// A plan that was shown earlier: nothing beyond it runs.
    pub shown: Option<Plan>,
    /// Whether a snapshot is taken before versions or keys change.
    pub guarded: bool,
    /// What is done in the cluster before the first host is changed.
    pub first: exchange::First,
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Nothing was to do.
    Already,
    /// Everything was done.
    Wholly,
    /// All but these hosts, which do not answer.
    Except(BTreeSet<HostName>),
}

/// From a plan to a recorded revision.
pub(super) async fn reach(
    mut prepared: Prepared,
    invocation: &Invocation,
    errand: &Errand,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let holder = local::holder(invocation, prepared.now)?;
    let empty = prepared.plan.is_empty();
    if empty && !off_course(&prepared, errand) {
        encryption::settled(&prepared, &**talk, cancel).await?;
        exchange::settled(&prepared, &**talk, cancel).await?;
        return settled(&mut prepared, &holder, errand.timings, talk);
    }
    let due = if errand.guarded { last_snapshot::due(&prepared, invocation).await? } else { None };
    prepared.plan.notes.extend(due.iter().map(|due| due.note.clone()));
    talk.show(&plan::text(&prepared.plan, plan::Detail::Folded));
    if !errand.yes && !empty {
        match talk.confirm("Run this plan?") {
            Some(true) => {}
            Some(false) => return Err(OpsError::Declined),
            None => return Err(OpsError::Unasked { what: "whether to run this plan (pass --yes)" }),
        }
    }
    going_on(cancel)?;
    let cluster = prepared.local.cluster.clone();
    let kept_secrets = prepared.target.secrets.clone();
    let without = prepare::without(invocation)?;
    let folder_lock =
        prepared.kept.for_writing(&cluster, &kept_secrets, errand.no_identity_backup, &holder, &**talk)?;
    let (members, others) =
        apply::hosts_to_lock(&prepared.target.desired, prepared.kept.reached.as_ref(), &prepared.plan);
    let mut locks = Locks::take(&prepared.fleet, &members, &others, &holder).await?;
    // Somebody may have worked here between the look and the lock.
    let (observed, plan) = prepared.again(&without).await?;
    if !within(&plan, &prepared.plan) || errand.shown.as_ref().is_some_and(|shown| !within(&plan, shown)) {
        return Err(OpsError::Moved);
    }
    if let Some(due) = due {
        due.take(&prepared, &holder.run, &**talk).await?;
    }
    prepared.observed = observed;
    prepared.plan = plan;
    // Before there is a revision that would then have failed.
    going_on(cancel)?;
    let stamp = begin(&mut prepared, invocation, errand, &folder_lock)?;
    let runner = Runner { stamp: &stamp, holder: &holder, talk, cancel };
    let outcome = run(&prepared, runner, &mut locks, &members, &errand.first).await;
    let ended = conclude(&mut prepared, runner, &folder_lock, &members, &without, outcome).await;
    let ended = match ended {
        Ok(reached) => Ok(reached),
        Err(error) => Err(lost::explained(error, &prepared.fleet, &members, &holder.run).await),
    };
    drop(locks);
    let reached = ended?;
    if errand.timings {
        talk.show(&timings(&reached.1));
        counts(&prepared, &**talk);
    }
    access::keep_operator_file(&prepared.local, &prepared.target.secrets, prepared.now, &**talk)?;
    Ok(reached.0)
}

/// An error where somebody wants to stop and nothing has been begun.
fn going_on(cancel: &CancellationToken) -> Result<(), OpsError> {
    if cancel.is_cancelled() { Err(OpsError::Interrupted) } else { Ok(()) }
}

/// Whether the history ends in another target than this one, although the hosts are at this one already: a rollback to
/// what a run that failed early never left, or a second thought after it.
fn off_course(prepared: &Prepared, errand: &Errand) -> bool {
    let newest = prepared.kept.store.as_ref().and_then(|store| store.newest());
    let elsewhere = prepared.kept.newest.as_ref() != Some(&prepared.target.desired);
    newest.is_some_and(|newest| {
        let open = matches!(newest.state, RevisionState::Started | RevisionState::Failed);
        elsewhere && (open || errand.returns_to.is_some())
    })
}

/// Whether everything in `plan` stands in `shown` too. Less is no surprise: after a run that was cut off, the hosts go on by
/// themselves (pods start, an API server answers) while the operator reads.
pub(super) fn within(plan: &Plan, shown: &Plan) -> bool {
    let known: Vec<_> = shown.stages.iter().flat_map(|stage| &stage.steps).collect();
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps).all(|step| {
        step.batch
            .0
            .iter()
            .all(|action| known.iter().any(|shown| shown.host == step.host && shown.batch.0.contains(action)))
    });
    let known: Vec<_> = shown.stages.iter().flat_map(|stage| &stage.objects).collect();
    let objects = plan.stages.iter().flat_map(|stage| &stage.objects).all(|action| {
        known.iter().any(|shown| match (action, shown) {
            // The fields that differ are known only once an API server answers.
            (ObjectAction::Apply { id, digest, .. }, ObjectAction::Apply { id: other, digest: same, .. }) => {
                id == other && digest == same
            }
            _ => action == *shown,
        })
    });
    steps && objects
}

/// Nothing to do: only a revision that an earlier run left open is closed.
fn settled(
    prepared: &mut Prepared,
    holder: &LockHolder,
    timings: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Reached, OpsError> {
    talk.show(&plan::text(&prepared.plan, plan::Detail::Folded));
    if timings {
        counts(prepared, &**talk);
    }
    let whole = prepared.plan.left_out.is_empty();
    let open = prepared.kept.store.as_ref().and_then(|store| store.newest()).filter(|newest| match newest.state {
        RevisionState::Started | RevisionState::Failed => true,
        RevisionState::ReachedExcept { .. } => whole,
        RevisionState::Reached => false,
    });
    let open = open.map(|newest| newest.id.clone());
    if let (Some(id), Some(store)) = (open, prepared.kept.store.as_mut()) {
        let lock = store.lock(holder)?;
        store.finish(&lock, &id, state(&prepared.plan.left_out), prepared.now)?;
    }
    access::keep_operator_file(&prepared.local, &prepared.target.secrets, prepared.now, &**talk)?;
    if prepared.plan.left_out.is_empty() {
        Ok(Reached::Already)
    } else {
        Ok(Reached::Except(prepared.plan.left_out.clone()))
    }
}

pub(super) fn state(except: &BTreeSet<HostName>) -> RevisionState {
    if except.is_empty() {
        RevisionState::Reached
    } else {
        RevisionState::ReachedExcept { hosts: except.iter().map(ToString::to_string).collect() }
    }
}

/// Records the revision, durably, before the first host is changed.
pub(super) fn begin(
    prepared: &mut Prepared,
    invocation: &Invocation,
    errand: &Errand,
    lock: &FolderLock,
) -> Result<Stamp, OpsError> {
    let parent = prepared.kept.parent();
    let store = prepared.kept.store.as_mut().ok_or_else(|| OpsError::Impossible("the state is not open".to_owned()))?;
    let id = store.next_id()?;
    let revision = Revision {
        id: id.clone(),
        parent: parent.clone(),
        command: invocation.command.to_owned(),
        why: errand.why.clone(),
        who: invocation.who.clone(),
        at: prepared.now,
        kubernetes: prepared.target.desired.kubernetes,
        config: errand.config.unwrap_or(prepared.local.digest),
        state: RevisionState::Started,
        barrier: errand.barrier.clone(),
        versions: prepared.target.desired.versions(),
        returns_to: errand.returns_to.clone(),
        ended: None,
        joins: errand.joins.clone(),
    };
    let target = &prepared.target;
    store.begin(lock, &revision, &target.desired, &target.blobs, &secrets::seal_form(&target.secrets))?;
    Ok(Stamp {
        cluster: target.desired.cluster.clone(),
        cluster_name: target.desired.cluster_name.clone(),
        revision: id,
        parent,
    })
}

/// The sealed copy goes to every member that answers, then the plan runs.
async fn run(
    prepared: &Prepared,
    runner: Runner<'_>,
    locks: &mut Locks<RealHost>,
    members: &BTreeSet<HostName>,
    first: &exchange::First,
) -> Result<Report, OpsError> {
    let Runner { stamp, holder, talk, cancel } = runner;
    let records = |name: &HostName| {
        let known = prepared.observed.hosts.get(name).and_then(|host| host.record.as_ref());
        Some(apply::opening(known, stamp))
    };
    hand_out(prepared, members, holder, &records).await?;
    let other_keys = encryption::make_way(prepared, &**talk, cancel).await?;
    exchange::first(prepared, first, &**talk, cancel).await?;
    let (target, contents): (_, Arc<dyn Contents>) = (&prepared.target.desired, Arc::new(shelf(prepared)));
    let report = perform(prepared, target, &prepared.plan, &contents, runner, locks).await;
    if other_keys && report.outcome == Outcome::Done {
        encryption::await_target(prepared, &**talk, cancel).await?;
    }
    if report.outcome == Outcome::Done {
        exchange::settled(prepared, &**talk, cancel).await?;
    }
    Ok(report)
}

/// Puts the sealed state and a record onto every member that is connected, all at once.
pub(super) async fn hand_out(
    prepared: &Prepared,
    members: &BTreeSet<HostName>,
    holder: &LockHolder,
    record: &(dyn Fn(&HostName) -> Option<HostRecord> + Sync),
) -> Result<(), OpsError> {
    let store = prepared.kept.store.as_ref().ok_or_else(|| OpsError::Impossible("the state is not open".to_owned()))?;
    let copy = store.sealed_copy()?;
    let sends = members.iter().filter_map(|name| {
        let host = prepared.fleet.get(name)?;
        let record = record(name)?;
        let copy = &copy;
        Some(async move { host.keep_state(copy, &record, &holder.run).await })
    });
    let errors: Vec<_> = futures::future::join_all(sends).await.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() { Ok(()) } else { Err(OpsError::Hosts(errors)) }
}

/// Looks once more, records how far the run got, and hands the final state to the members.
pub(super) async fn conclude(
    prepared: &mut Prepared,
    runner: Runner<'_>,
    folder_lock: &FolderLock,
    members: &BTreeSet<HostName>,
    without: &BTreeSet<HostName>,
    outcome: Result<Report, OpsError>,
) -> Result<(Reached, Report), OpsError> {
    let Runner { stamp, holder, talk, .. } = runner;
    let report = match outcome {
        Ok(report) if report.outcome == Outcome::Done => report,
        Ok(report) => {
            close(prepared, folder_lock, &stamp.revision, RevisionState::Failed)?;
            return Err(OpsError::Stopped(Box::new(report)));
        }
        Err(error) => {
            close(prepared, folder_lock, &stamp.revision, RevisionState::Failed)?;
            return Err(error);
        }
    };
    for remark in report.remarks() {
        talk.warn(&remark);
    }
    let (observed, left) = match prepared.again(without).await {
        Ok(seen) => seen,
        Err(error) => {
            close(prepared, folder_lock, &stamp.revision, RevisionState::Failed)?;
            return Err(after_all(error));
        }
    };
    let rest = hosts_left(&left, &report);
    if !rest.is_empty() {
        close(prepared, folder_lock, &stamp.revision, RevisionState::Failed)?;
        return Err(OpsError::NotReached(plan::text(&left, plan::Detail::Folded)));
    }
    let except: BTreeSet<HostName> = left.left_out.iter().chain(report.left_out.keys()).cloned().collect();
    close(prepared, folder_lock, &stamp.revision, state(&except))?;
    prepared.observed = observed;
    let records = |name: &HostName| {
        let known = prepared.observed.hosts.get(name)?.record.as_ref();
        Some(HostRecord { complete: true, ..apply::opening(known, stamp) })
    };
    hand_out(prepared, members, holder, &records).await?;
    let reached = if except.is_empty() { Reached::Wholly } else { Reached::Except(except) };
    Ok((reached, report))
}

/// What the look after a run found that did everything: then nothing is refused any more, and much was changed.
fn after_all(error: OpsError) -> OpsError {
    match error {
        OpsError::Refused(reasons) => {
            OpsError::NotReached(reasons.iter().map(|reason| format!("{reason}\n")).collect())
        }
        other => other,
    }
}

/// Steps and objects that a second plan still has, but for hosts and addons that are known to have failed.
pub(super) fn hosts_left(left: &Plan, report: &Report) -> Vec<String> {
    let steps = left.stages.iter().flat_map(|stage| &stage.steps);
    let steps = steps
        .filter(|step| !step.batch.0.is_empty() && !report.left_out.contains_key(&step.host))
        .map(|step| step.host.to_string());
    let objects = left.stages.iter().flat_map(|stage| &stage.objects).filter_map(|action| match action {
        ObjectAction::Apply { set: crate::model::ObjectSet::Addon(_), .. } => None,
        ObjectAction::Apply { id, .. } | ObjectAction::Delete { id, .. } => Some(id.to_string()),
        ObjectAction::Forget { node } => Some(node.to_string()),
        ObjectAction::Node { node, .. } => (!report.left_out.contains_key(node)).then(|| node.to_string()),
    });
    steps.chain(objects).collect()
}

pub(super) fn close(
    prepared: &mut Prepared,
    lock: &FolderLock,
    revision: &RevisionId,
    state: RevisionState,
) -> Result<(), OpsError> {
    let Some(store) = prepared.kept.store.as_mut() else { return Ok(()) };
    Ok(store.finish(lock, revision, state, prepare::now())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::after_all;
    use super::within;
    use crate::model::Action;
    use crate::model::Batch;
    use crate::model::HostName;
    use crate::model::Plan;
    use crate::model::Stage;
    use crate::model::Step;
    use crate::model::UnitName;
    use crate::ops::OpsError;
    use crate::plan::Refusal;

    fn plan(units: &[&str]) -> Plan {
        let stop = |unit: &&str| Action::StopUnit { name: UnitName::new(*unit).unwrap() };
        let step = Step {
            host: HostName::new("h1").unwrap(),
            components: std::collections::BTreeSet::default(),
            batch: Batch(units.iter().map(stop).collect()),
            gates: Vec::new(),
        };
        let stage =
            Stage { title: "t".to_owned(), width: 1, steps: vec![step], objects: Vec::new(), gates: Vec::new() };
        Plan { stages: vec![stage], ..Plan::default() }
    }

    #[test]
    fn what_is_in_the_way_after_everything_was_done_is_no_refusal() {
        let host = HostName::new("h1").unwrap();
        let told = after_all(OpsError::Refused(vec![Refusal::NewerRecord { host, schema: 9 }])).to_string();
        assert!(told.starts_with("everything was done") && told.contains("h1: its record has layout 9"), "{told}");
    }

    #[test]
    fn less_than_was_shown_may_run_and_more_may_not() {
        let shown = plan(&["a.service", "b.service"]);
        assert!(within(&plan(&["b.service"]), &shown));
        assert!(within(&shown, &shown));
        assert!(!within(&plan(&["a.service", "c.service"]), &shown));
    }
}
