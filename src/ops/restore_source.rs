//! Where a restore's database comes from. It is read to its end and believed only then; nothing of it lies anywhere in
//! clear but on the members themselves.

use std::io::Read;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;

use sha2::Digest as _;
use sha2::Sha256;

use crate::host::Contents;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::local::Shelf;
use crate::ops::snapshot;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::origin::Origin;
use crate::ops::snapshot::pipe;
use crate::ops::snapshot::pipe::Remote;
use crate::route::restore::Database;
use crate::snapshot::ENDING;
use crate::snapshot::Foreign;
use crate::snapshot::Manifest;
use crate::snapshot::Snapshot;
use crate::snapshot::Zipped;
use crate::snapshot::find_zipped;
use crate::snapshot::read_zipped;
use crate::snapshot::recognise;
use crate::store::Identity;

/// etcd appends the SHA-256 of what it streamed.
const TRAILER: u64 = 32;
/// A database grows by pages, whose size is a multiple of this.
const PAGE: u64 = 512;
/// A database that was read whole.
#[derive(Clone)]
pub(super) struct Source {
    /// For people.
    pub name: String,
    /// What is sent to the members.
    pub database: Database,
    /// What it says of itself, signed; none where it is a plain database.
    pub manifest: Option<Manifest>,
    origin: Origin,
    /// What opens it.
    identity: Option<Arc<Identity>>,
    /// Where it is in a zip of RKE's.
    zipped: Option<Zipped>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.name)
    }
}

impl Source {
    /// The snapshot of this name, from the first place whose copy is whole.
    pub(super) async fn named(
        site: &Site,
        name: &SnapshotName,
        accept_foreign: bool,
        talk: &dyn Talk,
    ) -> Result<Self, OpsError> {
        let listed = snapshot::pick(site, name, None, accept_foreign, talk).await?;
        let identity = site.store().identity();
        let mut wrong = OpsError::Impossible(format!("there is no snapshot {name}"));
        for place in &listed.places {
            talk.say(&format!("verifying {name} from {place}"));
            let origin = Origin::of(site, place, &listed)?;
            // Reading waits for a host: not for a thread that others need.
            let read = || Self::read(origin, Some(name), identity, accept_foreign);
            match tokio::task::block_in_place(read) {
                Ok(source) => return Ok(source),
                Err(error) => {
                    talk.warn(&error.to_string());
                    wrong = error;
                }
            }
        }
        Err(wrong)
    }

    /// What was made on a host of the data of the member that survived there.
    pub(super) fn survivor(host: &HostName, remote: Remote, database: Database) -> Self {
        Self {
            name: format!("what {host} holds"),
            database,
            manifest: None,
            origin: Origin::Remote(Box::new(remote)),
            identity: None,
            zipped: None,
        }
    }

