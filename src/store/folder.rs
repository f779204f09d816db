//! The state folder: begin, finish, load.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;

use crate::model::Blobs;
use crate::model::ClusterId;
use crate::model::Content;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::LockHolder;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::model::RevisionState;
use crate::store::Backup;
use crate::store::FolderLock;
use crate::store::Identity;
use crate::store::Recipients;
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::manifest::Entry;
use crate::store::manifest::Manifest;
use crate::store::manifest::PackFile;
use crate::store::manifest::SCHEMA;
use crate::store::manifest::damaged;
use crate::store::pack;
use crate::store::pack::Index;
use crate::store::seal;
use crate::store::seal::Closed;

/// After so many sealed files one that holds everything is written: reading a revision opens at most as many.
pub(crate) const CHAIN: usize = 16;

/// An opened state folder.
#[derive(Debug)]
pub struct Store {
    pub(crate) folder: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) recipients: Recipients,
    pub(crate) disk: Disk,
    pub(crate) manifest: Manifest,
}

/// What a folder says about itself, unverified: enough to find the identity that verifies it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Peek {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
}

/// The state folder of a cluster file: `cluster.yml` has `cluster.bastide` beside it.
pub fn folder_for(cluster_file: &Path) -> PathBuf {
    cluster_file.with_extension("bastide")
}

/// Which cluster `folder` is of. [`StoreError::NoState`] only where nothing was ever kept.
pub fn peek(folder: &Path) -> Result<Peek, StoreError> {
    let path = manifest_path(folder);
    let bytes = read_manifest(folder)?;
    seal::unverified(&bytes)
        .and_then(|body| serde_json::from_slice(body).ok())
        .ok_or_else(|| damaged(&path, "it is not the file that was written"))
}

/// Removes the folder of a cluster that is no more. The identity stays: copies and snapshots elsewhere need it.
pub fn discard(store: Store, lock: FolderLock) -> Result<(), StoreError> {
    let folder = store.folder;
    let failed = |error: &std::io::Error| StoreError::io(&folder, "removing", error);
    // Renamed first: a death halfway must not leave a folder that looks like damaged state.
    let mut aside = folder.clone().into_os_string();
    aside.push(".removed");
    if Path::new(&aside).exists() {
        std::fs::remove_dir_all(&aside).map_err(|error| failed(&error))?;
    }
    std::fs::rename(&folder, &aside).map_err(|error| failed(&error))?;
    drop(lock);
    std::fs::remove_dir_all(&aside).map_err(|error| failed(&error))
}

impl Store {
    /// Makes the folder of a new cluster, with an empty history. The identity must be saved before: state that nobody can
    /// open again is lost.
    pub fn create(
        folder: &Path,
        name: &str,
        identity: Identity,
        recipients: Recipients,
        backup: Backup,
        now: i64,
        holder: &LockHolder,
    ) -> Result<(Self, FolderLock), StoreError> {
        let manifest = Manifest {
            schema: SCHEMA,
            cluster: identity.cluster().clone(),
            name: name.to_owned(),
            written: now,
            backup,
            entries: Vec::new(),
        };
        let mut store = Self { folder: folder.to_owned(), identity, recipients, disk: Disk, manifest };
        let lock = store.make(holder)?;
        match read_manifest(folder) {
            Err(StoreError::NoState { .. }) => {}
            Ok(_) => return Err(StoreError::Exists { folder: folder.to_owned() }),
            Err(error) => return Err(error),
        }
        let manifest = store.manifest.clone();
        store.replace(manifest)?;
        Ok((store, lock))
    }

    /// Makes the folders and takes the lock.
    pub(crate) fn make(&self, holder: &LockHolder) -> Result<FolderLock, StoreError> {
        self.disk.folder(&self.folder)?;
        let lock = FolderLock::take(&self.folder, holder)?;
        self.disk.folder(&packs_folder(&self.folder))?;
        self.sweep()?;
        Ok(lock)
    }

    fn sweep(&self) -> Result<(), StoreError> {
        self.disk.sweep(&self.folder)?;
        self.disk.sweep(&packs_folder(&self.folder))
    }

    /// Opens a folder that [`peek`] could read. The manifest's signature is checked; contents are when they are loaded.
    pub fn open(folder: &Path, identity: Identity, recipients: Recipients) -> Result<Self, StoreError> {
        let manifest = Manifest::read(&manifest_path(folder), &read_manifest(folder)?, &identity)?;
        Ok(Self { folder: folder.to_owned(), identity, recipients, disk: Disk, manifest })
    }

    /// The same once more, for somebody who only reads it.
    pub fn again(&self) -> Result<Self, StoreError> {
        let (identity, recipients) = (self.identity.again()?, self.recipients.again()?);
        Ok(Self { folder: self.folder.clone(), identity, recipients, disk: Disk, manifest: self.manifest.clone() })
    }

