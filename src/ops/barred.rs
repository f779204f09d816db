//! What a barrier on the way back leaves open.

use std::sync::Arc;

use crate::model::Barrier;
use crate::model::RevisionId;
use crate::model::SnapshotName;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::restored;
use crate::ops::snapshot;
use crate::ops::snapshot::Listed;
use crate::route::Blocked;

/// Whether an etcd snapshot from before leads past it. None brings back an authority or a key that is believed no more: a restore
/// keeps those of today.
pub fn snapshot_leads_past(barrier: &Barrier) -> bool {
    [restored::BARRIER, restored::LATE].contains(&barrier.name.as_str())
}

/// The error of a way back, with the snapshot that leads past the barrier in it, where there is one. Asks the hosts.
pub(super) async fn explained(error: OpsError, invocation: &Invocation, talk: &Arc<dyn Talk>) -> OpsError {
    match error {
        OpsError::NoWayBack { from, to, blocked, past: None } => {
            let past = match &*blocked {
                Blocked::Barrier { at, barrier } if snapshot_leads_past(barrier) => past(at, invocation, talk).await,
                _ => None,
            };
            OpsError::NoWayBack { from, to, blocked, past }
        }
        other => other,
    }
}

async fn past(barrier: &RevisionId, invocation: &Invocation, talk: &Arc<dyn Talk>) -> Option<SnapshotName> {
    match snapshot::list(invocation, None, talk).await {
        Ok(seen) => {
            seen.warn(&**talk);
            newest_before(&seen.snapshots, barrier).map(|listed| listed.name.clone())
        }
        Err(error) => {
            talk.warn(&format!("snapshots could not be looked for: {error}"));
            None
        }
    }
}

/// The newest one that this cluster signed before `barrier` was begun.
fn newest_before<'a>(all: &'a [Listed], barrier: &RevisionId) -> Option<&'a Listed> {
    let before = |listed: &&Listed| {
        let revision = listed.manifest.as_ref().and_then(|manifest| manifest.revision.as_ref());
        revision.is_some_and(|revision| revision.number < barrier.number)
    };
    all.iter().filter(before).max_by_key(|listed| listed.at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::newest_before;
    use super::snapshot_leads_past;
    use crate::model::Barrier;
    use crate::model::Digest;
    use crate::model::RevisionId;
    use crate::model::SnapshotName;
    use crate::ops::snapshot::Listed;
    use crate::snapshot::Manifest;

    fn id(number: u32) -> RevisionId {
        RevisionId { number, nonce: "n".to_owned() }
    }

    /// A snapshot of this time, taken when that revision was the newest one; without one it is not the cluster's own.
    fn listed(name: &str, at: i64, revision: Option<u32>) -> Listed {
        let part = serde_json::json!({"size": 1, "digest": Digest::of(b"")});
        let manifest = revision.map(|number| {
            serde_json::from_value::<Manifest>(serde_json::json!({
                "schema": 1, "cluster": "c", "cluster_name": "demo", "name": name, "taken_at": at, "member": "h1",
                "why": "save", "etcd_version": "3.7.2", "kubernetes": "v1.37.1", "revision": id(number), "etcd_revision": 7,
                "keys": 1, "hash": null, "state": part, "sealed": part, "database": part,
            }))
            .unwrap()
        });
        let file = SnapshotName::new(format!("{name}.snapshot")).unwrap();
        let name = SnapshotName::new(name).unwrap();
        Listed { name, file, manifest, foreign: None, trouble: None, at, size: 1, places: Vec::new() }
    }

    #[test]
    fn the_newest_snapshot_from_before_a_barrier_leads_past_it() {
        let all = [
            listed("long-before", 1, Some(1)),
            listed("before-restore", 5, Some(2)),
            listed("foreign", 6, None),
            listed("after", 7, Some(3)),
        ];
        let name = |barrier| newest_before(&all, &id(barrier)).map(|listed| listed.name.as_str());
        assert_eq!([3, 2, 1].map(name), [Some("before-restore"), Some("long-before"), None]);
    }

    #[test]
    fn no_snapshot_brings_back_what_is_believed_no_more() {
        let leads = |name: &str| snapshot_leads_past(&Barrier { name: name.to_owned(), why: String::new() });
        assert!(leads("etcd-restore") && leads("etcd-restore-late"));
        assert!(!leads("old-distrusted") && !leads("authority-lost"));
    }
}
