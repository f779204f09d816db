//! One document that rebuilds the folder: it lies on every control-plane and etcd host.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

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
use crate::store::Journal;
use crate::store::PluginTalk;
use crate::store::Recipients;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::folder::manifest_path;
use crate::store::folder::peek;
use crate::store::folder::read_manifest;
use crate::store::manifest::Entry;
use crate::store::manifest::Manifest;
use crate::store::manifest::SCHEMA;
use crate::store::manifest::Schema;
use crate::store::pack;
use crate::store::pack::Index;
use crate::store::prune::Chain;
use crate::store::seal;
use crate::store::seal::Closed;
use crate::store::seal::Unsigned;

const COPY: &str = "copy";

/// What stands in clear, signed, before the sealed part of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    schema: u32,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Newest revision at that time.
    pub revision: Option<RevisionId>,
    /// Seconds since 1970.
    pub written: i64,
    /// Of the sealed part.
    sealed: Digest,
    /// Whom the copy is sealed to: a host seals its own snapshots to the same. None in copies from before hosts made any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
}

/// The sealed part of a copy, beside the contents.
#[derive(Serialize, Deserialize)]
struct Carried {
    backup: Backup,
    /// The identity itself, so that a recipient who opens the copy can also write state again.
    identity: String,
    history: Vec<Revision>,
    kept: Vec<Index>,
    /// Lines of the journal; none in the copies on hosts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    journal: String,
}

/// What a document says about itself, unverified: to choose the newest among several, and the identity that opens it.
pub fn head(document: &Content) -> Option<Head> {
    split(seal::unverified(document.expose())?).map(|(head, _)| head)
}

impl Store {
    /// Seals and signs `plain` as a document of this `kind` (a lower-case word), such as a plan that is to be run later.
    pub fn seal(&self, kind: &str, plain: &Content) -> Result<Content, StoreError> {
        let sealed = seal::seal(plain.expose(), &self.identity, &self.recipients)?;
        let head = Head {
            schema: SCHEMA,
            cluster: self.manifest.cluster.clone(),
            name: self.manifest.name.clone(),
            revision: self.newest().map(|newest| newest.id.clone()),
            written: self.manifest.written,
            sealed: Digest::of(&sealed),
            recipients: self.recipients()?.texts().to_vec(),
        };
        let mut body = serde_json::to_vec(&head).map_err(|_| StoreError::Crypto("writing a document's head"))?;
        body.push(b'\n');
        body.extend_from_slice(&sealed);
        Ok(Content::new(seal::sign(kind, &body, &self.identity)))
    }

    /// Undoes [`Store::seal`]; a document of another kind, cluster or signer is refused.
    pub fn unseal(&self, kind: &str, document: &Content) -> Result<Content, StoreError> {
        let (_, plain) = open(kind, document, &self.identity)?;
        Ok(plain)
    }

    /// The newest state in one document: the whole history, and the contents of the newest reached and the newest
    /// revision.
    pub fn sealed_copy(&self) -> Result<Content, StoreError> {
        self.carry(newest(&self.manifest), String::new())
    }

    /// All of the folder in one document of the same kind: the contents of every revision that has any, and the journal.
    pub fn export(&self) -> Result<Content, StoreError> {
        let kept = self.manifest.entries.iter().filter(|entry| !entry.packs.is_empty());
        self.carry(kept.collect(), Journal::at(&self.folder).text()?)
    }

    fn carry(&self, entries: Vec<&Entry>, journal: String) -> Result<Content, StoreError> {
        let mut kept = Vec::new();
        let mut contents: BTreeMap<Digest, Content> = BTreeMap::new();
        for entry in entries {
            let (index, mut all) = self.contents(entry)?;
            let wanted: std::collections::BTreeSet<Digest> = index.all().copied().collect();
            all.retain(|digest, _| wanted.contains(digest));
            contents.extend(all);
            kept.push(index);
        }
        let identity = self.identity.text().to_owned();
        let carried = Carried { backup: self.manifest.backup, identity, history: self.history(), kept, journal };
        let plain = pack::pack(&carried, contents.values()).ok_or(StoreError::Crypto("packing the state"))?;
        self.seal(COPY, &Content::new(plain.as_slice()))
    }
}

