//! Where a host's own snapshots lie: its folder, as those that operators take, and the bucket.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::TryStreamExt as _;

use crate::bucket::Bucket;
use crate::bucket::BucketError;
use crate::bucket::Role;
use crate::host::SnapshotFile;
use crate::model::Digest;
use crate::model::SnapshotName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::snapshot::hosted::turn::PREFIX;
use crate::ops::snapshot::list;
use crate::ops::snapshot::pipe::Fan;
use crate::ops::snapshot::shelf;
use crate::ops::snapshot::shelf::Sending;
use crate::ops::snapshot::site;
use crate::secrets::HostSnapshots;
use crate::snapshot::ENDING;
use crate::snapshot::Facts;
use crate::snapshot::Manifest;
use crate::snapshot::manifest_signed_by;
use crate::store;
use crate::store::PrivateFile;

/// How long the bucket may take to throw away what was begun.
const FAREWELL: Duration = Duration::from_secs(15);

/// A snapshot on its way.
pub(super) struct Shelves {
    file: Option<PrivateFile>,
    fan: Option<Fan>,
    sending: Option<Sending>,
    /// What is wanting already.
    troubles: Vec<String>,
    bucket: Option<String>,
}

fn folder() -> &'static Path {
    Path::new(site::FOLDER)
}

impl Shelves {
    /// The host's own folder, and the bucket where there is one.
    pub(super) async fn begin(settings: &HostSnapshots, facts: &Facts, talk: &dyn Talk) -> Result<Self, OpsError> {
        store::private_folder(folder())?;
        // systemd starts one at a time, and the claim was taken: whatever lies here unfinished is nobody's.
        store::sweep_staged(folder(), PREFIX)?;
        let file = PrivateFile::staged(&site::local_file(folder(), &facts.name))?;
        let mut fan = Fan::default();
        let (mut sending, mut troubles) = (None, Vec::new());
        match opened(settings).await {
            Depot::Open(bucket) => {
                sending = Some(shelf::send(&bucket, &site::file_of(&facts.name)?, fan.place()));
            }
            Depot::Shut(error) => troubles.push(error.to_string()),
            Depot::Keyless { place } => talk.warn(&format!(
                "{place}: cluster.yml holds no keys, and this machine knows of no role of its own: the snapshot stays on this host"
            )),
            Depot::None => {}
        }
        let bucket = settings.bucket.as_ref().map(|(address, _)| address.to_string());
        Ok(Self { file: Some(file), fan: Some(fan), sending, troubles, bucket })
    }

    /// What takes the bytes. Once.
    pub(super) fn inlets(&mut self) -> (Fan, Option<&mut PrivateFile>) {
        (self.fan.take().unwrap_or_default(), self.file.as_mut())
    }

    /// Throws it away everywhere.
    pub(super) async fn discard(self) {
        drop(self.file);
        drop(self.fan);
        if let Some(sending) = self.sending {
            // It ended without an end of file, and so the upload is given up.
            let _ = tokio::time::timeout(FAREWELL, sending).await;
        }
    }

    /// Makes it a snapshot everywhere. Returns what is wanting.
    pub(super) async fn keep(self, digest: Digest) -> Result<Vec<String>, OpsError> {
        let mut troubles = self.troubles;
        if let Some(file) = self.file {
            file.keep()?;
        }
        let place = self.bucket.unwrap_or_default();
        if let Some(sending) = self.sending {
            match sending.await {
                Ok(Ok((upload, landed))) if landed == digest => {
                    if let Err(error) = upload.commit().await {
                        troubles.push(format!("{place}: {error}"));
                    }
                }
                Ok(Ok((upload, _))) => {
                    upload.abort().await;
                    troubles.push(format!("{place}: what arrived is not what was sent"));
                }
                Ok(Err(error)) => troubles.push(error.to_string()),
                Err(_) => troubles.push(format!("{place}: the transfer died")),
            }
        }
        Ok(troubles)
    }
}

