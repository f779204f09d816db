//! Proves a snapshot: every byte verified, and the database restored into an etcd of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::host::RestoredEtcd;
use crate::model::HostName;
use crate::model::ImageRef;
use crate::model::SnapshotName;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::ops::snapshot::Listed;
use crate::ops::snapshot::Place;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::list;
use crate::ops::snapshot::origin::Input;
use crate::ops::snapshot::origin::Origin;
use crate::ops::snapshot::pipe;
use crate::snapshot::Manifest;
use crate::snapshot::Snapshot;
use crate::snapshot::SnapshotError;
use crate::snapshot::Zipped;
use crate::snapshot::find_zipped;
use crate::snapshot::read_zipped;
use crate::store::Identity;

/// What was proven of one copy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// Which snapshot.
    pub name: SnapshotName,
    /// Which copy.
    pub place: Place,
    /// What it says of itself; absent where it is not bastide's.
    pub manifest: Option<Manifest>,
    /// Where it was restored.
    pub host: HostName,
    /// Newest revision of the restored etcd.
    pub revision: u64,
    /// Keys: at the manifest's revision, or else at the newest.
    pub keys: u64,
    /// Whether etcd's hash over all keys is the one of the snapshot's time; absent where it could not be compared.
    pub hash_equal: Option<bool>,
    /// How long that took, in seconds: what a restore takes at least.
    pub seconds: f64,
}