    /// The snapshot in a file here. One that lies under another name than its own is refused.
    pub(super) fn file(path: &Path, identity: &Identity, accept_foreign: bool) -> Result<Self, OpsError> {
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ENDING));
        let name = stem.and_then(|stem| SnapshotName::new(stem).ok());
        Self::read(Origin::File(path.to_owned()), name.as_ref(), identity, accept_foreign)
    }

    /// Reads a snapshot of this cluster's, or with `accept_foreign` a plain database.
    fn read(
        origin: Origin,
        name: Option<&SnapshotName>,
        identity: &Identity,
        accept_foreign: bool,
    ) -> Result<Self, OpsError> {
        let mut first = Vec::new();
        let reading = |source| OpsError::local(&origin.path(), source);
        origin.open()?.take(64).read_to_end(&mut first).map_err(reading)?;
        if recognise(&first).is_none() {
            return Self::sealed(origin, name, identity);
        }
        if accept_foreign {
            return Self::plain(origin);
        }
        let reason = "is neither sealed nor signed: nothing proves that it is this cluster's. --accept-foreign takes it as it is";
        Err(OpsError::Database { path: origin.path(), reason: reason.to_owned() })
    }

    /// Reads a snapshot to its last byte.
    fn sealed(origin: Origin, name: Option<&SnapshotName>, identity: &Identity) -> Result<Self, OpsError> {
        let wrong = |source| OpsError::Snapshot { what: origin.path().display().to_string(), source: Box::new(source) };
        let mut snapshot = Snapshot::open(origin.open()?, identity, name).map_err(wrong)?;
        snapshot.check(identity).map_err(wrong)?;
        let manifest = snapshot.manifest().clone();
        Ok(Self {
            name: format!("snapshot {}", manifest.name),
            database: Database {
                digest: manifest.database.digest,
                size: manifest.database.size,
                revision: Some(manifest.etcd_revision),
            },
            manifest: Some(manifest),
            origin,
            identity: Some(Arc::new(identity.again()?)),
            zipped: None,
        })
    }

    /// The sealed state that a snapshot holds; none where the database is plain.
    pub(super) fn state(&self) -> Result<Option<Content>, OpsError> {
        let Some(identity) = &self.identity else { return Ok(None) };
        let wrong = |source| OpsError::Snapshot { what: self.name.clone(), source: Box::new(source) };
        let read = || {
            let input = self.origin.open()?;
            let state = Snapshot::open(input, identity, None).and_then(|mut snapshot| snapshot.state());
            state.map(Some).map_err(wrong)
        };
        // Reading may wait for a host.
        match &self.origin {
            Origin::Remote(_) => tokio::task::block_in_place(read),
            Origin::File(_) => read(),
        }
    }

    /// Reads a plain database, as etcdctl saves it, or the one in a zip of RKE's.
    fn plain(origin: Origin) -> Result<Self, OpsError> {
        let path = origin.path();
        let unreadable = |source| OpsError::local(&path, source);
        let mut file = origin.open()?;
        let mut first = Vec::new();
        (&mut file).take(64).read_to_end(&mut first).map_err(unreadable)?;
        let mut zipped = None;
        let database = match recognise(&first) {
            Some(Foreign::RkeZip) => {
                let wrong = |source| OpsError::Snapshot { what: path.display().to_string(), source: Box::new(source) };
                let found = find_zipped(&mut file).map_err(wrong)?;
                let read = read_zipped(&mut file, &found, |database| checked(&path, database, found.size));
                zipped = Some(found.clone());
                read.map_err(wrong)??
            }
            Some(Foreign::Database) => {
                let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size));
                checked(&path, &mut file, size.map_err(unreadable)?)?
            }
            None => {
                let reason = "is neither a snapshot nor a database of etcd".to_owned();
                return Err(OpsError::Database { path, reason });
            }
        };
        Ok(Self { name: path.display().to_string(), database, manifest: None, origin, identity: None, zipped })
    }

    /// The database once more, for one member.
    pub(super) fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        let mut input = self.origin.open().map_err(std::io::Error::other)?;
        let (mut feed, source) = pipe::feed();
        let (identity, size, zipped) = (self.identity.clone(), self.database.size, self.zipped.clone());
        // Nobody waits for this thread: where it fails, the pipe has no end, and its reader says so.
        std::thread::spawn(move || {
            let written = match (identity, zipped) {
                (Some(identity), _) => Snapshot::open(input, &identity, None)
                    .and_then(|mut snapshot| snapshot.database(&identity, &mut feed))
                    .is_ok(),
                (None, Some(zipped)) => read_zipped(input, &zipped, |database| std::io::copy(database, &mut feed))
                    .is_ok_and(|copied| copied.is_ok()),
                (None, None) => std::io::copy(&mut (&mut input).take(size), &mut feed).is_ok(),
            };
            if written {
                let _ = feed.end();
            }
        });
        Ok(Box::new(source))
    }
}

/// Reads a plain database of `size` bytes to its end.
fn checked(path: &Path, file: &mut dyn Read, size: u64) -> Result<Database, OpsError> {
    let wrong = |reason: &str| OpsError::Database { path: path.to_owned(), reason: reason.to_owned() };
    let trailer = if size % PAGE == TRAILER { TRAILER } else { 0 };
    if size % PAGE != trailer {
        return Err(wrong("was cut off: its size is that of no database"));
    }
    let unreadable = |source| OpsError::local(path, source);
    let mut hash = Sha256::new();
    take(file, size - trailer, &mut hash).map_err(unreadable)?;
    let mut said = Vec::new();
    // To the end: a zip compares its checksum only there.
    file.take(TRAILER + 1).read_to_end(&mut said).map_err(unreadable)?;
    if said.len() as u64 != trailer {
        return Err(wrong("changed while it was read"));
    }
    if trailer > 0 {
        if hash.clone().finalize().as_slice() != said.as_slice() {
            return Err(wrong("is damaged: the digest at its end is not that of what is before it"));
        }
        hash.update(&said);
    }
    Ok(Database { digest: Digest(hash.finalize().into()), size, revision: None })
}

