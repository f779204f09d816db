//! A cluster with its etcd members, as commands on snapshots and members find it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Credentials;
use crate::api::etcd::Etcd;
use crate::apply::Fleet;
use crate::bucket::Bucket;
use crate::bucket::BucketError;
use crate::bucket::Role;
use crate::config::BackupBucket;
use crate::model::BucketKeys;
use crate::model::Content;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::RemotePath;
use crate::model::SnapshotName;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::kept::Kept;
use crate::ops::patience::Patience;
use crate::ops::prepare;
use crate::ops::snapshot::Place;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::snapshot::ENDING;
use crate::store::Store;

/// Where snapshots lie on every etcd host.
pub(super) const FOLDER: &str = "/var/lib/bastide/snapshots";

/// Everything that a command on snapshots or members needs.
pub(in crate::ops) struct Site {
    pub(in crate::ops) fleet: Fleet<RealHost>,
    /// The target that was reached last, else the newest.
    pub(in crate::ops) desired: Desired,
    /// Every etcd host's client certificate.
    credentials: BTreeMap<HostName, Credentials>,
    store: Store,
    /// The bucket that cluster.yml names, or why it cannot be used; none where it names none.
    depot: Option<Depot>,
    /// How many snapshots cluster.yml wants to stay.
    pub(in crate::ops) retention: u32,
    /// Longest time for one short answer of a member.
    patience: Duration,
}

/// A bucket that snapshots go to besides the hosts.
struct Depot {
    place: Place,
    bucket: Result<Arc<Bucket>, BucketError>,
}

impl Site {
    /// Opens the state and connects to every host.
    pub(in crate::ops) async fn open(invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<Self, OpsError> {
        let local = Local::read(invocation)?;
        let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
        // Before any host is asked.
        kept.secrets()?;
        let fleet = prepare::fleet(&local, invocation, talk).await?;
        Self::beside(&local, &kept, fleet)
    }

    /// On a state and connections that a command has opened already.
    pub(in crate::ops) fn beside(local: &Local, kept: &Kept, fleet: Fleet<RealHost>) -> Result<Self, OpsError> {
        let secrets = kept.secrets()?;
        let nothing = || OpsError::NothingBegun { folder: kept.folder.clone() };
        let desired = kept.reached.clone().or(kept.newest.clone()).ok_or_else(nothing)?;
        let trust = secrets.authorities.get(&AuthorityName::Etcd).map(AuthoritySet::trust_bundle).unwrap_or_default();
        let credentials = desired.hosts.iter().filter(|(_, host)| host.roles.etcd()).filter_map(|(name, _)| {
            let leaf = secrets.leaves.get(&LeafId::of(LeafName::EtcdHealthcheck, name))?;
            let (certificate, key) = (leaf.certificate.clone(), leaf.key.clone());
            Some((name.clone(), Credentials { authorities: trust.clone(), certificate, key }))
        });
        let credentials = credentials.collect();
        let store = kept.store()?.again()?;
        let backup = &local.cluster.services.etcd.backup;
        let depot = local.bucket.as_ref().map(|bucket| Depot {
            place: Place::Bucket { url: bucket.address.to_string() },
            bucket: opened(bucket).map(Arc::new),
        });
        let patience = Patience::of(local.cluster.options.deadlines.health).question;
        Ok(Self { fleet, desired, credentials, store, depot, retention: backup.retention, patience })
    }

    /// The opened state.
    pub(in crate::ops) fn store(&self) -> &Store {
        &self.store
    }

    /// The names of all etcd hosts.
    pub(in crate::ops) fn members(&self) -> impl Iterator<Item = &HostName> {
        self.desired.hosts.iter().filter(|(_, host)| host.roles.etcd()).map(|(name, _)| name)
    }

    /// The address of every etcd host at which the others reach it.
    pub(in crate::ops) fn peers(&self) -> BTreeMap<HostName, IpAddr> {
        let hosts = self.desired.hosts.iter().filter(|(_, host)| host.roles.etcd());
        hosts.map(|(name, host)| (name.clone(), host.internal_address)).collect()
    }

    /// The member on that host; none where the host does not answer.
    pub(in crate::ops) fn etcd(&self, name: &HostName) -> Option<Etcd<'_, RealHost>> {
        let host = self.fleet.get(name)?;
        let address = self.desired.hosts.get(name)?.internal_address;
        Some(Etcd { host, address, credentials: self.credentials.get(name)?, deadline: self.patience })
    }

    /// The hosts that keep snapshots and answer.
    pub(in crate::ops) fn keepers(&self) -> impl Iterator<Item = (&HostName, &Arc<RealHost>)> {
        self.members().filter_map(|name| Some((name, self.fleet.get(name)?)))
    }

    /// The bucket as a place; none where cluster.yml names none.
    pub(in crate::ops) fn depot(&self) -> Option<(&Place, Result<&Arc<Bucket>, &BucketError>)> {
        self.depot.as_ref().map(|depot| (&depot.place, depot.bucket.as_ref()))
    }

    /// The bucket, which must be there.
    pub(in crate::ops) fn bucket(&self) -> Result<Arc<Bucket>, OpsError> {
        match self.depot() {
            Some((_, bucket)) => Ok(Arc::clone(bucket.map_err(Clone::clone)?)),
            None => Err(OpsError::Impossible("cluster.yml names no S3 bucket".to_owned())),
        }
    }

    /// The etcd hosts that do not answer.
    pub(in crate::ops) fn silent(&self) -> impl Iterator<Item = &HostName> {
        self.members().filter(|name| self.fleet.get(name).is_none())
    }
}

/// With the file's keys, or else with those of the environment, or else with those of this machine's own role, as with RKE.
fn opened(bucket: &BackupBucket) -> Result<Bucket, BucketError> {
    let address = bucket.address.clone();
    match bucket.keys.clone().or_else(environment) {
        Some(keys) => Bucket::open(address, keys),
        None => Bucket::open_by_role(address, Role::of_this_machine()),
    }
}

/// The keys as Amazon's own programs take them.
fn environment() -> Option<BucketKeys> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Content::new);
    let (access, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
    Some(BucketKeys { access, secret, token: variable("AWS_SESSION_TOKEN") })
}

/// The folder of snapshots on a host.
pub(in crate::ops) fn folder() -> Result<RemotePath, OpsError> {
    RemotePath::new(FOLDER).map_err(|error| OpsError::Impossible(error.to_string()))
}

/// The file of the snapshot `name`.
pub(in crate::ops) fn file_of(name: &SnapshotName) -> Result<SnapshotName, OpsError> {
    SnapshotName::new(format!("{name}{ENDING}")).map_err(|error| OpsError::Impossible(error.to_string()))
}

/// The same in a folder of the operator's.
pub(in crate::ops) fn local_file(folder: &Path, name: &SnapshotName) -> PathBuf {
    folder.join(format!("{name}{ENDING}"))
}
