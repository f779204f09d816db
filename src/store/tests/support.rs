//! A folder with a short history.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

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
use crate::store::Protection;
use crate::store::Recipients;
use crate::store::Store;

pub(super) const NOW: i64 = 1_767_225_600;
/// Stands in every secret of these tests; must never be found on a disk.
pub(super) const NEEDLE: &str = "s3cr3t-n33dl3";

pub(super) fn cluster_id() -> ClusterId {
    ClusterId("0123456789abcdef0123456789abcdef".to_owned())
}

pub(super) fn holder(who: &str) -> LockHolder {
    LockHolder { run: "1f".to_owned(), who: who.to_owned(), command: "up".to_owned(), since: NOW }
}

/// A temporary folder with an identity and room for a state folder.
pub(super) struct Home(tempfile::TempDir);

impl Home {
    pub(super) fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        Identity::generate(&cluster_id()).unwrap().save(&home.identities(), &Protection::default()).unwrap();
        home
    }
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
    pub(super) fn identities(&self) -> PathBuf {
        self.0.path().join("config/identities")
    }
    pub(super) fn folder(&self) -> PathBuf {
        self.0.path().join("demo.bastide")
    }
    pub(super) fn identity(&self) -> Identity {
        Identity::load(&self.identities(), &cluster_id(), &mut |_| None).unwrap()
    }
    pub(super) fn create(&self) -> (Store, FolderLock) {
        let recipients = Recipients::default();
        Store::create(&self.folder(), "demo", self.identity(), recipients, Backup::None, NOW, &holder("anna@laptop"))
            .unwrap()
    }
    pub(super) fn open(&self) -> Result<Store, crate::store::StoreError> {
        Store::open(&self.folder(), self.identity(), Recipients::default())
    }
    /// Revisions 1 (reached) and 2 (started).
    pub(super) fn with_history(&self) -> Store {
        let (mut store, lock) = self.create();
        begin(&mut store, &lock, 1).unwrap();
        store.finish(&lock, &id(1), RevisionState::Reached, NOW).unwrap();
        begin(&mut store, &lock, 2).unwrap();
        store
    }
}

pub(super) fn id(number: u32) -> RevisionId {
    RevisionId { number, nonce: format!("{number:016x}") }
}

pub(super) fn revision(number: u32) -> Revision {
    Revision {
        id: id(number),
        parent: (number > 1).then(|| id(number - 1)),
        command: "up".to_owned(),
        why: "first".to_owned(),
        who: "anna@laptop".to_owned(),
        at: NOW + i64::from(number),
        kubernetes: "v1.37.1".parse().unwrap(),
        config: Digest::of(b"cluster.yml"),
        state: RevisionState::Started,
        barrier: None,
        versions: BTreeMap::new(),
        returns_to: None,
        ended: None,
        joins: None,
    }
}

pub(super) fn desired() -> Desired {
    Desired {
        schema: Desired::SCHEMA,
        cluster: cluster_id(),
        cluster_name: "demo".to_owned(),
        kubernetes: "v1.37.1".parse().unwrap(),
        hosts: BTreeMap::new(),
        objects: Vec::new(),
        allowances: Vec::new(),
    }
}

/// One content that all revisions share and one of its own.
pub(super) fn blobs(number: u32) -> Blobs {
    let mut blobs = Blobs::default();
    blobs.insert(Content::new(format!("{NEEDLE} shared {}", noise(0, 20_000))));
    blobs.insert(Content::new(format!("{NEEDLE} of {number} {}", noise(number, 2000))));
    blobs
}

pub(super) fn secrets(number: u32) -> Content {
    Content::new(format!("{NEEDLE} key {number}"))
}

pub(super) fn begin(store: &mut Store, lock: &FolderLock, number: u32) -> Result<(), crate::store::StoreError> {
    store.begin(lock, &revision(number), &desired(), &blobs(number), &secrets(number))
}

/// What [`Store::load`] gives back for `number` while it is in `state`.
pub(super) fn whole(number: u32, state: RevisionState) -> (Revision, Desired, Blobs, Content) {
    let ended = (state != RevisionState::Started).then_some(NOW);
    (Revision { state, ended, ..revision(number) }, desired(), blobs(number), secrets(number))
}

/// Text that does not compress to nothing.
fn noise(seed: u32, length: usize) -> String {
    let mut text = String::new();
    let mut block = u64::from(seed);
    while text.len() < length {
        text.push_str(&Digest::of(&block.to_be_bytes()).to_string());
        block += 1000;
    }
    text
}

/// Every file below `folder`.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
