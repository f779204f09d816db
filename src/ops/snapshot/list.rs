//! What snapshots there are, on hosts, in the bucket and here; and which of them go.

use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::host::HostError;
use crate::host::SnapshotFile;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::prepare;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::shelf;
use crate::ops::snapshot::site;
use crate::snapshot::ENDING;
use crate::snapshot::Foreign;
use crate::snapshot::LONGEST_END;
use crate::snapshot::Manifest;
use crate::snapshot::SnapshotError;
use crate::snapshot::manifest_of;
use crate::snapshot::recognise;
use crate::store;
use crate::store::Identity;

/// Where a snapshot lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "place")]
pub enum Place {
    /// On this host.
    Host {
        /// Its name.
        host: HostName,
    },
    /// In the bucket that cluster.yml names.
    Bucket {
        /// `s3://bucket/folder`
        url: String,
    },
    /// In a folder of the operator's.
    Local {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host { host } => write!(f, "{host}"),
            Self::Bucket { url } => write!(f, "{url}"),
            Self::Local { path } => write!(f, "{}", path.display()),
        }
    }
}

/// One snapshot, wherever it lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// What it is asked for by: the file's name, without bastide's ending.
    pub name: SnapshotName,
    /// The file's whole name.
    pub file: SnapshotName,
    /// What it says of itself, verified; absent where it is another's or not to be believed.
    pub manifest: Option<Manifest>,
    /// Whose it is, where it is not bastide's: `rke` or `etcdctl`. Neither sealed nor signed.
    pub foreign: Option<&'static str>,
    /// Why it is not believed.
    pub trouble: Option<String>,
    /// When it was taken, or else last changed; seconds since 1970.
    pub at: i64,
    /// In bytes.
    pub size: u64,
    /// Every place where this very snapshot lies.
    pub places: Vec<Place>,
}

/// What was found, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Seen {
    /// Oldest first.
    pub snapshots: Vec<Listed>,
    /// Each place that did not answer, in words.
    pub unseen: Vec<String>,
}

impl Seen {
    /// Says what could not be looked at.
    pub(in crate::ops) fn warn(&self, talk: &dyn Talk) {
        for words in &self.unseen {
            talk.warn(words);
        }
    }
}

/// Looks on every etcd host, in the bucket that cluster.yml names, and in `local`.
pub async fn list(invocation: &Invocation, local: Option<&Path>, talk: &Arc<dyn Talk>) -> Result<Seen, OpsError> {
    let site = Site::open(invocation, talk).await?;
    look(&site, local).await
}

/// The same on a cluster that is open already. A bucket that cannot be listed is named and does not stop what hosts have.
pub(super) async fn look(site: &Site, local: Option<&Path>) -> Result<Seen, OpsError> {
    let identity = site.store().identity();
    let unseen = |what: &dyn std::fmt::Display| format!("{what}: what lies there is not listed");
    let mut seen = Seen {
        snapshots: Vec::new(),
        unseen: site.silent().map(|host| unseen(&format!("{host} does not answer"))).collect(),
    };
    let (on_hosts, in_bucket) = futures::join!(on_hosts(site), shelf::look(site));
    let (mut all, silent) = on_hosts?;
    seen.unseen.extend(silent.iter().map(|error| unseen(error)));
    match in_bucket {
        Ok(files) => {
            for (place, file) in files {
                add(&mut all, one(&file, place, identity));
            }
        }
        Err(error) => seen.unseen.push(unseen(&error)),
    }
    for path in local.map(store::files_in).transpose()?.unwrap_or_default() {
        if let Some(file) = local_file(&path)? {
            add(&mut all, one(&file, Place::Local { path }, identity));
        }
    }
    all.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
    seen.snapshots = all;
    Ok(seen)
}

/// What the etcd hosts that answer have, and which of them could not list it: a host that is ill is no reason not to see the others'.
async fn on_hosts(site: &Site) -> Result<(Vec<Listed>, Vec<HostError>), OpsError> {
    let folder = site::folder()?;
    let asked = site.keepers().map(|(name, machine)| {
        let folder = &folder;
        async move { (name, machine.list_snapshots(folder, LONGEST_END).await) }
    });
    let identity = site.store().identity();
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for (host, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(files) => {
                for file in files {
                    add(&mut all, one(&file, Place::Host { host: host.clone() }, identity));
                }
            }
            Err(error) => wrong.push(error),
        }
    }
    Ok((all, wrong))
}