/// The newest reached entry and the newest of all, oldest first, each once.
fn newest(manifest: &Manifest) -> Vec<&Entry> {
    let mut entries: Vec<&Entry> = manifest.reached().into_iter().collect();
    entries.extend(manifest.entries.last().filter(|last| entries.first().is_none_or(|first| first != last)));
    entries
}

/// Rebuilds `folder` from the copy that a host kept.
///
/// An intact folder is only ever advanced: one that already holds everything, or knows more than the copy, is left
/// alone. Revisions whose contents are neither in the copy nor in the folder stay in the history without them.
pub fn recover(
    copy: &Content,
    identity: Identity,
    recipients: Recipients,
    folder: &Path,
    holder: &LockHolder,
) -> Result<(Store, FolderLock), StoreError> {
    let (head, plain) = open(COPY, copy, &identity)?;
    let damaged = || broken("it cannot be read");
    let (carried, contents): (Carried, BTreeMap<Digest, Content>) = pack::unpack(plain.expose()).ok_or_else(damaged)?;
    let manifest = Manifest {
        schema: SCHEMA,
        cluster: head.cluster,
        name: head.name,
        written: head.written,
        backup: carried.backup,
        entries: Vec::new(),
    };
    let mut store = Store { folder: folder.to_owned(), identity, recipients, disk: Disk, manifest };
    let here = local(folder, &store.identity, &carried.history)?;
    let lock = store.make(holder)?;
    let mut entries: Vec<Entry> = carried
        .history
        .into_iter()
        .map(|revision| {
            match here.as_ref().and_then(|here| here.find(&revision.id)) {
                // The copy was made before its newest revision ended; the folder may know how.
                Some(kept) if kept.revision.state != RevisionState::Started => kept.clone(),
                Some(kept) => Entry { revision, packs: kept.packs.clone() },
                None => Entry { revision, packs: Vec::new() },
            }
        })
        .collect();
    let mut chain = Chain::default();
    for index in &carried.kept {
        index.assemble(&contents).ok_or_else(damaged)?;
        let entry = entries.iter_mut().find(|entry| entry.revision.id == index.revision).ok_or_else(damaged)?;
        entry.packs = chain.add(&store, index, &contents)?;
    }
    Journal::at(folder).found(&carried.journal)?;
    let mut manifest = store.manifest.clone();
    manifest.entries = entries;
    store.replace(manifest)?;
    Ok((store, lock))
}

/// The secrets' documents of all revisions whose contents are in `copy`, oldest first.
pub fn secrets_of(copy: &Content, identity: &Identity) -> Result<Vec<Content>, StoreError> {
    Ok(contents_of(copy, identity)?.into_iter().map(|(_, _, secrets)| secrets).collect())
}

/// Targets, contents and secrets' documents of all revisions whose contents are in `copy`, oldest first.
pub fn contents_of(copy: &Content, identity: &Identity) -> Result<Vec<(Desired, Blobs, Content)>, StoreError> {
    let (_, plain) = open(COPY, copy, identity)?;
    let damaged = || broken("it cannot be read");
    let (carried, contents): (Carried, BTreeMap<Digest, Content>) = pack::unpack(plain.expose()).ok_or_else(damaged)?;
    carried.kept.iter().map(|index| index.assemble(&contents)).collect::<Option<_>>().ok_or_else(damaged)
}

/// The folder's own manifest where it is intact and the copy goes beyond it.
fn local(folder: &Path, identity: &Identity, history: &[Revision]) -> Result<Option<Manifest>, StoreError> {
    let Ok(bytes) = read_manifest(folder) else { return Ok(None) };
    let manifest = match Manifest::read(&manifest_path(folder), &bytes, identity) {
        Ok(manifest) => manifest,
        // Somebody else's state is not rubbish to be written over.
        Err(error @ (StoreError::ForeignCluster { .. } | StoreError::TooNew { .. })) => return Err(error),
        Err(error @ StoreError::ForeignSignature { .. }) => {
            let ours = peek(folder).is_ok_and(|peek| peek.cluster == *identity.cluster());
            return if ours { Ok(None) } else { Err(error) };
        }
        Err(_) => return Ok(None),
    };
    for entry in &manifest.entries {
        if !history.iter().any(|revision| revision.id == entry.revision.id) {
            return Err(StoreError::CopyOlder { folder: folder.to_owned(), revision: entry.revision.id.clone() });
        }
    }
    Ok(Some(manifest))
}

