//! A drill: the newest snapshot is restored for proof, step by step on the clock, and held against what etcd holds now.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::model::HostName;
use crate::model::RevisionId;
use crate::model::SnapshotName;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::ops::restore_before as before;
use crate::ops::restore_before::Life;
use crate::ops::snapshot::Listed;
use crate::ops::snapshot::Place;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::list;
use crate::ops::snapshot::origin::Origin;
use crate::ops::snapshot::verify;
use crate::snapshot::Manifest;
use crate::snapshot::Snapshot;
use crate::store;

/// A restore puts revisions at least so far above the snapshot's: what lies further apart was not written one by one.
const LEAP: u64 = 1_000_000_000;
/// Verbs of the history that replace etcd's data.
const RESTORES: [&str; 2] = ["etcd snapshot restore", "etcd recover"];

/// What `drill` was told.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// The snapshot; none: the newest that is signed.
    pub name: Option<SnapshotName>,
    /// `--local`
    pub local: Option<PathBuf>,
    /// `--s3`
    pub in_bucket: bool,
    /// `--on`
    pub on: Option<HostName>,
    /// What a scheduler wants to be told of.
    pub limits: DrillLimits,
}

/// Beyond these a drill has failed, although the snapshot restores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DrillLimits {
    /// Age of the snapshot, in seconds.
    pub age: Option<i64>,
    /// Revisions that are written since.
    pub revisions: Option<u64>,
    /// Length of the drill, in seconds.
    pub seconds: Option<f64>,
}

/// What a drill showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drill {
    /// Which snapshot.
    pub name: SnapshotName,
    /// Which copy of it.
    pub place: Place,
    /// Where it was restored.
    pub host: HostName,
    /// When it was taken, seconds since 1970.
    pub taken_at: i64,
    /// How long ago that is, in seconds: what is lost when it has to be restored now.
    pub age_seconds: i64,
    /// etcd's revision in the snapshot.
    pub revision: u64,
    /// etcd's revision now; absent where no member of this cluster answers.
    pub live_revision: Option<u64>,
    /// How many revisions lie between; absent where that cannot be counted.
    pub lost_revisions: Option<u64>,
    /// Keys in the restored etcd.
    pub keys: u64,
    /// How many revisions of the cluster's state can be opened from the snapshot's own copy, with the identity here.
    pub states: usize,
    /// What was done, in order.
    pub steps: Vec<DrillStep>,
    /// All of them together.
    pub seconds: f64,
    /// How long the last real restore took; absent where there was none.
    pub last_restore: Option<LastRestore>,
    /// Each limit that is exceeded, in words.
    pub exceeded: Vec<String>,
    /// Each place that could not be looked at, in words: there may be a newer snapshot.
    pub unseen: Vec<String>,
}

/// A part of a drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrillStep {
    /// In words.
    pub what: String,
    /// How long it took.
    pub seconds: f64,
}

/// The last restore that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastRestore {
    /// Its revision.
    pub revision: RevisionId,
    /// From its beginning to the last health check.
    pub seconds: i64,
}

/// Goes through a recovery as far as that is possible beside a running cluster. Changes nothing.
pub async fn drill(invocation: &Invocation, options: &DrillOptions, talk: &Arc<dyn Talk>) -> Result<Drill, OpsError> {
    let mut steps = Vec::new();
    let mut clock = Instant::now();
    let mut done = |what: &str, clock: &mut Instant| {
        steps.push(DrillStep { what: what.to_owned(), seconds: clock.elapsed().as_secs_f64() });
        *clock = Instant::now();
    };
    let site = Site::open(invocation, talk).await?;
    done("state opened, hosts connected", &mut clock);
    let seen = list::look(&site, options.local.as_deref()).await?;
    seen.warn(&**talk);
    let (listed, manifest) = chosen(&seen.snapshots, options.name.as_ref())?;
    let place = verify::copy_of(listed, options.local.is_some(), options.in_bucket)?;
    done("snapshots looked for", &mut clock);
    let states = states(&site, listed, &place)?;
    done("keys and targets read from the snapshot", &mut clock);
    let run = holder(invocation, prepare::now())?.run;
    let proof = verify::prove(&site, listed, place, options.on.as_ref(), run, &**talk).await?;
    done("database read, verified, restored, and served by an etcd", &mut clock);
    let seconds = steps.iter().map(|step| step.seconds).sum();

    let now = prepare::now();
    let live = match before::look(&site, Some(manifest), "").await {
        Life::Serves(revision) => Some(revision),
        Life::Empty { .. } | Life::Silent => None,
    };
    let age_seconds = (now - manifest.taken_at).max(0);
    let lost = live.map(|live| live.saturating_sub(manifest.etcd_revision)).filter(|lost| *lost < LEAP);
    Ok(Drill {
        name: listed.name.clone(),
        place: proof.place,
        host: proof.host,
        taken_at: manifest.taken_at,
        age_seconds,
        revision: manifest.etcd_revision,
        live_revision: live,
        lost_revisions: lost,
        keys: proof.keys,
        states,
        steps,
        seconds,
        last_restore: last_restore(&site),
        exceeded: exceeded(&options.limits, age_seconds, (live, lost), seconds),
        unseen: seen.unseen,
    })
}

