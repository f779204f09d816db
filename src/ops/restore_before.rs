//! What lives before a restore: how much of it is lost, and the last snapshot of it.

use futures::future::join_all;

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

/// The newest revision; none where no member answers that knows of a majority.
pub(super) async fn alive(site: &Site) -> Option<u64> {
    let asked = site.members().filter_map(|name| site.etcd(name)).map(|etcd| async move { etcd.count().await });
    join_all(asked).await.into_iter().filter_map(|answer| Some(answer.ok()?.0)).max()
}

/// What is lost, counted; nothing can be said of a database that does not tell its age.
pub(super) fn loss(snapshot: Option<&Manifest>, alive: Option<u64>, now: i64) -> Option<String> {
    snapshot.map(|snapshot| counted(snapshot.etcd_revision, now - snapshot.taken_at, alive))
}

fn counted(then: u64, age: i64, alive: Option<u64>) -> String {
    let age = lasted(age);
    let Some(alive) = alive else {
        return format!("the snapshot is {age} old; etcd does not answer, so that nobody can count what is lost");
    };
    match alive.checked_sub(then) {
        Some(lost) if lost < LEAP => {
            format!("the snapshot is {age} old and etcd is at revision {alive}: {lost} revisions are lost")
        }
        Some(_) => format!("the snapshot is {age} old, from before etcd was restored; etcd is at revision {alive} now"),
        None => format!("the snapshot is {age} old and ahead of etcd, which is at revision {alive}"),
    }
}

/// What is said of the last snapshot before anybody agrees.
pub(super) fn announced(alive: Option<u64>, is_taken: bool) -> String {
    let text = match (alive, is_taken) {
        (_, true) => "a last snapshot of what lives is taken before anything stops",
        (Some(_), false) => "no last snapshot is taken of what lives: --no-last-snapshot",
        (None, false) => "no last snapshot can be taken, since etcd does not answer; data on members are kept aside",
    };
    text.to_owned()
}

/// Takes the last snapshot of what lives.
pub(super) async fn last_snapshot(site: &Site, now: i64, run: &str, talk: &dyn Talk) -> Result<(), OpsError> {
    let time = utc(now).replace(['-', ':'], "");
    let name = SnapshotName::new(format!("before-restore_{time}"));
    let name = name.map_err(|error| OpsError::Impossible(error.to_string()))?;
    let options = SaveOptions { name: None, from: None, local: None, why: "before-restore" };
    let saved = snapshot::take(site, &options, name, now, run, talk).await.map_err(|error| {
        OpsError::Impossible(format!(
            "nothing was stopped, because the last snapshot before it failed: {error}\nwhere that cannot be mended, \
             --no-last-snapshot restores without one; the members' data are kept aside all the same"
        ))
    })?;
    for (host, reason) in &saved.missing {
        talk.warn(&format!("{}: not on {host}: {reason}", saved.manifest.name));
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
    use super::announced;
    use super::counted;
    use super::lasted;

    #[test]
    fn ages_are_for_people() {
        assert_eq!([-5, 59, 7_260, 90_000].map(lasted), ["0 min", "0 min", "2 h 1 min", "1 d 1 h"].map(str::to_owned));
    }

    #[test]
    fn what_is_lost_is_counted_where_it_can_be() {
        assert!(counted(100, 3_600, Some(142)).contains("1 h 0 min old and etcd is at revision 142: 42 revisions"));
        assert!(counted(100, 60, None).contains("nobody can count"));
        assert!(counted(100, 60, Some(1_000_000_100)).contains("before etcd was restored"));
        assert!(counted(100, 60, Some(3)).contains("ahead of etcd"));
    }

    #[test]
    fn whoever_is_asked_knows_whether_there_will_be_a_last_snapshot() {
        assert!(announced(Some(7), true).contains("is taken before"));
        assert!(announced(Some(7), false).contains("--no-last-snapshot"));
        assert!(announced(None, false).contains("kept aside"));
    }
}
