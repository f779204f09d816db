//! `rollback`: the target is one that was reached before. The same planner brings the hosts there, over stored targets of
//! which each may run beside the next, and the history only grows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::model::Action;
use crate::model::HostName;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::barred;
use crate::ops::kept::Kept;
use crate::ops::legs;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;
use crate::route;
use crate::route::Blocked;
use crate::route::Point;
use crate::route::Stop;
use crate::secrets;
use crate::secrets::Prefer;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;
use crate::store::Store;
use crate::store::StoreError;

/// The command under which a renewal of certificates stands in the history.
pub(super) const ROTATE: &str = "rotate-certs";
/// The command under which a leg of an exchange of encryption keys does.
pub(super) const ROTATE_KEY: &str = "encrypt rotate-key";
/// The command under which a leg does that `up` walks from one encryption configuration to another.
pub(super) const WALK_KEYS: &str = "up: encryption";

/// The command under which a leg of an exchange of authorities does.
pub const ROTATE_AUTHORITIES: &str = "rotate-certs --ca";
/// The command under which a leg of an exchange of the key for service-account tokens does.
pub const ROTATE_TOKEN_KEY: &str = "rotate-certs --service-account-key";

/// What `rollback` was told.
#[derive(Debug, Clone, Default)]
pub struct RollbackOptions {
    /// `--to N`
    pub to: Option<u32>,
    /// `--yes`
    pub yes: bool,
    /// `--timings`
    pub timings: bool,
}

/// The way as it was found from the state.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// Where it begins: what was reached last.
    pub from: RevisionId,
    /// The stops in order; the last one is the goal.
    pub stops: Vec<Revision>,
}

impl Way {
    /// The next stop.
    fn next(&self) -> Result<&Revision, OpsError> {
        self.stops.first().ok_or_else(|| OpsError::Impossible("the way back has no stop".to_owned()))
    }

    /// The last stop.
    fn goal(&self) -> Result<&Revision, OpsError> {
        self.stops.last().ok_or_else(|| OpsError::Impossible("the way back has no stop".to_owned()))
    }

    /// `from revision 4 to 2: by 3, then 2`.
    fn words(&self) -> String {
        let names: Vec<_> = self.stops.iter().map(|stop| stop.id.to_string()).collect();
        match names.as_slice() {
            [goal] => format!("from revision {} back to revision {goal}, in one leg", self.from),
            names => format!("from revision {} back by revisions {}, one after another", self.from, names.join(", ")),
        }
    }
}

