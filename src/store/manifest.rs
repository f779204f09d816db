//! The one file that says what the state is. Replacing it is the moment at which a change is made.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::model::ClusterId;
use crate::model::Digest;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::store::Identity;
use crate::store::StoreError;
use crate::store::seal;
use crate::store::seal::Unsigned;

pub(crate) const SCHEMA: u32 = 1;
const KIND: &str = "manifest";

/// What keeps the state open when the operator's machine is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backup {
    /// The identity is protected by a passphrase, so that a copy of it can be kept anywhere.
    Passphrase,
    /// `bastide.state.recipients` open the state as well.
    Recipients,
    /// `--no-identity-backup`: nothing does.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema: u32,
    pub(crate) cluster: ClusterId,
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) written: i64,
    pub(crate) backup: Backup,
    /// Oldest first; only grows.
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) revision: Revision,
    /// Together they hold the revision's contents; the last one holds its index. Empty where a rebuilt folder lacks them.
    pub(crate) packs: Vec<PackFile>,
}

/// A sealed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackFile {
    /// Of the sealed bytes, so that damage shows before anything is opened. Also the file's name.
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
    /// Of the recipients beside the identity.
    pub(crate) recipients: Digest,
}

impl Manifest {
    /// The signed file's bytes.
    pub(crate) fn sign(&self, identity: &Identity) -> Result<Vec<u8>, StoreError> {
        let body = serde_json::to_vec_pretty(self).map_err(|_| StoreError::Crypto("writing the manifest"))?;
        Ok(seal::sign(KIND, &body, identity))
    }

    /// Reads and checks the signed file's bytes.
    pub(crate) fn read(path: &Path, bytes: &[u8], identity: &Identity) -> Result<Self, StoreError> {
        let what = || path.display().to_string();
        let body = seal::verified(KIND, bytes, &identity.signer()).map_err(|unsigned| match unsigned {
            Unsigned::Absent => StoreError::NotSigned { what: what() },
            Unsigned::Foreign(signer) => StoreError::ForeignSignature { what: what(), signer },
            Unsigned::Broken => damaged(path, "its signature does not fit"),
        })?;
        let schema = Schema::read(body).ok_or_else(|| damaged(path, "it is not the JSON that was written"))?;
        if schema > SCHEMA {
            return Err(StoreError::TooNew { what: what(), schema });
        }
        let manifest: Self =
            serde_json::from_slice(body).map_err(|_| damaged(path, "it is not the JSON that was written"))?;
        if manifest.cluster != *identity.cluster() {
            return Err(StoreError::ForeignCluster {
                what: what(),
                expected: identity.cluster().clone(),
                found: manifest.cluster,
            });
        }
        Ok(manifest)
    }

    pub(crate) fn find(&self, id: &RevisionId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.revision.id == *id)
    }

    /// The newest entry whose target the hosts were seen at.
    pub(crate) fn reached(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.revision.was_reached())
    }
}

/// A manifest that can't be read takes everything with it, because only it says what the sealed files are.
pub(crate) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
        lost: "the history and the contents of every revision".to_owned(),
    }
}

/// Only the layout, which stands in every one.
#[derive(Deserialize)]
pub(crate) struct Schema {
    schema: u32,
}

impl Schema {
    pub(crate) fn read(json: &[u8]) -> Option<u32> {
        serde_json::from_slice(json).ok().map(|Self { schema }| schema)
    }
}
