//! Opens a snapshot, and believes nothing before it is verified.

use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;

use flate2::read::DeflateDecoder;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::Digest;
use crate::model::SnapshotName;
use crate::snapshot::Manifest;
use crate::snapshot::SnapshotError;
use crate::snapshot::measure::Measured;
use crate::snapshot::measure::Trailer;
use crate::snapshot::write::END;
use crate::snapshot::write::MAGIC;
use crate::store::Closed;
use crate::store::Identity;

/// A manifest with its framing is never longer: a list needs so many bytes of a file's end.
pub const LONGEST_END: u64 = 16 << 10;
/// A state is never longer: it is read into memory.
const LONGEST_STATE: u64 = 256 << 20;
/// What follows the manifest.
const TAIL: u64 = 8 + END.len() as u64;
/// What precedes the state.
const HEAD: u64 = MAGIC.len() as u64 + 8;
/// What is read at once.
const BUFFER: usize = 64 << 10;

/// A snapshot whose manifest is this cluster's and fits the file's layout. Its parts are verified when they are read.
pub struct Snapshot<R> {
    input: R,
    manifest: Manifest,
}

/// The manifest in the last bytes of a file (at least [`LONGEST_END`] of them, or all), verified.
pub fn manifest_of(end: &[u8], identity: &Identity, name: Option<&SnapshotName>) -> Result<Manifest, SnapshotError> {
    Manifest::read(signed_part(end)?, identity, name)
}

/// The same on a host, which has no identity: `signers` are the public keys that are believed.
pub fn manifest_signed_by(
    end: &[u8],
    signers: &[String],
    cluster: &ClusterId,
    name: Option<&SnapshotName>,
) -> Result<Manifest, SnapshotError> {
    Manifest::read_signed_by(signed_part(end)?, signers, cluster, name)
}

fn signed_part(end: &[u8]) -> Result<&[u8], SnapshotError> {
    let rest = end.strip_suffix(END).ok_or(SnapshotError::CutOff)?;
    let (rest, length) = rest.split_last_chunk::<8>().ok_or(SnapshotError::CutOff)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let at = rest.len().checked_sub(length).ok_or(SnapshotError::Damaged("its manifest's length is wrong"))?;
    Ok(&rest[at..])
}

impl<R: Read + Seek> Snapshot<R> {
    /// Reads both ends of `input` and verifies the manifest. `name` is what the file lies as: an old snapshot that was put
    /// under a new name is refused.
    pub fn open(mut input: R, identity: &Identity, name: Option<&SnapshotName>) -> Result<Self, SnapshotError> {
        let reading = SnapshotError::io("reading the snapshot");
        let size = input.seek(SeekFrom::End(0)).map_err(&reading)?;
        begins(&mut input, size)?;
        let from = size.saturating_sub(LONGEST_END);
        input.seek(SeekFrom::Start(from)).map_err(&reading)?;
        let mut end = Vec::new();
        (&mut input).take(LONGEST_END).read_to_end(&mut end).map_err(&reading)?;
        let signed = signed_part(&end)?.len() as u64;
        let manifest = manifest_of(&end, identity, name)?;
        let parts = [HEAD, manifest.state.size, manifest.sealed.size, signed, TAIL];
        let whole = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
        if whole != Some(size) {
            return Err(SnapshotError::Damaged("its parts do not add up to its size"));
        }
        Ok(Self { input, manifest })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The sealed copy of the state, verified: what [`crate::store::recover`] takes.
    pub fn state(&mut self) -> Result<Content, SnapshotError> {
        let state = unverified_state(&mut self.input)?;
        if state.len() as u64 != self.manifest.state.size || Digest::of(state.expose()) != self.manifest.state.digest {
            return Err(SnapshotError::Damaged("its state is not the one that was written"));
        }
        Ok(state)
    }

    /// Streams the database into `output`, in constant memory, as etcd streamed it (`etcdutl snapshot restore` takes that).
    /// What was written may be used only after this returned without an error.
    pub fn database(&mut self, identity: &Identity, output: &mut dyn Write) -> Result<(), SnapshotError> {
        let manifest = &self.manifest;
        let at = SeekFrom::Start(HEAD + manifest.state.size);
        self.input.seek(at).map_err(SnapshotError::io("reading the snapshot"))?;
        let mut sealed = Measured::new((&mut self.input).take(manifest.sealed.size));
        let opened =
            identity.unsealing(BufReader::with_capacity(BUFFER, &mut sealed)).map_err(|closed| match closed {
                Closed::Foreign => SnapshotError::WrongIdentity,
                Closed::Damaged => SnapshotError::Damaged("its seal is broken"),
            })?;
        let mut database = DeflateDecoder::new_with_buf(opened, vec![0; BUFFER]);
        let mut trailer = Trailer::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match database.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(SnapshotError::Damaged("its database cannot be unsealed")),
            };
            trailer.passed(&buffer[..count]);
            if trailer.size() > manifest.database.size {
                return Err(SnapshotError::Damaged("its database is longer than it was"));
            }
            output.write_all(&buffer[..count]).map_err(SnapshotError::io("writing the database"))?;
        }
        let found = trailer.part();
        // The deflated stream knows its end; the seal's own end, which says that nothing was cut off, comes after it.
        let mut opened = database.into_inner();
        let rest = std::io::copy(&mut opened, &mut std::io::sink());
        if !matches!(rest, Ok(0)) {
            return Err(SnapshotError::Damaged("its database has no end"));
        }
        drop(opened);
        std::io::copy(&mut sealed, &mut std::io::sink()).map_err(SnapshotError::io("reading the snapshot"))?;
        if sealed.part() != manifest.sealed || found != manifest.database {
            return Err(SnapshotError::Damaged("its database is not the one that was written"));
        }
        if !trailer.fits() {
            return Err(SnapshotError::Stream("its SHA-256 does not fit"));
        }
        Ok(())
    }

    /// Reads all of it and keeps nothing.
    pub fn check(&mut self, identity: &Identity) -> Result<(), SnapshotError> {
        self.state()?;
        self.database(identity, &mut std::io::sink())
    }
}

/// The sealed state of a file that is not verified yet: to get the identity back from it by [`crate::store::restore_identity`],
/// which verifies the state's own signature.
pub fn unverified_state<R: Read + Seek>(input: &mut R) -> Result<Content, SnapshotError> {
    let reading = SnapshotError::io("reading the snapshot");
    let size = input.seek(SeekFrom::End(0)).map_err(&reading)?;
    let length = begins(input, size)?;
    let mut state = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    input.take(length).read_to_end(&mut state).map_err(reading)?;
    Ok(Content::new(state))
}

/// Reads the beginning: leaves `input` at the state and returns how long that is.
fn begins<R: Read + Seek>(input: &mut R, size: u64) -> Result<u64, SnapshotError> {
    let reading = SnapshotError::io("reading the snapshot");
    input.seek(SeekFrom::Start(0)).map_err(&reading)?;
    let mut head = Vec::new();
    input.take(HEAD).read_to_end(&mut head).map_err(reading)?;
    let length = head.strip_prefix(MAGIC).ok_or(SnapshotError::NotOurs)?;
    let length = u64::from_be_bytes(length.try_into().map_err(|_| SnapshotError::CutOff)?);
    if length > LONGEST_STATE || length > size {
        return Err(SnapshotError::Damaged("its state's length is wrong"));
    }
    Ok(length)
}
