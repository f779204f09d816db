//! A cluster with its etcd members, as commands on snapshots and members find it.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Credentials;
use crate::api::etcd::Etcd;
use crate::apply::Fleet;
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
use crate::ops::prepare;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::snapshot::ENDING;
use crate::store::Store;
use crate::store::StoreError;

/// Where snapshots lie on every etcd host.
const FOLDER: &str = "/var/lib/bastide/snapshots";
/// Longest time for one short answer of a member.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that a command on snapshots or members needs.
pub(in crate::ops) struct Site {
    pub(in crate::ops) fleet: Fleet<RealHost>,
    /// The target that was reached last, else the newest.
    pub(in crate::ops) desired: Desired,
    /// Every etcd host's client certificate.
    credentials: BTreeMap<HostName, Credentials>,
    store: Store,
}

impl Site {
    /// Opens the state and connects to every host.
    pub(in crate::ops) async fn open(invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<Self, OpsError> {
        let local = Local::read(invocation)?;
        let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
        if kept.store.is_none() {
            return Err(StoreError::NoState { folder: kept.folder }.into());
        }
        let fleet = prepare::fleet(&local, invocation, talk).await?;
        Self::beside(&kept, fleet)
    }

    /// On a state and connections that a command has opened already.
    pub(in crate::ops) fn beside(kept: &Kept, fleet: Fleet<RealHost>) -> Result<Self, OpsError> {
        let nothing = || OpsError::Store(StoreError::NoState { folder: kept.folder.clone() });
        let (Some(desired), Some(secrets)) = (kept.reached.clone().or(kept.newest.clone()), &kept.secrets) else {
            return Err(nothing());
        };
        let trust = secrets.authorities.get(&AuthorityName::Etcd).map(AuthoritySet::trust_bundle).unwrap_or_default();
        let credentials = desired.hosts.iter().filter(|(_, host)| host.roles.etcd()).filter_map(|(name, _)| {
            let leaf = secrets.leaves.get(&LeafId::of(LeafName::EtcdHealthcheck, name))?;
            let (certificate, key) = (leaf.certificate.clone(), leaf.key.clone());
            Some((name.clone(), Credentials { authorities: trust.clone(), certificate, key }))
        });
        let credentials = credentials.collect();
        let store = kept.store.as_ref().ok_or_else(nothing)?.again()?;
        Ok(Self { fleet, desired, credentials, store })
    }

    /// The opened state.
    pub(in crate::ops) fn store(&self) -> &Store {
        &self.store
    }

    /// The names of all etcd hosts.
    pub(in crate::ops) fn members(&self) -> impl Iterator<Item = &HostName> {
        self.desired.hosts.iter().filter(|(_, host)| host.roles.etcd()).map(|(name, _)| name)
    }

    /// The member on that host; none where the host does not answer.
    pub(in crate::ops) fn etcd(&self, name: &HostName) -> Option<Etcd<'_, RealHost>> {
        let host = self.fleet.get(name)?;
        let address = self.desired.hosts.get(name)?.internal_address;
        Some(Etcd { host, address, credentials: self.credentials.get(name)?, deadline: PATIENCE })
    }

    /// The hosts that keep snapshots and answer.
    pub(in crate::ops) fn keepers(&self) -> impl Iterator<Item = (&HostName, &Arc<RealHost>)> {
        self.members().filter_map(|name| Some((name, self.fleet.get(name)?)))
    }

    /// The etcd hosts that do not answer.
    pub(in crate::ops) fn silent(&self) -> impl Iterator<Item = &HostName> {
        self.members().filter(|name| self.fleet.get(name).is_none())
    }
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