    /// Takes the folder for this process and reads it again, since another may have written until now.
    pub fn lock(&mut self, holder: &LockHolder) -> Result<FolderLock, StoreError> {
        let lock = FolderLock::take(&self.folder, holder)?;
        self.manifest = Manifest::read(&manifest_path(&self.folder), &read_manifest(&self.folder)?, &self.identity)?;
        self.disk.folder(&packs_folder(&self.folder))?;
        self.sweep()?;
        Ok(lock)
    }

    /// Which cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.manifest.cluster
    }

    /// Its name in cluster.yml when the state was made.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// What keeps the state open without this machine.
    pub fn backup(&self) -> Backup {
        self.manifest.backup
    }

    /// Who opens it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Everybody who can open what is sealed here.
    pub fn recipients(&self) -> Result<Recipients, StoreError> {
        self.recipients.with(&self.identity)
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every revision, oldest first.
    pub fn history(&self) -> Vec<Revision> {
        self.manifest.entries.iter().map(|entry| entry.revision.clone()).collect()
    }

    /// The newest revision, whatever became of it.
    pub fn newest(&self) -> Option<&Revision> {
        self.manifest.entries.last().map(|entry| &entry.revision)
    }

    /// The newest revision that was reached, wholly or all but some hosts.
    pub fn reached(&self) -> Option<&Revision> {
        self.manifest.reached().map(|entry| &entry.revision)
    }

    /// The id of the next revision: one more than the newest, and a random part.
    pub fn next_id(&self) -> Result<RevisionId, StoreError> {
        let mut nonce = [0; 8];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| StoreError::Crypto("drawing random bytes"))?;
        Ok(RevisionId {
            number: self.newest().map_or(0, |newest| newest.id.number) + 1,
            nonce: format!("{:016x}", u64::from_be_bytes(nonce)),
        })
    }

    /// Records a revision that is about to be reached for. When this returns, revision and contents are durable; when it
    /// fails or dies, the history is what it was before.
    pub fn begin(
        &mut self,
        _lock: &FolderLock,
        revision: &Revision,
        desired: &Desired,
        blobs: &Blobs,
        secrets: &Content,
    ) -> Result<(), StoreError> {
        self.fits(revision, desired)?;
        let written = || StoreError::Crypto("packing the revision");
        let (index, mut contents) = Index::of(&revision.id, desired, blobs, secrets).ok_or_else(written)?;
        let mut packs = self.reusable();
        for file in &packs {
            let (_, kept) = self.read_pack(file)?;
            contents.retain(|digest, _| !kept.contains_key(digest));
        }
        packs.push(self.write_pack(&index, contents.values())?);
        let mut manifest = self.manifest.clone();
        manifest.entries.push(Entry { revision: revision.clone(), packs });
        manifest.written = revision.at;
        self.replace(manifest)
    }

    fn fits(&self, revision: &Revision, desired: &Desired) -> Result<(), StoreError> {
        let refuse = |why| Err(StoreError::History { revision: revision.id.clone(), why });
        if desired.cluster != self.manifest.cluster {
            return refuse("its target is of another cluster");
        }
        if revision.state != RevisionState::Started {
            return refuse("a revision begins as started");
        }
        if self.newest().is_some_and(|newest| newest.id.number >= revision.id.number) {
            return refuse("its number is not above the newest one's");
        }
        if revision.parent.as_ref().is_some_and(|parent| self.manifest.find(parent).is_none()) {
            return refuse("its parent is not in the history");
        }
        Ok(())
    }

    /// The newest revision's sealed files where the next one may build upon them: few, and sealed to the same recipients.
    fn reusable(&self) -> Vec<PackFile> {
        let packs = self.manifest.entries.last().map(|entry| entry.packs.clone()).unwrap_or_default();
        let same = packs.iter().all(|pack| pack.recipients == self.recipients.digest());
        if packs.len() < CHAIN && same { packs } else { Vec::new() }
    }

    /// Records how far a revision got. A reached one stays reached.
    pub fn finish(
        &mut self,
        _lock: &FolderLock,
        id: &RevisionId,
        state: RevisionState,
        now: i64,
    ) -> Result<(), StoreError> {
        let mut manifest = self.manifest.clone();
        let entry = manifest
            .entries
            .iter_mut()
            .find(|entry| entry.revision.id == *id)
            .ok_or_else(|| StoreError::UnknownRevision { revision: id.clone() })?;
        if entry.revision.state == state {
            return Ok(());
        }
        if entry.revision.state == RevisionState::Reached || state == RevisionState::Started {
            return Err(StoreError::History { revision: id.clone(), why: "it has already ended" });
        }
        entry.revision.state = state;
        entry.revision.ended = Some(now);
        manifest.written = now;
        self.replace(manifest)
    }

    /// A revision with its target, the rendered contents and the secrets' document.
    pub fn load(&self, id: &RevisionId) -> Result<(Revision, Desired, Blobs, Content), StoreError> {
        let entry = self.manifest.find(id).ok_or_else(|| StoreError::UnknownRevision { revision: id.clone() })?;
        let (index, contents) = self.contents(entry)?;
        let last = entry.packs.last().map(|file| self.pack_path(file)).unwrap_or_default();
        let (desired, blobs, secrets) =
            index.assemble(&contents).ok_or_else(|| self.lost(&last, "it lacks contents of its revision"))?;
        Ok((entry.revision.clone(), desired, blobs, secrets))
    }

    /// Everything in a revision's sealed files, and its index.
    pub(crate) fn contents(&self, entry: &Entry) -> Result<(Index, BTreeMap<Digest, Content>), StoreError> {
        let mut all = BTreeMap::new();
        let mut newest = None;
        for file in &entry.packs {
            let (index, contents) = self.read_pack(file)?;
            all.extend(contents);
            newest = Some((index, self.pack_path(file)));
        }
        let Some((index, path)) = newest else {
            return Err(StoreError::NotKept { revision: entry.revision.id.clone() });
        };
        if index.revision != entry.revision.id {
            return Err(self.lost(&path, "it holds another revision"));
        }
        Ok((index, all))
    }

    fn read_pack(&self, file: &PackFile) -> Result<(Index, BTreeMap<Digest, Content>), StoreError> {
        let path = self.pack_path(file);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.lost(&path, "it is missing"));
            }
            Err(error) => return Err(StoreError::io(&path, "reading", &error)),
        };
        if Digest::of(&bytes) != file.digest {
            return Err(self.lost(&path, "its bytes are not the ones that were written"));
        }
        let plain = seal::unseal(&bytes, self.identity.opening()).map_err(|closed| match closed {
            Closed::Foreign => StoreError::WrongIdentity { what: path.display().to_string() },
            Closed::Damaged => self.lost(&path, "it cannot be unsealed"),
        })?;
        pack::unpack(&plain).ok_or_else(|| self.lost(&path, "it cannot be read"))
    }

    pub(crate) fn write_pack<'a>(
        &self,
        index: &Index,
        contents: impl Iterator<Item = &'a Content>,
    ) -> Result<PackFile, StoreError> {
        let plain = pack::pack(index, contents).ok_or(StoreError::Crypto("packing the revision"))?;
        let sealed = seal::seal(&plain, &self.identity, &self.recipients)?;
        let file =
            PackFile { digest: Digest::of(&sealed), size: sealed.len() as u64, recipients: self.recipients.digest() };
        self.disk.write(&self.pack_path(&file), &sealed)?;
        Ok(file)
    }

    pub(crate) fn replace(&mut self, manifest: Manifest) -> Result<(), StoreError> {
        self.disk.write(&manifest_path(&self.folder), &manifest.sign(&self.identity)?)?;
        self.manifest = manifest;
        Ok(())
    }

    pub(crate) fn pack_path(&self, file: &PackFile) -> PathBuf {
        packs_folder(&self.folder).join(format!("{}.age", file.digest))
    }

    /// Damage to a sealed file, with the revisions that need it.
    fn lost(&self, path: &Path, what: &str) -> StoreError {
        let numbers: Vec<_> = self
            .manifest
            .entries
            .iter()
            .filter(|entry| entry.packs.iter().any(|file| self.pack_path(file) == path))
            .map(|entry| entry.revision.id.to_string())
            .collect();
        StoreError::Damaged {
            path: path.to_owned(),
            what: what.to_owned(),
            lost: format!("keys, certificates and rendered files of revision {}", numbers.join(", ")),
        }
    }
}

pub(crate) fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest")
}

fn packs_folder(folder: &Path) -> PathBuf {
    folder.join("sealed")
}

/// The manifest's bytes. Its absence beside sealed files is damage, never a new beginning.
pub(crate) fn read_manifest(folder: &Path) -> Result<Vec<u8>, StoreError> {
    let path = manifest_path(folder);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let sealed = std::fs::read_dir(packs_folder(folder)).is_ok_and(|mut entries| entries.next().is_some());
            if sealed || folder.join("journal.jsonl").exists() {
                Err(damaged(&path, "it is missing"))
            } else {
                Err(StoreError::NoState { folder: folder.to_owned() })
            }
        }
        Err(error) => Err(StoreError::io(&path, "reading", &error)),
    }
}
