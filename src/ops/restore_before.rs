//! What lives before a restore: how much of it is lost, and the last snapshot of it.

use std::collections::BTreeSet;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::model::SnapshotName;
use crate::model::utc;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::snapshot;
use crate::ops::snapshot::SaveOptions;
use crate::ops::snapshot::Site;
use crate::snapshot::Manifest;

/// A restore puts revisions at least so far above the snapshot's.
const LEAP: u64 = 1_000_000_000;

/// What etcd is before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It serves, at this revision.
    Serves(u64),
    /// Something answers as etcd, and it is not this cluster's: a disk was lost, and etcd began anew on an empty one.
    Empty {
        /// Its revision.
        revision: u64,
    },
    /// No member answers that knows of a majority.
    Silent,
}

/// Asks every member. A revision never goes back: what is below one that this cluster had is another etcd.
pub(super) async fn look(site: &Site, snapshot: Option<&Manifest>, prefix: &str) -> Life {
    let asked = site.members().filter_map(|name| site.etcd(name)).map(|etcd| async move { etcd.count().await });
    let newest = join_all(asked).await.into_iter().filter_map(|answer| Some(answer.ok()?.0)).max();
    let Some(revision) = newest else { return Life::Silent };
    // A host that cannot list its snapshots tells of no revision; it is not a reason against anything.
    let listed = snapshot::furthest(site).await.map(|(revision, _)| revision);
    let known = listed.max(snapshot.map(|manifest| manifest.etcd_revision));
    // Hundreds of writes after it began anew, an empty one can still be told by what API servers do not make by themselves.
    let bare = known.is_none() && is_bare(site, prefix).await;
    judge(revision, known, bare)
}

fn judge(revision: u64, known: Option<u64>, bare: bool) -> Life {
    match known {
        Some(known) if revision < known => Life::Empty { revision },
        None if bare || revision < 2 => Life::Empty { revision },
        _ => Life::Serves(revision),
    }
}

/// Whether etcd has none of the role bindings that bastide keeps in every cluster. `prefix` is the API servers'.
async fn is_bare(site: &Site, prefix: &str) -> bool {
    let folder = format!("{prefix}/clusterrolebindings/");
    let objects = site.desired.objects.iter().map(|object| &object.id);
    let ours: BTreeSet<_> = objects
        .filter(|id| id.kind == "ClusterRoleBinding" && id.name.starts_with("bastide:"))
        .map(|id| format!("{folder}{}", id.name))
        .collect();
    for etcd in site.members().filter_map(|name| site.etcd(name)) {
        if let Ok(names) = etcd.names(&folder).await {
            return !ours.is_empty() && !names.iter().any(|name| ours.contains(name));
        }
    }
    false
}

/// What is lost, counted; nothing can be said of a database that does not tell its age.
pub(super) fn loss(snapshot: Option<&Manifest>, life: Life, now: i64) -> Option<String> {
    snapshot.map(|snapshot| counted(snapshot.etcd_revision, now - snapshot.taken_at, life))
}

fn counted(then: u64, age: i64, life: Life) -> String {
    let age = lasted(age);
    let Life::Serves(alive) = life else {
        return format!("the snapshot is {age} old; etcd does not answer, so that nobody can count what is lost");
    };
    match alive.saturating_sub(then) {
        lost if lost < LEAP => {
            format!("the snapshot is {age} old and etcd is at revision {alive}: {lost} revisions are lost")
        }
        _ => format!("the snapshot is {age} old, from before etcd was restored; etcd is at revision {alive} now"),
    }
}

/// What is said of the last snapshot before anybody agrees.
pub(super) fn announced(life: Life, is_taken: bool) -> String {
    match (life, is_taken) {
        (_, true) => "a last snapshot of what lives is taken before anything stops".to_owned(),
        (Life::Serves(_), false) => "no last snapshot is taken of what lives: --no-last-snapshot".to_owned(),
        (Life::Silent, false) => {
            "no last snapshot can be taken, since etcd does not answer; data on members are kept aside".to_owned()
        }
        (Life::Empty { revision }, false) => format!(
            "the etcd that answers is not this cluster's: it is at revision {revision}, and the cluster was further. It lost its disk \
             and began anew, so no last snapshot is taken of it; what lies on members is kept aside"
        ),
    }
}

/// Takes the last snapshot of what lives, named after `why` and the time.
pub(super) async fn last_snapshot(
    site: &Site,
    why: &str,
    now: i64,
    run: &str,
    talk: &dyn Talk,
) -> Result<(), OpsError> {
    let time = utc(now).replace(['-', ':'], "");
    let name = SnapshotName::new(format!("{why}_{time}"));
    let name = name.map_err(|error| OpsError::Impossible(error.to_string()))?;
    let options = SaveOptions { name: None, from: None, local: None, why: why.to_owned() };
    let never = CancellationToken::new();
    let saved = snapshot::take(site, &options, name, (now, run), talk, &never).await.map_err(|error| {
        OpsError::Impossible(format!(
            "nothing was changed, because the last snapshot before it failed: {error}\nwhere that cannot be mended, \
             --no-last-snapshot goes without one"
        ))
    })?;
    for (place, reason) in &saved.missing {
        talk.warn(&format!("{}: not on {place}: {reason}", saved.manifest.name));
    }
    Ok(())
}

/// `3 d 4 h`, `12 min`
fn lasted(seconds: i64) -> String {
    let minutes = seconds.max(0) / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::Life;
    use super::announced;
    use super::counted;
    use super::judge;
    use super::lasted;

    #[test]
    fn ages_are_for_people() {
        assert_eq!([-5, 59, 7_260, 90_000].map(lasted), ["0 min", "0 min", "2 h 1 min", "1 d 1 h"].map(str::to_owned));
    }

    #[test]
    fn what_is_lost_is_counted_where_it_can_be() {
        assert!(
            counted(100, 3_600, Life::Serves(142)).contains("1 h 0 min old and etcd is at revision 142: 42 revisions")
        );
        assert!(counted(100, 60, Life::Silent).contains("nobody can count"));
        assert!(counted(100, 60, Life::Empty { revision: 3 }).contains("nobody can count"));
        assert!(counted(100, 60, Life::Serves(1_000_000_100)).contains("before etcd was restored"));
    }

    #[test]
    fn an_etcd_that_began_anew_is_not_the_cluster() {
        assert_eq!(judge(142, Some(100), false), Life::Serves(142));
        assert_eq!(judge(100, Some(100), false), Life::Serves(100));
        assert_eq!(
            judge(900, Some(1_000), false),
            Life::Empty { revision: 900 },
            "API servers have written to it since"
        );
        assert_eq!(judge(1, None, false), Life::Empty { revision: 1 });
        assert_eq!(judge(900, None, true), Life::Empty { revision: 900 });
        assert_eq!(judge(900, None, false), Life::Serves(900), "where nothing tells, it is kept");
    }

    #[test]
    fn whoever_is_asked_knows_whether_there_will_be_a_last_snapshot() {
        assert!(announced(Life::Serves(7), true).contains("is taken before"));
        assert!(announced(Life::Serves(7), false).contains("--no-last-snapshot"));
        assert!(announced(Life::Silent, false).contains("kept aside"));
        assert!(announced(Life::Empty { revision: 7 }, false).contains("began anew"));
    }
}