/// Verifies one copy of `name` (the first, or the one in `local`, or the one in the bucket) and restores it on `on`, or the first
/// etcd host that answers.
pub async fn verify(
    invocation: &Invocation,
    name: &SnapshotName,
    local: Option<&Path>,
    in_bucket: bool,
    on: Option<&HostName>,
    accept_foreign: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Proof, OpsError> {
    let site = Site::open(invocation, talk).await?;
    let listed = pick(&site, name, local, accept_foreign, &**talk).await?;
    let place = copy_of(&listed, local.is_some(), in_bucket)?;
    let run = holder(invocation, prepare::now())?.run;
    prove(&site, &listed, place, on, run, &**talk).await
}

/// Which copy is read: the one in a folder here where that was named, the one in the bucket where that is wanted, else the first.
pub(super) fn copy_of(listed: &Listed, is_local: bool, in_bucket: bool) -> Result<Place, OpsError> {
    let wanted = |place: &&Place| match place {
        Place::Local { .. } => is_local,
        Place::Bucket { .. } => in_bucket && !is_local,
        Place::Host { .. } => false,
    };
    let place = listed.places.iter().find(wanted).or_else(|| listed.places.first().filter(|_| !in_bucket));
    place.cloned().ok_or_else(|| OpsError::Impossible(format!("there is no snapshot {} in the bucket", listed.name)))
}

/// Reads the copy at `place` to its end and restores it on `on`, or the first etcd host that answers.
pub(super) async fn prove(
    site: &Site,
    listed: &Listed,
    place: Place,
    on: Option<&HostName>,
    run: String,
    talk: &dyn Talk,
) -> Result<Proof, OpsError> {
    let name = &listed.name;
    let found = site.keepers().find(|(host, _)| on.is_none_or(|on| on == *host));
    let (host, machine) = found.ok_or_else(|| OpsError::Impossible("no etcd host answers".to_owned()))?;
    let image = etcd_image(site, host)?;
    let input = Origin::of(site, &place, listed)?;
    let broken = |source| OpsError::Snapshot { what: format!("snapshot {name} ({place})"), source: Box::new(source) };
    let zipped = if listed.foreign == Some("rke") {
        let found = tokio::task::block_in_place(|| input.open().map(find_zipped))?;
        Some(found.map_err(broken)?)
    } else {
        None
    };
    let size = match (&listed.manifest, &zipped) {
        (Some(manifest), _) => manifest.database.size,
        (None, Some(zipped)) => zipped.size,
        (None, None) => listed.size,
    };
    let revision = listed.manifest.as_ref().map_or(0, |manifest| manifest.etcd_revision);
    talk.say(&format!("verifying {name} from {place}, and restoring it for proof on {host}"));
    let begun = Instant::now();

    let (mut feed, source) = pipe::feed();
    let prover = Arc::clone(machine);
    let restoring =
        tokio::spawn(async move { prover.prove_snapshot(&image, size, revision, &run, &[], Box::new(source)).await });
    let input = input.open()?;
    let (identity, foreign) = (site.store().identity(), listed.foreign.is_some());
    // Reading waits for hosts and unseals: not for a thread that others need.
    let read: Result<(), SnapshotError> = tokio::task::block_in_place(|| {
        read_through(input, identity, name, foreign, zipped.as_ref(), &mut feed)?;
        feed.end().map_err(|error| SnapshotError::Io { doing: "sending the database", reason: error.to_string() })
    });
    let restored = restoring.await.map_err(|error| OpsError::Impossible(format!("{host}: {error}")))?;
    match (read, restored) {
        // A host that gave up breaks the pipe: its own words say more.
        (Err(SnapshotError::Io { .. }) | Ok(()), Err(error)) => Err(OpsError::Hosts(vec![error])),
        (Err(error), _) => Err(broken(error)),
        (Ok(()), Ok(restored)) => judge(name, place, listed.manifest.clone(), host, &restored, begun),
    }
}

/// The snapshot of that name whose copies are to be believed.
pub(in crate::ops) async fn pick(
    site: &Site,
    name: &SnapshotName,
    local: Option<&Path>,
    accept_foreign: bool,
    talk: &dyn Talk,
) -> Result<Listed, OpsError> {
    let seen = list::look(site, local).await?;
    seen.warn(talk);
    let all: Vec<_> = seen.snapshots.into_iter().filter(|listed| is_meant(listed, name)).collect();
    if let Some(good) = all.iter().find(|listed| listed.manifest.is_some()) {
        // A damaged copy beside a good one is found by its own row in the list.
        return Ok(good.clone());
    }
    if let Some(foreign) = all.iter().find(|listed| listed.foreign.is_some()) {
        if !accept_foreign {
            let words = "is neither sealed nor signed: pass --accept-foreign to believe it";
            return Err(OpsError::Impossible(format!("snapshot {name} {words}")));
        }
        return Ok(foreign.clone());
    }
    let why = all.first().and_then(|listed| listed.trouble.clone());
    Err(OpsError::Impossible(match why {
        Some(trouble) => format!("snapshot {name}: {trouble}"),
        None => format!("there is no snapshot {name}"),
    }))
}

/// RKE names its snapshots without the ending of the zip.
fn is_meant(listed: &Listed, name: &SnapshotName) -> bool {
    listed.name == *name
        || listed.foreign == Some("rke") && listed.name.as_str().strip_suffix(".zip") == Some(name.as_str())
}

fn read_through(
    mut input: Box<dyn Input>,
    identity: &Identity,
    name: &SnapshotName,
    foreign: bool,
    zipped: Option<&Zipped>,
    output: &mut pipe::Feed,
) -> Result<(), SnapshotError> {
    let failed = |error: std::io::Error| SnapshotError::Io { doing: "reading the snapshot", reason: error.to_string() };
    if let Some(zipped) = zipped {
        return read_zipped(input, zipped, |database| std::io::copy(database, output))?.map(drop).map_err(failed);
    }
    if foreign {
        return std::io::copy(&mut input, output).map(drop).map_err(failed);
    }
    let mut snapshot = Snapshot::open(input, identity, Some(name))?;
    snapshot.state()?;
    snapshot.database(identity, output)
}

/// The image whose programs this host's member runs.
pub(in crate::ops) fn etcd_image(site: &Site, host: &HostName) -> Result<ImageRef, OpsError> {
    let mut images = site.desired.hosts.get(host).map(|host| host.images.keys()).into_iter().flatten();
    let named = |image: &&ImageRef| {
        let name = image.as_str().rsplit_once(':').map_or("", |(name, _)| name);
        name.rsplit('/').next() == Some("etcd")
    };
    let none = || OpsError::Impossible(format!("{host}: its target names no image of etcd"));
    images.find(named).cloned().ok_or_else(none)
}

fn judge(
    name: &SnapshotName,
    place: Place,
    manifest: Option<Manifest>,
    host: &HostName,
    restored: &RestoredEtcd,
    begun: Instant,
) -> Result<Proof, OpsError> {
    let mut hash_equal = None;
    if let Some(manifest) = &manifest {
        let wrong = |words: String| OpsError::Impossible(format!("snapshot {name} restores, but {words}"));
        if restored.revision < manifest.etcd_revision {
            let (found, told) = (restored.revision, manifest.etcd_revision);
            return Err(wrong(format!("only up to revision {found}; it should hold everything up to {told}")));
        }
        if restored.keys != manifest.keys {
            return Err(wrong(format!("with {} keys; there were {}", restored.keys, manifest.keys)));
        }
        if let (Some(told), Some((hash, compact))) = (manifest.hash, restored.hash)
            && told.compact_revision == compact
        {
            if told.hash != hash {
                return Err(wrong(format!("with the hash {hash}; etcd's was {}", told.hash)));
            }
            hash_equal = Some(true);
        }
    }
    Ok(Proof {
        name: name.clone(),
        place,
        manifest,
        host: host.clone(),
        revision: restored.revision,
        keys: restored.keys,
        hash_equal,
        seconds: begun.elapsed().as_secs_f64(),
    })
}
