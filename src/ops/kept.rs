//! The state folder as a command finds it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::Cluster;
use crate::config::Node;
use crate::model::ClusterId;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::ObservedHost;
use crate::model::RemotePath;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect;
use crate::ops::journal;
use crate::plan::Unfinished;
use crate::secrets;
use crate::secrets::HostSigners;
use crate::secrets::Secrets;
use crate::store;
use crate::store::Backup;
use crate::store::FolderLock;
use crate::store::Freshness;
use crate::store::Identity;
use crate::store::Protection;
use crate::store::Recipients;
use crate::store::Signs as _;
use crate::store::Store;
use crate::store::StoreError;

/// Folder that programs are installed under.
const PROGRAMS: &str = "/opt/bastide/";

/// A question that fits one line of a terminal; where the identity lies is said when the answer is wrong.
const IDENTITY_PASSPHRASE: &str = "Passphrase of the identity that opens the state";

/// What is kept of a cluster; everything but `folder` is absent before its first `up`.
pub(super) struct Kept {
    /// Where the state is, or will be.
    pub folder: PathBuf,
    /// The opened store.
    pub store: Option<Store>,
    /// Of the newest revision, whatever became of it: its keys may be on hosts already.
    pub secrets: Option<Secrets>,
    /// Target of the newest revision.
    pub newest: Option<Desired>,
    /// Target of the revision that was reached last.
    pub reached: Option<Desired>,
    /// What runs since the last wholly reached revision changed and never saw well.
    pub unfinished: Unfinished,
    /// Programs of the last two reached revisions, which stay on the hosts (design 11.9).
    pub keep: BTreeSet<RemotePath>,
    /// Keys with those that were brought along (`--custom-certs`), which take the place of `secrets` in what is rendered.
    pub brought: Option<Secrets>,
    /// The identity of a state that is yet to be made. What its hosts sign with comes out of it.
    pub unborn: Option<Identity>,
}

impl Kept {
    /// Nothing of a state beside the cluster's file.
    pub(super) fn nothing(cluster_file: &std::path::Path) -> Self {
        Self {
            folder: store::folder_for(cluster_file),
            store: None,
            secrets: None,
            newest: None,
            reached: None,
            unfinished: Unfinished::default(),
            keep: BTreeSet::new(),
            brought: None,
            unborn: None,
        }
    }

    /// Opens the state beside the cluster's file, where there is one.
    pub(super) fn open(cluster_file: &std::path::Path, cluster: &Cluster, talk: &dyn Talk) -> Result<Self, OpsError> {
        let mut kept = Self::nothing(cluster_file);
        let peek = match store::peek(&kept.folder) {
            Ok(peek) => peek,
            Err(StoreError::NoState { .. }) => return Ok(kept),
            Err(error) => return Err(error.into()),
        };
        let identity = identity(&peek.cluster, cluster, talk)?;
        let recipients = Recipients::parse(&cluster.options.recipients)?;
        kept.store = Some(Store::open(&kept.folder, identity, recipients)?);
        kept.load()?;
        Ok(kept)
    }

    /// The opened store, without which there is nothing to do for most commands.
    pub(super) fn store(&self) -> Result<&Store, OpsError> {
        self.store.as_ref().ok_or_else(|| StoreError::NoState { folder: self.folder.clone() }.into())
    }

    /// The keys of the newest revision, without which there is nothing to do for most commands.
    pub(super) fn secrets(&self) -> Result<&Secrets, OpsError> {
        self.store()?;
        self.secrets.as_ref().ok_or_else(|| OpsError::NothingBegun { folder: self.folder.clone() })
    }