fn take(file: &mut dyn Read, size: u64, hash: &mut Sha256) -> std::io::Result<()> {
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
    use std::io::Read as _;

    use sha2::Digest as _;

    use super::Origin;
    use super::Source;
    use crate::model::ClusterId;
    use crate::model::Content;
    use crate::ops::OpsError;
    use crate::snapshot::Facts;
    use crate::snapshot::Writer;
    use crate::store::Identity;
    use crate::store::Recipients;

    fn database(pages: usize) -> Vec<u8> {
        let mut bytes = vec![7; pages * 4096];
        bytes[16..20].copy_from_slice(&[0xED, 0xDA, 0x0C, 0xED]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Source, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.db");
        std::fs::write(&path, bytes).unwrap();
        match Source::plain(Origin::File(path)) {
            Ok(source) => Ok(source),
            Err(OpsError::Database { reason, .. }) => Err(reason),
            Err(OpsError::Snapshot { source, .. }) => Err(source.to_string()),
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

    /// A snapshot of `database` in a folder, under a name.
    fn sealed(identity: &Identity, called: &str, database: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        use std::io::Write as _;
        let recipients = Recipients::default().with(identity).unwrap();
        let mut writer = Writer::begin(Vec::new(), &Content::new("state"), &recipients).unwrap();
        writer.write_all(database).unwrap();
        let facts = Facts {
            cluster: identity.cluster().clone(),
            cluster_name: "demo".to_owned(),
            name: crate::model::SnapshotName::new("nightly").unwrap(),
            taken_at: 0,
            member: crate::model::HostName::new("h1").unwrap(),
            why: "save".to_owned(),
            etcd_version: "3.7.2".to_owned(),
            kubernetes: "v1.37.1".parse().unwrap(),
            revision: None,
            etcd_revision: 4711,
            keys: 1,
            hash: None,
        };
        let (_, file) = writer.finish(facts, identity).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(called);
        std::fs::write(&path, file).unwrap();
        (folder, path)
    }

    #[test]
    fn a_snapshot_gives_its_database_and_only_under_its_own_name_to_its_own_cluster() {
        let identity = Identity::generate(&ClusterId("c1".to_owned())).unwrap();
        let mut database = database(300);
        database.extend_from_slice(&sha2::Sha256::digest(&database));
        let (folder, path) = sealed(&identity, "nightly.snapshot", &database);
        let source = Source::file(&path, &identity, false).unwrap();
        assert_eq!(source.database.digest, crate::model::Digest::of(&database));
        let mut read = Vec::new();
        source.open().unwrap().read_to_end(&mut read).unwrap();
        assert!(read == database, "what is sent is not what was saved");

        let renamed = folder.path().join("newest.snapshot");
        std::fs::copy(&path, &renamed).unwrap();
        assert!(Source::file(&renamed, &identity, true).is_err(), "an old snapshot under a new name");
        let other = Identity::generate(&ClusterId("c2".to_owned())).unwrap();
        assert!(Source::file(&path, &other, true).is_err(), "another cluster's");
    }

    /// A restore has its source before it stops anything: what is refused here stops nothing.
    #[test]
    fn a_snapshot_that_was_changed_anywhere_gives_a_restore_nothing() {
        let identity = Identity::generate(&ClusterId("c1".to_owned())).unwrap();
        let mut database = database(300);
        database.extend_from_slice(&sha2::Sha256::digest(&database));
        let (_folder, path) = sealed(&identity, "nightly.snapshot", &database);
        let mut bytes = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            // Not even for whoever believes a plain database.
            for accept_foreign in [false, true] {
                assert!(Source::file(&path, &identity, accept_foreign).is_err(), "{what}");
            }
        };
        let step = (bytes.len() / 200).max(1);
        let places: Vec<_> = (0..bytes.len()).step_by(step).collect();
        assert!(places.len() >= 200, "{} places of {} bytes", places.len(), bytes.len());
        for at in places {
            let bit = 1 << (at % 8);
            bytes[at] ^= bit;
            refused(&bytes, &format!("bit {bit:#x} of byte {at} was flipped"));
            bytes[at] ^= bit;
        }
        for length in (0..bytes.len()).step_by(step * 4).chain([bytes.len() - 1]) {
            refused(&bytes[..length], &format!("cut off after {length} bytes"));
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(Source::file(&path, &identity, false).is_ok());
    }

    #[test]
    fn a_plain_database_proves_nothing() {
        let identity = Identity::generate(&ClusterId("c1".to_owned())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.db");
        std::fs::write(&path, database(3)).unwrap();
        assert!(matches!(Source::file(&path, &identity, false), Err(OpsError::Database { .. })));
        assert!(Source::file(&path, &identity, true).is_ok());
    }

    #[test]
    fn a_database_in_a_zip_is_checked_like_any_other_one() {
        use std::io::Write as _;
        let zipped = |database: &[u8]| {
            let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file("backup/rke_etcd_snapshot", options).unwrap();
            zip.write_all(database).unwrap();
            zip.start_file("backup/cluster.rkestate", options).unwrap();
            zip.write_all(b"{}").unwrap();
            zip.finish().unwrap().into_inner()
        };
        let mut saved = database(300);
        saved.extend_from_slice(&sha2::Sha256::digest(&saved));
        let source = read(&zipped(&saved)).unwrap();
        assert_eq!(
            (source.database.digest, source.database.size),
            (crate::model::Digest::of(&saved), saved.len() as u64)
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rke.zip");
        std::fs::write(&path, zipped(&saved)).unwrap();
        let source = Source::plain(Origin::File(path)).unwrap();
        let mut sent = Vec::new();
        source.open().unwrap().read_to_end(&mut sent).unwrap();
        assert!(sent == saved, "what is sent is not what was packed");
        saved[5000] ^= 1;
        assert!(read(&zipped(&saved)).unwrap_err().contains("damaged"));
        assert!(read(&zipped(&saved[..saved.len() - 1])).unwrap_err().contains("cut off"));
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