/// The newest revision of etcd of which any host has a snapshot that this cluster signed, and that snapshot. An etcd that is behind it
/// is not this cluster's: revisions never go back. A bucket is not asked: it may hang, and nobody waits for it before a snapshot.
pub(in crate::ops) async fn furthest(site: &Site) -> Option<(u64, SnapshotName)> {
    on_hosts(site)
        .await
        .ok()?
        .0
        .into_iter()
        .filter_map(|one| Some((one.manifest?.etcd_revision, one.name)))
        .max_by_key(|(revision, _)| *revision)
}

/// A file of the operator's as a host would show it; none for what has no snapshot's name.
pub(super) fn local_file(path: &Path) -> Result<Option<SnapshotFile>, OpsError> {
    let name = path.file_name().and_then(|name| name.to_str()).map(SnapshotName::new);
    let Some(Ok(file)) = name else { return Ok(None) };
    let failed = |error: std::io::Error| OpsError::local(path, error);
    let mut open = store::open_file(path)?;
    let metadata = open.metadata().map_err(failed)?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let mut first = Vec::new();
    (&mut open).take(64).read_to_end(&mut first).map_err(failed)?;
    open.seek(SeekFrom::Start(metadata.len().saturating_sub(LONGEST_END))).map_err(failed)?;
    let mut end = Vec::new();
    open.take(LONGEST_END).read_to_end(&mut end).map_err(failed)?;
    let changed = changed.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default();
    Ok(Some(SnapshotFile { file, size: metadata.len(), changed, first, end }))
}

/// What a file is.
fn one(file: &SnapshotFile, place: Place, identity: &Identity) -> Listed {
    let bare = file.file.as_str().strip_suffix(ENDING).and_then(|bare| SnapshotName::new(bare).ok());
    let foreign = match recognise(&file.first) {
        Some(Foreign::RkeZip) => Some("rke"),
        Some(Foreign::Database) => Some("etcdctl"),
        None => None,
    };
    let mut listed = Listed {
        name: bare.clone().unwrap_or_else(|| file.file.clone()),
        file: file.file.clone(),
        manifest: None,
        foreign,
        trouble: None,
        at: file.changed,
        size: file.size,
        places: vec![place],
    };
    if foreign.is_some() {
        return listed;
    }
    let read = match &bare {
        Some(name) => manifest_of(&file.end, identity, Some(name)),
        None => Err(SnapshotError::NotOurs),
    };
    match read {
        Ok(manifest) => {
            listed.at = manifest.taken_at;
            listed.manifest = Some(manifest);
        }
        Err(error) => listed.trouble = Some(error.to_string()),
    }
    listed
}

/// The same snapshot in one more place, or one more snapshot.
fn add(all: &mut Vec<Listed>, found: Listed) {
    let same = all.iter_mut().find(|known| {
        known.file == found.file
            && known.size == found.size
            && known.manifest == found.manifest
            && known.foreign == found.foreign
            && known.trouble == found.trouble
    });
    match same {
        Some(known) => known.places.extend(found.places),
        None => all.push(found),
    }
}

/// Removes a snapshot from every place where it lies, after a yes.
pub async fn delete(
    invocation: &Invocation,
    name: &SnapshotName,
    local: Option<&Path>,
    yes: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Seen, OpsError> {
    let site = Site::open(invocation, talk).await?;
    let mut seen = look(&site, local).await?;
    seen.snapshots.retain(|listed| listed.name == *name);
    seen.warn(&**talk);
    if seen.snapshots.is_empty() {
        return Err(OpsError::Impossible(format!("there is no snapshot {name}")));
    }
    remove(&site, &seen.snapshots, yes, &**talk).await?;
    Ok(seen)
}

/// Which snapshots stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pruning {
    /// So many of the newest, whatever their age.
    pub(super) keep: u32,
    /// And all that are younger than so many seconds.
    pub(super) younger_than: Option<i64>,
}

impl Pruning {
    /// The snapshots that go. Only what this cluster's identity signed: everything else is not bastide's to judge.
    pub(super) fn chosen(self, all: &[Listed], now: i64) -> Vec<Listed> {
        let mut ours: Vec<_> = all.iter().filter(|listed| listed.manifest.is_some()).collect();
        ours.sort_by_key(|listed| std::cmp::Reverse((listed.at, &listed.name)));
        let old = |listed: &&&Listed| self.younger_than.is_none_or(|age| now - listed.at >= age);
        ours.iter().skip(self.keep as usize).filter(old).map(|listed| (*listed).clone()).collect()
    }
}

