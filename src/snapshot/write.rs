//! Makes a snapshot while etcd streams.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::KubeVersion;
use crate::model::RevisionId;
use crate::model::SnapshotName;
use crate::snapshot::KeyHash;
use crate::snapshot::Manifest;
use crate::snapshot::Part;
use crate::snapshot::SnapshotError;
use crate::snapshot::measure::Measured;
use crate::snapshot::measure::Trailer;
use crate::store::Recipients;
use crate::store::Sealer;
use crate::store::Signs;

pub(super) const MAGIC: &[u8] = b"bastide-snapshot-1\n";
pub(super) const END: &[u8] = b"bastide-snap-end";

/// What is known of a snapshot beside its bytes; see [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// The snapshot's name.
    pub name: SnapshotName,
    /// Seconds since 1970.
    pub taken_at: i64,
    /// Which member streams.
    pub member: HostName,
    /// What for.
    pub why: String,
    /// The member's version.
    pub etcd_version: String,
    /// The cluster's release.
    pub kubernetes: KubeVersion,
    /// The newest reached revision.
    pub revision: Option<RevisionId>,
    /// What etcd was at before it began to stream.
    pub etcd_revision: u64,
    /// Keys at that revision.
    pub keys: u64,
    /// etcd's hash at that revision.
    pub hash: Option<KeyHash>,
}

/// Takes etcd's stream by [`Write`] and writes the file behind it. What was not finished is no snapshot.
pub struct Writer<W: Write> {
    state: Part,
    database: DeflateEncoder<Sealer<Measured<W>>>,
    trailer: Trailer,
}

impl<W: Write> Writer<W> {
    /// Begins with the sealed state. `recipients` are all who shall open the database.
    pub fn begin(mut output: W, state: &Content, recipients: &Recipients) -> Result<Self, SnapshotError> {
        let part = Part { size: state.len() as u64, digest: Digest::of(state.expose()) };
        let begun = output
            .write_all(MAGIC)
            .and_then(|()| output.write_all(&part.size.to_be_bytes()))
            .and_then(|()| output.write_all(state.expose()));
        begun.map_err(SnapshotError::io("writing the snapshot"))?;
        let sealed = recipients.sealing(Measured::new(output))?;
        // Ciphertext does not compress, so this comes first. Level 1: a network is rarely faster, and level 6 takes thrice the
        // time for a tenth of the size.
        let database = DeflateEncoder::new(sealed, Compression::fast());
        Ok(Self { state: part, database, trailer: Trailer::default() })
    }

    /// Bytes of the database so far.
    pub fn taken(&self) -> u64 {
        self.trailer.size()
    }

    /// Checks that the stream came whole, and ends the file with its signed manifest.
    pub fn finish(self, facts: Facts, key: &dyn Signs) -> Result<(Manifest, W), SnapshotError> {
        let database = self.trailer.part();
        if !self.trailer.fits() {
            return Err(SnapshotError::Stream("its SHA-256 does not fit"));
        }
        let writing = SnapshotError::io("writing the snapshot");
        let sealed = self.database.finish().and_then(Sealer::finish).map_err(&writing)?;
        let manifest = Manifest {
            schema: Manifest::SCHEMA,
            cluster: facts.cluster,
            cluster_name: facts.cluster_name,
            name: facts.name,
            taken_at: facts.taken_at,
            member: facts.member,
            why: facts.why,
            etcd_version: facts.etcd_version,
            kubernetes: facts.kubernetes,
            revision: facts.revision,
            etcd_revision: facts.etcd_revision,
            keys: facts.keys,
            hash: facts.hash,
            state: self.state,
            database,
            sealed: sealed.part(),
        };
        let signed = manifest.sign(key)?;
        let mut output = sealed.into_inner();
        output
            .write_all(&signed)
            .and_then(|()| output.write_all(&(signed.len() as u64).to_be_bytes()))
            .and_then(|()| output.write_all(END))
            .and_then(|()| output.flush())
            .map_err(writing)?;
        Ok((manifest, output))
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.database.write(bytes)?;
        self.trailer.passed(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.database.flush()
    }
}