/// The snapshot of that name, else the newest: only what this cluster's identity signed.
fn chosen<'a>(listed: &'a [Listed], name: Option<&SnapshotName>) -> Result<(&'a Listed, &'a Manifest), OpsError> {
    let believed = listed.iter().filter_map(|listed| Some((listed, listed.manifest.as_ref()?)));
    let meant = believed.filter(|(listed, _)| name.is_none_or(|name| listed.name == *name));
    meant.max_by_key(|(_, manifest)| manifest.taken_at).ok_or_else(|| {
        OpsError::Impossible(match name {
            Some(name) => format!("there is no snapshot {name} that this cluster's identity signed"),
            None => "there is no snapshot that this cluster's identity signed: nothing could be restored".to_owned(),
        })
    })
}

/// Opens the state that the snapshot holds, as whoever lost everything else would, and counts what is in it.
fn states(site: &Site, listed: &Listed, place: &Place) -> Result<usize, OpsError> {
    let broken =
        |source| OpsError::Snapshot { what: format!("snapshot {} ({place})", listed.name), source: Box::new(source) };
    let origin = Origin::of(site, place, listed)?;
    let identity = site.store().identity();
    // Reading waits for hosts: not for a thread that others need.
    let read = || {
        let state = Snapshot::open(origin.open()?, identity, Some(&listed.name)).and_then(|mut open| open.state());
        Ok(store::secrets_of(&state.map_err(broken)?, identity)?.len())
    };
    tokio::task::block_in_place(read)
}

fn last_restore(site: &Site) -> Option<LastRestore> {
    let history = site.store().history();
    let restored = history
        .iter()
        .rev()
        .find(|revision| revision.was_reached() && RESTORES.contains(&revision.command.as_str()))?;
    Some(LastRestore { revision: restored.id.clone(), seconds: restored.ended? - restored.at })
}

/// Each limit that is exceeded. What cannot be counted exceeds every limit: nobody knows that it does not.
fn exceeded(limits: &DrillLimits, age: i64, (live, lost): (Option<u64>, Option<u64>), seconds: f64) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(most) = limits.age.filter(|most| age > *most) {
        words.push(format!("the snapshot is {age} s old, and {most} s are allowed"));
    }
    match (limits.revisions, lost) {
        (Some(most), Some(lost)) if lost > most => {
            words.push(format!("{lost} revisions were written since, and {most} are allowed"));
        }
        (Some(_), None) if live.is_none() => {
            words.push("etcd does not answer, so that nobody can count what was written since".to_owned());
        }
        (Some(_), None) => {
            words.push("etcd was restored since, so that nobody can count what was written since".to_owned());
        }
        _ => {}
    }
    if let Some(most) = limits.seconds.filter(|most| seconds > *most) {
        words.push(format!("it took {seconds:.1} s, and {most} s are allowed"));
    }
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::DrillLimits;
    use super::chosen;
    use super::exceeded;
    use crate::model::Digest;
    use crate::model::SnapshotName;
    use crate::ops::snapshot::Listed;
    use crate::snapshot::Manifest;

    fn listed(name: &str, taken_at: Option<i64>) -> Listed {
        let part = serde_json::json!({"size": 1, "digest": Digest::of(b"")});
        let manifest = taken_at.map(|taken_at| {
            let manifest: Manifest = serde_json::from_value(serde_json::json!({
                "schema": 1, "cluster": "c", "cluster_name": "demo", "name": name, "taken_at": taken_at, "member": "h1",
                "why": "save", "etcd_version": "3.7.2", "kubernetes": "v1.37.1", "revision": null, "etcd_revision": 7,
                "keys": 1, "hash": null, "state": part, "sealed": part, "database": part,
            }))
            .unwrap();
            manifest
        });
        let file = SnapshotName::new(format!("{name}.snapshot")).unwrap();
        let name = SnapshotName::new(name).unwrap();
        // The file's own time says nothing: copying changes it.
        Listed { name, file, manifest, foreign: None, trouble: None, at: 99, size: 1, places: Vec::new() }
    }

    #[test]
    fn the_newest_that_is_signed_is_restored() {
        let all = [listed("old", Some(1)), listed("new", Some(5)), listed("middle", Some(3)), listed("unsigned", None)];
        assert_eq!(chosen(&all, None).unwrap().0.name.as_str(), "new");
        let named =
            |name: &str| chosen(&all, Some(&SnapshotName::new(name).unwrap())).map(|found| found.0.name.to_string());
        assert_eq!(named("old").unwrap(), "old");
        assert!(named("unsigned").is_err());
        assert!(named("missing").is_err());
        assert!(chosen(&all[3..], None).is_err());
    }

    #[test]
    fn a_limit_is_exceeded_by_more_and_by_what_nobody_can_count() {
        let none = DrillLimits::default();
        assert!(exceeded(&none, i64::MAX, (None, None), 1e9).is_empty());
        let limits = DrillLimits { age: Some(60), revisions: Some(5), seconds: Some(2.0) };
        assert!(exceeded(&limits, 60, (Some(105), Some(5)), 2.0).is_empty());
        let words = exceeded(&limits, 61, (Some(106), Some(6)), 2.1);
        assert_eq!(words.len(), 3, "{words:?}");
        assert!(exceeded(&limits, 0, (None, None), 0.0)[0].contains("does not answer"));
        assert!(exceeded(&limits, 0, (Some(2_000_000_000), None), 0.0)[0].contains("was restored"));
    }
}