/// Removes what `pruning` does not keep, after a yes; without `keep`, so many stay as cluster.yml says.
pub async fn prune(
    invocation: &Invocation,
    keep: Option<u32>,
    younger_than: Option<i64>,
    local: Option<&Path>,
    yes: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Seen, OpsError> {
    let site = Site::open(invocation, talk).await?;
    let pruning = Pruning { keep: keep.unwrap_or(site.retention), younger_than };
    let mut seen = look(&site, local).await?;
    seen.warn(&**talk);
    seen.snapshots = pruning.chosen(&seen.snapshots, prepare::now());
    if !seen.snapshots.is_empty() {
        remove(&site, &seen.snapshots, yes, &**talk).await?;
    }
    shelf::sweep(&site, &**talk).await;
    Ok(seen)
}

async fn remove(site: &Site, going: &[Listed], yes: bool, talk: &dyn Talk) -> Result<(), OpsError> {
    for listed in going {
        let places: Vec<_> = listed.places.iter().map(ToString::to_string).collect();
        talk.show(&format!("remove {} from {}", listed.name, places.join(", ")));
    }
    if !yes {
        match talk.confirm("Remove these snapshots? They cannot be brought back.") {
            Some(true) => {}
            Some(false) => return Err(OpsError::Declined),
            None => return Err(OpsError::Unasked { what: "whether to remove these snapshots (pass --yes)" }),
        }
    }
    let folder = site::folder()?;
    for listed in going {
        for place in &listed.places {
            match place {
                Place::Host { host } => {
                    let Some(machine) = site.fleet.get(host) else { continue };
                    machine
                        .delete_snapshot(&folder, &listed.file)
                        .await
                        .map_err(|error| OpsError::Hosts(vec![error]))?;
                }
                Place::Bucket { .. } => site.bucket()?.delete(&listed.file).await?,
                Place::Local { path } => store::remove_private(path)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Listed;
    use super::Place;
    use super::Pruning;
    use super::add;
    use crate::model::Digest;
    use crate::model::HostName;
    use crate::model::SnapshotName;

    fn listed(name: &str, host: &str, at: i64, trouble: Option<&str>) -> Listed {
        Listed {
            name: SnapshotName::new(name).unwrap(),
            file: SnapshotName::new(format!("{name}.snapshot")).unwrap(),
            manifest: None,
            foreign: None,
            trouble: trouble.map(str::to_owned),
            at,
            size: 1,
            places: vec![Place::Host { host: HostName::new(host).unwrap() }],
        }
    }

    #[test]
    fn one_snapshot_on_two_hosts_is_one_and_a_damaged_copy_is_another() {
        let mut all = Vec::new();
        add(&mut all, listed("a", "h1", 1, None));
        add(&mut all, listed("a", "h2", 1, None));
        add(&mut all, listed("a", "h3", 1, Some("damaged")));
        assert_eq!(all.iter().map(|listed| listed.places.len()).collect::<Vec<_>>(), [2, 1]);
    }

    fn signed(name: &str, at: i64) -> Listed {
        let part = serde_json::json!({"size": 1, "digest": Digest::of(b"")});
        let manifest = serde_json::from_value(serde_json::json!({
            "schema": 1, "cluster": "c", "cluster_name": "demo", "name": name, "taken_at": at, "member": "h1", "why": "save",
            "etcd_version": "3.7.2", "kubernetes": "v1.37.1", "revision": null, "etcd_revision": 7, "keys": 1, "hash": null,
            "state": part, "sealed": part, "database": part,
        }));
        Listed { manifest: Some(manifest.unwrap()), ..listed(name, "h1", at, None) }
    }

    #[test]
    fn the_newest_stay_by_number_and_the_young_by_age() {
        let all = [signed("b", 200), listed("theirs", "h1", 1, None), signed("c", 300), signed("a", 100)];
        let gone = |keep, younger_than| {
            let chosen = Pruning { keep, younger_than }.chosen(&all, 350);
            chosen.iter().map(|one| one.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(gone(1, None), ["b", "a"]);
        assert_eq!(gone(1, Some(200)), ["a"]);
        assert_eq!(gone(0, Some(150)), ["b", "a"], "as old as that is not younger");
        assert!(gone(3, None).is_empty());
    }

    #[test]
    fn what_bastide_did_not_sign_is_never_pruned() {
        let all = [listed("a", "h1", 1, None), listed("b", "h1", 2, Some("damaged"))];
        assert_eq!(Pruning::default().chosen(&all, 1000), []);
    }
}
