//! Where a restore's database comes from. It is read to its end and believed only then; nothing of it lies anywhere in
//! clear but on the members themselves.

use std::io::Read;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest as _;
use sha2::Sha256;

use crate::host::Contents;
use crate::model::Digest;
use crate::ops::OpsError;
use crate::ops::local::Shelf;
use crate::route::restore::Database;
use crate::store;

/// etcd appends the SHA-256 of what it streamed.
const TRAILER: u64 = 32;
/// A database grows by pages, whose size is a multiple of this.
const PAGE: u64 = 512;
/// bbolt's meta page: 16 bytes into the file, in the machine's byte order.
const MAGIC: [[u8; 4]; 2] = [[0xED, 0xDA, 0x0C, 0xED], [0xED, 0x0C, 0xDA, 0xED]];

/// A database that was read whole.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// For people.
    pub name: String,
    /// What is sent to the members.
    pub database: Database,
    path: PathBuf,
}

impl Source {
    /// Reads a plain database, as etcdctl and RKE save it.
    pub(super) fn plain(path: &Path) -> Result<Self, OpsError> {
        let wrong = |reason: &str| OpsError::Database { path: path.to_owned(), reason: reason.to_owned() };
        let unreadable = |source| OpsError::local(path, source);
        let mut file = store::open_file(path)?;
        let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size)).map_err(unreadable)?;
        let trailer = if size % PAGE == TRAILER { TRAILER } else { 0 };
        let mut hash = Sha256::new();
        let mut first = Vec::new();
        (&mut file).take(32).read_to_end(&mut first).map_err(unreadable)?;
        if first.starts_with(b"PK\x03\x04") {
            return Err(wrong("is a zip, as RKE makes them: unpack it and name the database that is in it"));
        }
        if !MAGIC.iter().any(|magic| first.get(16..20) == Some(magic.as_slice())) {
            return Err(wrong("is neither a snapshot nor a database of etcd"));
        }
        if size % PAGE != 0 && trailer == 0 {
            return Err(wrong("was cut off: its size is that of no database"));
        }
        file.rewind().map_err(unreadable)?;
        take(&mut file, size - trailer, &mut hash).map_err(unreadable)?;
        if trailer > 0 {
            let mut said = Vec::new();
            (&mut file).take(trailer).read_to_end(&mut said).map_err(unreadable)?;
            if hash.clone().finalize().as_slice() != said.as_slice() {
                return Err(wrong("is damaged: the digest at its end is not that of what is before it"));
            }
            hash.update(&said);
        }
        Ok(Self {
            name: path.display().to_string(),
            database: Database { digest: Digest(hash.finalize().into()), size },
            path: path.to_owned(),
        })
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        let file = store::open_file(&self.path).map_err(std::io::Error::other)?;
        Ok(Box::new(file.take(self.database.size)))
    }
}

fn take(file: &mut impl Read, size: u64, hash: &mut Sha256) -> std::io::Result<()> {
    let mut left = size;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match file.read(&mut buffer[..most])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                hash.update(&buffer[..count]);
                left -= count as u64;
            }
        }
    }
    Ok(())
}

/// What a restore writes: the target's own contents, and the database.
pub(super) struct WithDatabase {
    /// The target's.
    pub shelf: Shelf,
    /// The database; none where old data are put back.
    pub source: Option<Source>,
}

impl Contents for WithDatabase {
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn Read + Send>> {
        match &self.source {
            Some(source) if source.database.digest == *digest => source.open(),
            _ => self.shelf.open(digest),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use sha2::Digest as _;

    use super::Source;
    use crate::ops::OpsError;

    fn database(pages: usize) -> Vec<u8> {
        let mut bytes = vec![7; pages * 4096];
        bytes[16..20].copy_from_slice(&[0xED, 0xDA, 0x0C, 0xED]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Source, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.db");
        std::fs::write(&path, bytes).unwrap();
        match Source::plain(&path) {
            Ok(source) => Ok(source),
            Err(OpsError::Database { reason, .. }) => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_database_and_a_snapshot_of_it_are_told_by_their_digests() {
        let plain = database(3);
        let source = read(&plain).unwrap();
        assert_eq!(source.database.size, 3 * 4096);
        assert_eq!(source.database.digest, crate::model::Digest::of(&plain));
        let mut saved = plain.clone();
        saved.extend_from_slice(&sha2::Sha256::digest(&plain));
        assert_eq!(read(&saved).unwrap().database.digest, crate::model::Digest::of(&saved));
    }

    #[test]
    fn a_flipped_bit_a_missing_end_and_another_file_are_refused() {
        let plain = database(3);
        let mut saved = plain.clone();
        saved.extend_from_slice(&sha2::Sha256::digest(&plain));
        for at in [0, 17, 5000, 12287, 12288, 12319] {
            let mut flipped = saved.clone();
            flipped[at] ^= 1;
            assert!(read(&flipped).is_err(), "a bit flipped at {at} was accepted");
        }
        assert!(read(&saved[..saved.len() - 1]).unwrap_err().contains("cut off"));
        assert!(read(b"PK\x03\x04 and so on").unwrap_err().contains("zip"));
        assert!(read(b"kind: Secret").unwrap_err().contains("neither"));
        assert!(read(b"").is_err());
    }
}