    /// Reads what the store's history ends in.
    pub(super) fn load(&mut self) -> Result<(), OpsError> {
        let Some(store) = &self.store else { return Ok(()) };
        if let Some(newest) = store.newest().map(|revision| revision.id.clone()) {
            let (_, desired, _, secrets) = store.load(&newest)?;
            self.newest = Some(desired);
            self.secrets = Some(secrets::unseal_form(&secrets)?);
        }
        let lines = store::Journal::at(&self.folder).read()?;
        self.unfinished = journal::unfinished(&store.history(), &lines);
        let reached = store.history().into_iter().rev().filter(Revision::was_reached);
        for (at, revision) in reached.take(2).enumerate() {
            // After a recovery from a host only the newest contents are there; what is not kept keeps nothing on hosts.
            let desired = match store.load(&revision.id) {
                Ok((_, desired, _, _)) => desired,
                Err(StoreError::NotKept { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let files = desired.hosts.values().flat_map(|host| host.files.keys());
            self.keep.extend(files.filter(|path| path.as_str().starts_with(PROGRAMS)).cloned());
            if at == 0 {
                self.reached = Some(desired);
            }
        }
        Ok(())
    }

    /// Refuses hosts that belong to a state that is not here, or know more than the state that is (design 5, 11.1).
    /// Records of clusters of another name are the planner's to refuse, with everything else that stands in the way.
    pub(super) fn compare<'a>(
        &self,
        name: &str,
        hosts: impl Iterator<Item = (&'a HostName, &'a ObservedHost)>,
    ) -> Result<(), OpsError> {
        let records: Vec<_> = hosts.filter_map(|(name, host)| Some((name, host.record.as_ref()?))).collect();
        let Some(store) = &self.store else {
            return match records.iter().find(|(_, record)| record.cluster_name == name) {
                None => Ok(()),
                Some((_, record)) => Err(OpsError::StateMissing {
                    hosts: records.iter().map(|(name, _)| (*name).clone()).collect(),
                    name: record.cluster_name.clone(),
                    folder: self.folder.clone(),
                }),
            };
        };
        let history = store.history();
        let newer: Vec<_> = records
            .iter()
            .filter(|(_, record)| store::compare(store.cluster(), &history, record) == Freshness::HostNewer)
            .collect();
        match newer.iter().map(|(_, record)| record.revision.clone()).max() {
            None => Ok(()),
            Some(revision) => Err(OpsError::StateOlder {
                hosts: newer.iter().map(|(name, _)| (*name).clone()).collect(),
                revision,
                folder: self.folder.clone(),
            }),
        }
    }

    /// The store for writing: opened and locked, or made with a new identity for `secrets`' cluster.
    pub(super) fn for_writing(
        &mut self,
        cluster: &Cluster,
        secrets: &Secrets,
        no_identity_backup: bool,
        holder: &LockHolder,
        talk: &dyn Talk,
    ) -> Result<FolderLock, OpsError> {
        if let Some(store) = &mut self.store {
            let before = store.newest().map(|revision| revision.id.clone());
            let lock = store.lock(holder)?;
            if store.newest().map(|revision| revision.id.clone()) != before {
                return Err(OpsError::Moved);
            }
            return Ok(lock);
        }
        self.make(cluster, &secrets.cluster, false, no_identity_backup, holder, talk)
    }

    /// Makes the store of the cluster `id`, with the identity that is drawn for it, or else a new one. `made`: an earlier try has
    /// written that one down already.
    pub(super) fn make(
        &mut self,
        cluster: &Cluster,
        id: &ClusterId,
        made: bool,
        no_identity_backup: bool,
        holder: &LockHolder,
        talk: &dyn Talk,
    ) -> Result<FolderLock, OpsError> {
        let recipients = Recipients::parse(&cluster.options.recipients)?;
        let folder = store::identities_folder()?;
        let identity = match self.unborn.take() {
            Some(drawn) if drawn.cluster() == id => drawn,
            _ => Identity::generate(id)?,
        };
        let (path, backup) = if made {
            let path = store::identity_path(&folder, id);
            let backup = match (recipients.is_empty(), store::is_protected(&path)?) {
                (false, _) => Backup::Recipients,
                (true, true) => Backup::Passphrase,
                (true, false) => Backup::None,
            };
            (path, backup)
        } else {
            let (protection, backup) = protection(cluster, &recipients, no_identity_backup, talk)?;
            (identity.save(&folder, &protection)?, backup)
        };
        let (store, lock) =
            Store::create(&self.folder, &cluster.name, identity, recipients, backup, holder.since, holder)?;
        talk.warn(&format!(
            "the state in {} opens with the identity {}; keep a copy of it elsewhere. Its signer is {}: write it down",
            self.folder.display(),
            path.display(),
            store.identity().signer()
        ));
        self.store = Some(store);
        Ok(lock)
    }

    /// What the etcd hosts of `cluster` sign with; where there is no state yet, by the identity that the state will have.
    pub(super) fn signers(&mut self, cluster: &Cluster, id: &ClusterId) -> Result<HostSigners, OpsError> {
        if self.store.is_none() && self.unborn.as_ref().is_none_or(|drawn| drawn.cluster() != id) {
            self.unborn = Some(Identity::generate(id)?);
        }
        let identity = match (&self.store, &self.unborn) {
            (Some(store), _) => store.identity(),
            (None, Some(drawn)) => drawn,
            (None, None) => return Err(OpsError::Impossible("there is no identity".to_owned())),
        };
        let key = |node: &Node| {
            let key = identity.host_key(&node.name)?;
            Ok((node.name.clone(), (key.signer(), key.text())))
        };
        let hosts = cluster.etcd_members().map(key).collect::<Result<_, StoreError>>()?;
        Ok(HostSigners { identity: identity.signer(), hosts })
    }

    /// The last reached revision's id.
    pub(super) fn parent(&self) -> Option<RevisionId> {
        self.store.as_ref().and_then(Store::reached).map(|revision| revision.id.clone())
    }
}

/// The identity of the state of cluster `id`, opened with the passphrase that cluster.yml points to, or that somebody types.
pub(super) fn identity(id: &ClusterId, cluster: &Cluster, talk: &dyn Talk) -> Result<Identity, OpsError> {
    let given = connect::password(cluster.options.passphrase.as_ref())?;
    let mut ask = |_: &std::path::Path| given.clone().or_else(|| talk.ask_secret(IDENTITY_PASSPHRASE, false));
    Ok(Identity::load(&store::identities_folder()?, id, &mut ask)?)
}

fn protection(
    cluster: &Cluster,
    recipients: &Recipients,
    no_identity_backup: bool,
    talk: &dyn Talk,
) -> Result<(Protection, Backup), OpsError> {
    if !recipients.is_empty() {
        return Ok((Protection::default(), Backup::Recipients));
    }
    let passphrase = match connect::password(cluster.options.passphrase.as_ref())? {
        Some(given) if given.is_empty() => return Err(OpsError::NoPassphrase),
        Some(given) => given,
        None if no_identity_backup => return Ok((Protection::default(), Backup::None)),
        None => talk.ask_secret("Passphrase for the new identity that opens the state", true).ok_or(OpsError::Unasked {
            what: "a passphrase for the state's identity (set bastide.state.recipients or bastide.state.passphrase_file, \
                   or pass --no-identity-backup)",
        })?,
    };
    Ok((Protection { passphrase: Some(passphrase), ..Protection::default() }, Backup::Passphrase))
}