fn open(kind: &str, document: &Content, identity: &Identity) -> Result<(Head, Content), StoreError> {
    let what = || format!("the sealed {kind}");
    let (head, sealed) = signed(kind, document, &identity.signer())?;
    if head.cluster != *identity.cluster() {
        return Err(StoreError::ForeignCluster {
            what: what(),
            expected: identity.cluster().clone(),
            found: head.cluster,
        });
    }
    let plain = seal::unseal(sealed, identity.opening()).map_err(|closed| match closed {
        Closed::Foreign => StoreError::WrongIdentity { what: what() },
        Closed::Damaged => broken("it cannot be unsealed"),
    })?;
    Ok((head, Content::new(plain.as_slice())))
}

/// Head and sealed part of a document that `signer` signed.
fn signed<'a>(kind: &str, document: &'a Content, signer: &str) -> Result<(Head, &'a [u8]), StoreError> {
    let what = || format!("the sealed {kind}");
    let body = seal::verified(kind, document.expose(), signer).map_err(|unsigned| match unsigned {
        Unsigned::Absent => StoreError::NotSigned { what: what() },
        Unsigned::Foreign(signer) => StoreError::ForeignSignature { what: what(), signer },
        Unsigned::Broken => broken("its signature does not fit"),
    })?;
    let schema = body
        .split(|byte| *byte == b'\n')
        .next()
        .and_then(Schema::read)
        .ok_or_else(|| broken("its head cannot be read"))?;
    if schema > SCHEMA {
        return Err(StoreError::TooNew { what: what(), schema });
    }
    split(body).ok_or_else(|| broken("its head cannot be read"))
}

/// What the copy on a host says of itself, and whom a host can seal to as it is sealed, where `signer` signed it: hosts have no age
/// plugins. Opens nothing.
pub fn sealed_to(copy: &Content, signer: &str) -> Result<(Head, Recipients), StoreError> {
    let (head, _) = signed(COPY, copy, signer)?;
    let recipients = Recipients::parse(&head.recipients)?.without_plugins();
    Ok((head, recipients))
}

/// Whose signature on a copy is believed when the identity that would tell is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// This one, written down by the operator: [`Identity::signer`].
    Signer(String),
    /// Whatever the copy carries. Root on the host that gave it could have made it up.
    OnFirstUse,
}

/// The identity inside a copy, for one of `bastide.state.recipients`: `key` is the private key (an age identity, or an
/// OpenSSH key without passphrase), or the line by which one of age's plugins knows its key; that may ask `talk` for a PIN. It should be
/// saved before the copy is used by [`recover`].
pub fn restore_identity(
    copy: &Content,
    key: &Content,
    trust: &Trust,
    talk: Option<Arc<dyn PluginTalk>>,
) -> Result<Identity, StoreError> {
    let unfit = || StoreError::WrongIdentity { what: "the sealed copy".to_owned() };
    let body = seal::unverified(copy.expose()).ok_or_else(|| broken("it cannot be read"))?;
    let (_, sealed) = split(body).ok_or_else(|| broken("its head cannot be read"))?;
    let key = seal::private_key(key, talk)?.ok_or_else(unfit)?;
    let plain = seal::unseal_by(sealed, key.as_ref())?.map_err(|closed| match closed {
        Closed::Foreign => unfit(),
        Closed::Damaged => broken("it cannot be unsealed"),
    })?;
    let (carried, _): (Carried, _) = pack::unpack(&plain).ok_or_else(|| broken("it cannot be read"))?;
    let text = zeroize::Zeroizing::new(carried.identity);
    let identity = Identity::parse(text.as_bytes()).ok_or_else(|| broken("it holds no identity"))?;
    if let Trust::Signer(signer) = trust
        && *signer != identity.signer()
    {
        return Err(StoreError::ForeignSignature { what: "the sealed copy".to_owned(), signer: identity.signer() });
    }
    open(COPY, copy, &identity)?;
    Ok(identity)
}

fn split(body: &[u8]) -> Option<(Head, &[u8])> {
    let end = body.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&body[..end]).ok()?;
    let sealed = &body[end + 1..];
    (Digest::of(sealed) == head.sealed).then_some((head, sealed))
}

/// A damaged document: another host's copy may be whole.
fn broken(what: &str) -> StoreError {
    StoreError::Damaged {
        path: "the sealed document".into(),
        what: what.to_owned(),
        lost: "this document only; other hosts keep copies of their own".to_owned(),
    }
}
