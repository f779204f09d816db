//! `history`: what was reached, from where and why; and what of it is still kept.

use serde::Serialize;

use crate::model::Revision;
use crate::model::RevisionId;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::kept::Kept;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::store::Pruned;
use crate::store::StoreError;

/// A revision, seen from today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Past {
    /// As it was recorded.
    #[serde(flatten)]
    pub revision: Revision,
    /// The rollback that took the cluster back over it, and the revision to which.
    pub undone: Option<Undone>,
    /// Whether its target is still kept: only then can a rollback aim at it.
    pub kept: bool,
}

/// How a revision was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// The rollback.
    pub by: RevisionId,
    /// Where it led.
    pub to: RevisionId,
}

/// Every revision, oldest first.
pub fn history(invocation: &Invocation, talk: &dyn Talk) -> Result<Vec<Past>, OpsError> {
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, talk)?;
    let store = kept.store()?;
    let revisions = store.history();
    let past = revisions.iter().map(|revision| Past {
        revision: revision.clone(),
        undone: undone(revision, &revisions),
        kept: store.keeps(&revision.id),
    });
    Ok(past.collect())
}

/// The first rollback that was reached and led from this revision, or from a later one, to an earlier one.
fn undone(revision: &Revision, all: &[Revision]) -> Option<Undone> {
    all.iter().filter(|later| later.id.number > revision.id.number && later.was_reached()).find_map(|later| {
        let to = later.returns_to.as_ref()?;
        (to.number < revision.id.number).then(|| Undone { by: later.id.clone(), to: to.clone() })
    })
}

/// Drops the contents of all but the newest reached revisions. The history itself stays whole.
pub fn prune(invocation: &Invocation, keep: usize, talk: &dyn Talk) -> Result<Pruned, OpsError> {
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, talk)?;
    let folder = kept.folder.clone();
    let store = kept.store.as_mut().ok_or(StoreError::NoState { folder })?;
    let lock = store.lock(&holder(invocation, prepare::now())?)?;
    Ok(store.prune(&lock, keep)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::undone;
    use crate::model::Digest;
    use crate::model::Revision;
    use crate::model::RevisionId;
    use crate::model::RevisionState;

    fn id(number: u32) -> RevisionId {
        RevisionId { number, nonce: "n".to_owned() }
    }

    fn revision(number: u32, to: Option<u32>, state: RevisionState) -> Revision {
        Revision {
            id: id(number),
            parent: None,
            command: "up".to_owned(),
            why: String::new(),
            who: String::new(),
            at: 0,
            kubernetes: "v1.37.1".parse().unwrap(),
            config: Digest::of(b""),
            state,
            barrier: None,
            versions: std::collections::BTreeMap::new(),
            returns_to: to.map(id),
            ended: None,
            joins: None,
        }
    }

    #[test]
    fn what_a_rollback_went_back_over_is_undone_and_its_goal_is_not() {
        let all = [
            revision(1, None, RevisionState::Reached),
            revision(2, None, RevisionState::Reached),
            revision(3, None, RevisionState::Failed),
            revision(4, Some(1), RevisionState::Failed),
            revision(5, Some(1), RevisionState::Reached),
            revision(6, None, RevisionState::Reached),
        ];
        let by = |at: usize| undone(&all[at], &all).map(|undone| (undone.by.number, undone.to.number));
        assert_eq!([0, 1, 2, 3, 4, 5].map(by), [None, Some((5, 1)), Some((5, 1)), Some((5, 1)), None, None]);
    }
}
