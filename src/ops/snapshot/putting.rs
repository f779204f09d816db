//! The places that a snapshot is being written to, and what becomes of it in each.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bucket::Upload;
use crate::host::HostError;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::RemotePath;
use crate::model::SnapshotName;
use crate::ops::OpsError;
use crate::ops::snapshot::Place;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::pipe::Fan;
use crate::ops::snapshot::shelf;
use crate::ops::snapshot::shelf::Sending;
use crate::ops::snapshot::site;

/// Everything that takes bytes.
pub(super) struct Putting {
    name: Naming,
    hosts: Vec<(HostName, JoinHandle<Result<Digest, HostError>>)>,
    bucket: Option<(Place, Sending)>,
    missing: BTreeMap<Place, String>,
}

/// Everything that has it whole, and lists it nowhere yet.
pub(super) struct Staged {
    name: Naming,
    hosts: BTreeSet<HostName>,
    upload: Option<(Place, Upload)>,
    missing: BTreeMap<Place, String>,
}

struct Naming {
    folder: RemotePath,
    file: SnapshotName,
    run: String,
}

impl Putting {
    /// Every etcd host that answers, and the bucket.
    pub(super) fn begin(site: &Site, name: &SnapshotName, run: &str, fan: &mut Fan) -> Result<Self, OpsError> {
        let name = Naming { folder: site::folder()?, file: site::file_of(name)?, run: run.to_owned() };
        let silent = |host: &HostName| (Place::Host { host: host.clone() }, "the host does not answer".to_owned());
        let mut missing: BTreeMap<_, _> = site.silent().map(silent).collect();
        let hosts = site.keepers().map(|(host, machine)| {
            let source = fan.place();
            let (machine, folder) = (Arc::clone(machine), name.folder.clone());
            let (file, run) = (name.file.clone(), name.run.clone());
            let put = async move { machine.put_snapshot(&folder, &file, &run, Box::new(source)).await };
            (host.clone(), tokio::spawn(put))
        });
        let hosts = hosts.collect();
        let bucket = match site.depot() {
            Some((place, Ok(bucket))) => Some((place.clone(), shelf::send(bucket, &name.file, fan.place()))),
            Some((place, Err(error))) => {
                missing.insert(place.clone(), error.to_string());
                None
            }
            None => None,
        };
        Ok(Self { name, hosts, bucket, missing })
    }

    /// Waits until every place has all, or has thrown away what it had; after an interruption not for long. Whoever has not
    /// exactly what was sent is out; without `digest` that is everybody.
    pub(super) async fn staged(self, site: &Site, digest: Option<Digest>, cancel: &CancellationToken) -> Staged {
        let farewell = async {
            cancel.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let farewell = farewell.shared();
        let mut staged = Staged { name: self.name, hosts: BTreeSet::new(), upload: None, missing: self.missing };
        for (host, put) in self.hosts {
            let why = match heard(put, farewell.clone()).await {
                Some(Ok(landed)) if Some(landed) == digest => {
                    staged.hosts.insert(host);
                    continue;
                }
                Some(Ok(_)) => OTHER.to_owned(),
                Some(Err(error)) => error.without_host(),
                None => DIED.to_owned(),
            };
            if digest.is_some() {
                staged.name.discard(site, &host).await;
            }
            staged.missing.insert(Place::Host { host }, why);
        }
        if let Some((place, sent)) = self.bucket {
            let why = match heard(sent, farewell).await {
                Some(Ok((upload, landed))) if Some(landed) == digest => {
                    staged.upload = Some((place, upload));
                    return staged;
                }
                Some(Ok((upload, _))) => {
                    upload.abort().await;
                    OTHER.to_owned()
                }
                Some(Err(error)) => error.to_string(),
                None => DIED.to_owned(),
            };
            staged.missing.insert(place, why);
        }
        staged
    }
}

/// How a transfer ended; none where it died, or is not over when nobody waits any more.
async fn heard<T>(mut transfer: JoinHandle<T>, farewell: impl Future<Output = ()>) -> Option<T> {
    tokio::select! {
        ended = &mut transfer => ended.ok(),
        () = farewell => {
            transfer.abort();
            None
        }
    }
}

/// How long the places may clean up after an interruption.
const FAREWELL: Duration = Duration::from_secs(15);
const OTHER: &str = "what arrived is not what was sent";
const DIED: &str = "the transfer died";

impl Naming {
    /// Best effort: what stays is swept by the next snapshot.
    async fn discard(&self, site: &Site, host: &HostName) {
        if let Some(machine) = site.fleet.get(host) {
            let _ = machine.discard_snapshot(&self.folder, &self.file, &self.run).await;
        }
    }
}

impl Staged {
    /// Throws it away everywhere.
    pub(super) async fn discard(self, site: &Site) {
        for host in &self.hosts {
            self.name.discard(site, host).await;
        }
        if let Some((_, upload)) = self.upload {
            let _ = tokio::time::timeout(FAREWELL, upload.abort()).await;
        }
    }

    /// Makes it a snapshot everywhere. Returns where it is one, and where not and why.
    pub(super) async fn commit(self, site: &Site) -> (BTreeSet<Place>, BTreeMap<Place, String>) {
        let Naming { folder, file, run } = &self.name;
        let (mut places, mut missing) = (BTreeSet::new(), self.missing);
        for (host, machine) in site.keepers().filter(|(host, _)| self.hosts.contains(host)) {
            let place = Place::Host { host: host.clone() };
            match machine.commit_snapshot(folder, file, run).await {
                Ok(()) => drop(places.insert(place)),
                Err(error) => drop(missing.insert(place, error.without_host())),
            }
        }
        if let Some((place, upload)) = self.upload {
            match upload.commit().await {
                Ok(()) => drop(places.insert(place)),
                Err(error) => drop(missing.insert(place, error.to_string())),
            }
        }
        (places, missing)
    }
}