/// Takes the cluster back. How that ended, and the revision where it stands then.
pub async fn rollback(
    invocation: &Invocation,
    options: &RollbackOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<(Reached, RevisionId), OpsError> {
    let mut to = options.to;
    let mut except = BTreeSet::new();
    let mut changed = false;
    loop {
        // After each leg the state says where the cluster stands and which way is left, as after a run that died.
        let (prepared, way) = match Box::pin(leg(invocation, to, talk)).await {
            Ok(found) => found,
            Err(error) => return Err(Box::pin(barred::explained(error, invocation, talk)).await),
        };
        talk.show(&way.words());
        let last = way.stops.len() == 1;
        let errand = Errand { yes: options.yes, timings: options.timings, guarded: !changed, ..errand(&way)? };
        let goal = way.goal()?.id.clone();
        to = Some(goal.number);
        match Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await? {
            Reached::Already => {}
            Reached::Wholly => changed = true,
            Reached::Except(hosts) => except.extend(hosts),
        }
        if last {
            let reached = match (except.is_empty(), changed) {
                (false, _) => Reached::Except(except),
                (true, true) => Reached::Wholly,
                (true, false) => Reached::Already,
            };
            return Ok((reached, goal));
        }
        legs::goes_on(cancel)?;
    }
}

/// What the next leg's revision says of itself.
pub(super) fn errand(way: &Way) -> Result<Errand, OpsError> {
    let (next, goal) = (way.next()?, way.goal()?);
    let why = if next.id == goal.id {
        format!("rollback to {}", goal.id)
    } else {
        format!("rollback to {}, by way of {}", goal.id, next.id)
    };
    Ok(Errand { why, returns_to: Some(next.id.clone()), config: Some(next.config), ..Errand::default() })
}

/// Looks at the hosts and plans the next leg of the way to `to`.
pub(super) async fn leg(
    invocation: &Invocation,
    to: Option<u32>,
    talk: &Arc<dyn Talk>,
) -> Result<(Prepared, Way), OpsError> {
    let terms = secrets::Terms::of(&Local::read(invocation)?.cluster);
    let now = prepare::now();
    let found: Mutex<Option<Way>> = Mutex::new(None);
    let stored = |kept: &Kept| -> Result<Target, OpsError> {
        let way = way(kept, to)?;
        let target = target(kept, &way, terms, now)?;
        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
        Ok(target)
    };
    let prepared = prepare::prepare(invocation, Some(&stored), talk).await?;
    let way = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let way = way.ok_or_else(|| OpsError::Impossible("no way back was looked for".to_owned()))?;
    in_reach(&prepared)?;
    Ok((prepared, way))
}

/// The way that is left from where the state says the cluster is.
pub(super) fn way(kept: &Kept, to: Option<u32>) -> Result<Way, OpsError> {
    let store = kept.store()?;
    let today = kept.secrets.as_ref().ok_or(OpsError::NothingReached)?;
    let history = store.history();
    let goal = goal(&history, to)?;
    let from = history.iter().rev().find(|revision| revision.was_reached()).ok_or(OpsError::NothingReached)?;
    let stops = stops(store, &history, &goal.id, today)?;
    let blocked = |blocked: Blocked| OpsError::NoWayBack {
        from: from.id.clone(),
        to: goal.id.clone(),
        blocked: Box::new(blocked),
        past: None,
    };
    let mut ids = route::walk(&stops, &from.id, &goal.id).map_err(blocked)?;
    let newest = store.newest();
    // Hosts may stand between the last reached revision and one that failed: that mixture is left first, unless the one that
    // failed was on its way to the same place.
    let mixed = newest.is_some_and(|newest| !newest.was_reached() && newest.returns_to.as_ref() != ids.first());
    if ids.is_empty() || (mixed && ids.first() != Some(&from.id)) {
        ids.insert(0, from.id.clone());
    }
    let stop = |id: &RevisionId| history.iter().find(|revision| revision.id == *id).cloned();
    Ok(Way { from: from.id.clone(), stops: ids.iter().filter_map(stop).collect() })
}

/// The revision that is meant. Without a number: after a run that did not reach its target, the one that was reached last
/// (or the one to which that run was going back); else the one before the present one, whoever made the present one.
fn goal(history: &[Revision], to: Option<u32>) -> Result<&Revision, OpsError> {
    let find = |id: &RevisionId| history.iter().find(|revision| revision.id == *id);
    if let Some(number) = to {
        let meant = history.iter().find(|revision| revision.id.number == number);
        let meant = meant.ok_or_else(|| {
            OpsError::Impossible(format!("there is no revision {number}; `bastide history` lists them"))
        })?;
        return if meant.was_reached() {
            Ok(meant)
        } else {
            Err(OpsError::NeverReached { revision: meant.id.clone() })
        };
    }
    let newest = history.last().ok_or(OpsError::NothingReached)?;
    if !newest.was_reached() {
        let resumed = newest.returns_to.as_ref().and_then(find);
        let reached = || history.iter().rev().find(|revision| revision.was_reached());
        return resumed.or_else(reached).ok_or(OpsError::NothingReached);
    }
    let mut present = newest;
    while let Some(original) = present.returns_to.as_ref().and_then(find) {
        present = original;
    }
    present.parent.as_ref().and_then(find).ok_or(OpsError::NothingBefore { revision: newest.id.clone() })
}

/// Every reached revision from `goal` on whose contents are kept, with what it would trust if it were taken up today.
fn stops(store: &Store, history: &[Revision], goal: &RevisionId, today: &Secrets) -> Result<Vec<Stop>, OpsError> {
    let mut stops = Vec::new();
    for revision in history.iter().filter(|revision| revision.id >= *goal) {
        if !revision.was_reached() && revision.barrier.is_none() {
            continue;
        }
        let (_, desired, blobs, sealed) = match store.load(&revision.id) {
            Ok(loaded) => loaded,
            Err(StoreError::NotKept { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let was = secrets::unseal_form(&sealed)?;
        let rotated = only_rotations(&after(history, &revision.id));
        let kept = if rotated { keys_of_then(today, &was) } else { today.clone() };
        let with = Secrets { leaves: was.leaves.clone(), etcd: was.etcd.clone(), ..kept };
        let taken_up = route::retarget(&desired, &blobs, &was, &with);
        stops.push(Stop {
            id: revision.id.clone(),
            point: Point::new(&taken_up.desired, &taken_up.blobs, &with),
            barrier: revision.barrier.clone(),
        });
    }
    Ok(stops)
}

/// The next stop's target with the keys of today.
pub(super) fn target(kept: &Kept, way: &Way, terms: secrets::Terms, now: i64) -> Result<Target, OpsError> {
    let store = kept.store()?;
    let today = kept.secrets.as_ref().ok_or(OpsError::NothingReached)?;
    let next = way.next()?;
    let (_, desired, blobs, sealed) = store.load(&next.id)?;
    let was = secrets::unseal_form(&sealed)?;
    let rotated = only_rotations(&after(&store.history(), &next.id));
    let prefer = if rotated { Prefer::Stored } else { Prefer::Todays };
    let kept = if rotated { keys_of_then(today, &was) } else { today.clone() };
    let (secrets, issued) = secrets::carry(&was, &kept, prefer, terms, now, &mut SystemEntropy)?;
    let taken_up = route::retarget(&desired, &blobs, &was, &secrets);
    Ok(Target { desired: taken_up.desired, blobs: Arc::new(taken_up.blobs), secrets, issued })
}

/// The keys of today with all those of then that a rotation exchanges: what is undone is nothing but their rotation.
fn keys_of_then(today: &Secrets, then: &Secrets) -> Secrets {
    Secrets {
        authorities: then.authorities.clone(),
        service_account: then.service_account.clone(),
        encryption: then.encryption.clone(),
        ..today.clone()
    }
}

/// What came after `id`.
fn after(history: &[Revision], id: &RevisionId) -> Vec<Revision> {
    history.iter().filter(|revision| revision.id > *id).cloned().collect()
}

/// Whether all of these did nothing but exchange certificates or keys, or take such an exchange back.
fn only_rotations(undone: &[Revision]) -> bool {
    !undone.is_empty()
        && undone.iter().enumerate().all(|(at, revision)| match &revision.returns_to {
            None => {
                let rotations = [ROTATE, ROTATE_KEY, WALK_KEYS, ROTATE_AUTHORITIES, ROTATE_TOKEN_KEY];
                rotations.contains(&revision.command.as_str())
            }
            Some(to) => {
                let between: Vec<_> = undone[..at].iter().filter(|earlier| earlier.id > *to).cloned().collect();
                between.is_empty() || only_rotations(&between)
            }
        })
}

/// Every program, image and content that the plan brings must be at hand before the first step (design 11.9).
fn in_reach(prepared: &Prepared) -> Result<(), OpsError> {
    let mut missing: BTreeSet<(HostName, String)> = BTreeSet::new();
    for step in prepared.plan.stages.iter().flat_map(|stage| &stage.steps) {
        for action in &step.batch.0 {
            let (digest, what) = match action {
                Action::PutFile { path, digest, .. } => (digest, path.to_string()),
                Action::ImportImage { image, archive, .. } => (archive, format!("image {image}")),
                _ => continue,
            };
            if prepared.target.blobs.get(digest).is_none() && !prepared.bundle.holds(digest) {
                missing.insert((step.host.clone(), what));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = missing.iter().map(|(host, what)| format!("{host}: {what}")).collect();
    Err(OpsError::OutOfReach { missing: words })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::ROTATE;
    use super::ROTATE_AUTHORITIES;
    use super::ROTATE_KEY;
    use super::ROTATE_TOKEN_KEY;
    use super::WALK_KEYS;
    use super::goal;
    use super::only_rotations;
    use crate::model::Digest;
    use crate::model::Revision;
    use crate::model::RevisionId;
    use crate::model::RevisionState::Failed;
    use crate::model::RevisionState::Reached;
    use crate::model::RevisionState::Started;

    fn id(number: u32) -> RevisionId {
        RevisionId { number, nonce: "n".to_owned() }
    }

    /// A history in which each revision's parent is the newest one that was reached before it.
    fn history(entries: &[(&str, Option<u32>, crate::model::RevisionState)]) -> Vec<Revision> {
        let mut all: Vec<Revision> = Vec::new();
        for (number, (command, to, state)) in (1..).zip(entries) {
            let parent = all.iter().rev().find(|revision| revision.was_reached()).map(|revision| revision.id.clone());
            all.push(Revision {
                id: id(number),
                parent,
                command: (*command).to_owned(),
                why: String::new(),
                who: String::new(),
                at: 0,
                kubernetes: "v1.37.1".parse().unwrap(),
                config: Digest::of(b""),
                state: state.clone(),
                barrier: None,
                versions: std::collections::BTreeMap::new(),
                returns_to: to.map(id),
                ended: None,
                joins: None,
            });
        }
        all
    }

    fn meant(history: &[Revision], to: Option<u32>) -> Option<u32> {
        goal(history, to).ok().map(|revision| revision.id.number)
    }

    #[test]
    fn the_revision_before_is_meant_and_after_a_rollback_the_one_before_its_goal() {
        let three = history(&[("up", None, Reached), ("up", None, Reached), ("up", None, Reached)]);
        assert_eq!(meant(&three, None), Some(2));
        assert_eq!(meant(&three, Some(1)), Some(1));
        assert_eq!(meant(&three, Some(9)), None);
        assert_eq!(meant(&three[..1], None), None);
        let back = history(&[
            ("up", None, Reached),
            ("up", None, Reached),
            ("up", None, Reached),
            ("rollback", Some(2), Reached),
        ]);
        assert_eq!(meant(&back, None), Some(1));
    }

    #[test]
    fn a_run_that_died_is_left_for_what_was_reached_and_a_rollback_that_died_goes_on() {
        for state in [Started, Failed] {
            let died = history(&[("up", None, Reached), ("up", None, Reached), ("up", None, state.clone())]);
            assert_eq!(meant(&died, None), Some(2));
            assert_eq!(meant(&died, Some(3)), None);
            let halfway =
                history(&[("up", None, Reached), ("up", None, Reached), ("rollback", Some(1), state.clone())]);
            assert_eq!(meant(&halfway, None), Some(1));
            assert_eq!(meant(&history(&[("up", None, state)]), None), None);
        }
    }

    #[test]
    fn keys_go_back_only_where_nothing_but_their_renewal_is_undone() {
        let all = history(&[
            ("up", None, Reached),
            (ROTATE, None, Reached),
            (ROTATE, None, Failed),
            ("rollback", Some(1), Reached),
            ("up", None, Reached),
        ]);
        let keys = history(&[
            (ROTATE_KEY, None, Reached),
            (WALK_KEYS, None, Reached),
            (ROTATE_KEY, None, Failed),
            (ROTATE, None, Reached),
        ]);
        assert!(only_rotations(&keys));
        let exchanges = [(ROTATE_AUTHORITIES, None, Reached), (ROTATE_TOKEN_KEY, None, Started)];
        assert!(only_rotations(&history(&exchanges)));
        assert!(only_rotations(&all[1..2]));
        assert!(only_rotations(&all[1..3]));
        assert!(only_rotations(&all[2..4]));
        assert!(!only_rotations(&all[1..5]));
        assert!(!only_rotations(&[]));
    }
}