/// The bucket as a host finds it.
enum Depot {
    Open(Arc<Bucket>),
    Shut(BucketError),
    /// Whoever has keys in their environment only keeps hosts' snapshots on hosts, and was told so: that is no failure.
    Keyless {
        place: String,
    },
    None,
}

async fn opened(settings: &HostSnapshots) -> Depot {
    let Some((address, keys)) = settings.bucket.clone() else { return Depot::None };
    let bucket = if let Some(keys) = keys {
        Bucket::open(address, keys)
    } else {
        let role = Role::of_this_machine();
        if !role.is_anybody_there().await {
            return Depot::Keyless { place: address.to_string() };
        }
        Bucket::open_by_role(address, role)
    };
    bucket.map(Arc::new).map_or_else(Depot::Shut, Depot::Open)
}

/// The newest revision of etcd of which this host has a snapshot that this cluster signed, and that snapshot.
pub(super) fn furthest(settings: &HostSnapshots) -> Result<Option<(u64, SnapshotName)>, OpsError> {
    let signers: Vec<_> = settings.signers.iter().chain([&settings.identity]).cloned().collect();
    let manifests = here()?.into_iter().filter_map(|(_, file)| believed(&file, settings, &signers));
    Ok(manifests.map(|manifest| (manifest.etcd_revision, manifest.name)).max_by_key(|(revision, _)| *revision))
}

/// Removes recurring snapshots beyond the number that stays, in each place by itself. Nothing else is ever removed: neither what
/// people took, nor what no host of this cluster signed. Returns what went wrong.
pub(super) async fn prune(settings: &HostSnapshots, talk: &dyn Talk) -> Vec<String> {
    let mut troubles = Vec::new();
    let gone = |place: &dyn std::fmt::Display, name: &SnapshotName| talk.say(&format!("removed {name} from {place}"));
    let local = || -> Result<(), OpsError> {
        for (path, file) in beyond(here()?, settings, |(_, file)| file) {
            store::remove_private(&path)?;
            gone(&settings.host, &file.file);
        }
        Ok(())
    };
    if let Err(error) = local() {
        troubles.push(format!("old snapshots were not removed: {error}"));
    }
    if let Depot::Open(bucket) = opened(settings).await {
        let pruned = async {
            let objects = bucket.list().await?.into_iter().filter(|object| object.name.as_str().starts_with(PREFIX));
            let read = objects.map(|object| shelf::ends(&bucket, object));
            let files: Vec<_> = futures::stream::iter(read).buffered(shelf::AT_ONCE).try_collect().await?;
            for file in beyond(files, settings, |file| file) {
                bucket.delete(&file.file).await?;
                gone(bucket.address(), &file.file);
            }
            bucket.sweep(ENDING, shelf::QUIET).await.map(drop)
        };
        if let Err(error) = pruned.await {
            troubles.push(format!("old snapshots were not removed: {error}"));
        }
    }
    troubles
}

/// The files in this host's folder that may be snapshots.
fn here() -> Result<Vec<(PathBuf, SnapshotFile)>, OpsError> {
    let mut files = Vec::new();
    for path in store::files_in(folder())? {
        if let Some(file) = list::local_file(&path)? {
            files.push((path, file));
        }
    }
    Ok(files)
}

/// What the file says of itself, where one of `signers` signed that.
fn believed(file: &SnapshotFile, settings: &HostSnapshots, signers: &[String]) -> Option<Manifest> {
    let name = SnapshotName::new(file.file.as_str().strip_suffix(ENDING)?).ok()?;
    manifest_signed_by(&file.end, signers, &settings.cluster, Some(&name)).ok()
}

/// All but the newest of the recurring ones.
fn beyond<T>(all: Vec<T>, settings: &HostSnapshots, file: impl Fn(&T) -> &SnapshotFile) -> Vec<T> {
    let mut recurring: Vec<(i64, T)> = all
        .into_iter()
        .filter_map(|one| {
            let manifest = believed(file(&one), settings, &settings.signers)?;
            (manifest.why == Manifest::RECURRING).then_some((manifest.taken_at, one))
        })
        .collect();
    recurring.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    recurring.into_iter().skip(settings.retention as usize).map(|(_, one)| one).collect()
}
