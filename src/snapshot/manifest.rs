//! What a snapshot says of itself, signed.

use serde::Deserialize;
use serde::Serialize;

use crate::model::ClusterId;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::KubeVersion;
use crate::model::RevisionId;
use crate::model::SnapshotName;
use crate::snapshot::SnapshotError;
use crate::store;
use crate::store::Identity;
use crate::store::Signs;
use crate::store::Unsigned;

/// The layout that this program writes.
const SCHEMA: u32 = 1;
/// What the signature is for.
const KIND: &str = "snapshot";

/// Everything about a snapshot that is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub(crate) schema: u32,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name in cluster.yml.
    pub cluster_name: String,
    /// The snapshot's own name.
    pub name: SnapshotName,
    /// When it was begun, seconds since 1970.
    pub taken_at: i64,
    /// Which member it was taken from.
    pub member: HostName,
    /// What it was taken for, such as `save`.
    pub why: String,
    /// That member's version, such as `3.7.2`.
    pub etcd_version: String,
    /// The cluster's release.
    pub kubernetes: KubeVersion,
    /// The newest revision that was reached; its target and keys are in the state.
    pub revision: Option<RevisionId>,
    /// Everything up to this revision of etcd is in the database. What was written while it was taken may be too.
    pub etcd_revision: u64,
    /// How many keys there are at that revision.
    pub keys: u64,
    /// etcd's own hash over them; none where a compaction came between.
    pub hash: Option<KeyHash>,
    /// The sealed state, as it lies in the file.
    pub state: Part,
    /// The database, as etcd streamed it: with its SHA-256 as the last 32 bytes.
    pub database: Part,
    /// The same, deflated and sealed, as it lies in the file.
    pub sealed: Part,
}

/// etcd's hash over all keys up to a revision. Comparable only where `compact_revision` is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHash {
    /// The hash itself.
    pub hash: u32,
    /// Up to which revision.
    pub revision: u64,
    /// What was compacted away; -1 where nothing ever was.
    pub compact_revision: i64,
}

/// Bytes by size and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// In bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: Digest,
}

impl Manifest {
    /// The layout that this program writes.
    pub const SCHEMA: u32 = SCHEMA;

    /// What a snapshot is for that a host took by itself.
    pub const RECURRING: &str = "recurring";

    /// The signed text.
    pub(crate) fn sign(&self, key: &dyn Signs) -> Result<Vec<u8>, SnapshotError> {
        let body = serde_json::to_vec(self).map_err(|_| SnapshotError::Damaged("its manifest cannot be written"))?;
        Ok(store::sign(KIND, &body, key))
    }

    /// Reads signed text. What is refused: any other signer, cluster or name than expected. A host may sign what it took by itself,
    /// and nothing else.
    pub(crate) fn read(signed: &[u8], identity: &Identity, name: Option<&SnapshotName>) -> Result<Self, SnapshotError> {
        let body = match identity.verified(KIND, signed) {
            Err(Unsigned::Foreign(signer)) => match Maker::unverified(signed) {
                Some(maker) if maker.why == Self::RECURRING => identity.verified_of(&maker.member, KIND, signed),
                _ => Err(Unsigned::Foreign(signer)),
            },
            other => other,
        };
        Self::parse(body.map_err(unbelieved)?, identity.cluster(), name)
    }

    /// The same on a host, which has no identity: believed is what one of `signers` (public keys) signed.
    pub(crate) fn read_signed_by(
        signed: &[u8],
        signers: &[String],
        cluster: &ClusterId,
        name: Option<&SnapshotName>,
    ) -> Result<Self, SnapshotError> {
        let mut refused = Unsigned::Absent;
        for signer in signers {
            match store::verified(KIND, signed, signer) {
                Ok(body) => return Self::parse(body, cluster, name),
                Err(unsigned) => refused = unsigned,
            }
        }
        Err(unbelieved(refused))
    }

    fn parse(body: &[u8], cluster: &ClusterId, name: Option<&SnapshotName>) -> Result<Self, SnapshotError> {
        let unreadable = |_| SnapshotError::Damaged("its manifest cannot be read");
        let Layout { schema } = serde_json::from_slice(body).map_err(unreadable)?;
        if schema > SCHEMA {
            return Err(SnapshotError::TooNew { schema });
        }
        let manifest: Self = serde_json::from_slice(body).map_err(unreadable)?;
        if manifest.cluster != *cluster {
            let (expected, found) = (cluster.clone(), manifest.cluster);
            return Err(SnapshotError::ForeignCluster { expected, found });
        }
        match name {
            Some(expected) if *expected != manifest.name => {
                Err(SnapshotError::OtherName { expected: expected.clone(), found: manifest.name })
            }
            _ => Ok(manifest),
        }
    }
}

fn unbelieved(unsigned: Unsigned) -> SnapshotError {
    match unsigned {
        Unsigned::Absent => SnapshotError::Unsigned { signer: None },
        Unsigned::Foreign(signer) => SnapshotError::Unsigned { signer: Some(signer) },
        Unsigned::Broken => SnapshotError::Damaged("its signature does not fit"),
    }
}

/// Who says to have made it: enough to know which host's signature to look for.
#[derive(Deserialize)]
struct Maker {
    member: HostName,
    why: String,
}

impl Maker {
    fn unverified(signed: &[u8]) -> Option<Self> {
        serde_json::from_slice(store::unverified(signed)?).ok()
    }
}

/// Only the layout, which stands in every one.
#[derive(Deserialize)]
struct Layout {
    schema: u32,
}
