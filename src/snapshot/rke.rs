//! Snapshots that RKE or etcdctl made: neither sealed nor signed.

use std::io::Read;
use std::io::Seek;

use zip::ZipArchive;

use crate::snapshot::SnapshotError;

/// Twice what etcd's documentation gives as the largest database that it supports. What says that it becomes longer is no
/// snapshot, and is not unpacked.
const LONGEST: u64 = 16 << 30;
/// RKE packs two files.
const MOST: usize = 16;

/// What a file that bastide did not make is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// RKE's zip, with the database and mostly RKE's state in it.
    RkeZip,
    /// A database as etcdctl saves it.
    Database,
}

/// Tells from a file's first bytes (at least 64) what it is; none for everything else, bastide's own among it.
pub fn recognise(first: &[u8]) -> Option<Foreign> {
    if first.starts_with(b"PK\x03\x04") {
        return Some(Foreign::RkeZip);
    }
    // bbolt: page 0 has a header of 16 bytes and then the meta page's magic 0xED0CDAED, in the machine's byte order.
    let magic = first.get(16..20)?;
    [[0xED, 0xDA, 0x0C, 0xED], [0xED, 0x0C, 0xDA, 0xED]].iter().any(|known| magic == known).then_some(Foreign::Database)
}

/// The database in a zip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zipped {
    /// Its size in bytes when it is unpacked.
    pub size: u64,
    /// Which of the zip's files.
    at: usize,
}

/// Finds the one file in a zip that is a database.
pub fn find_zipped<R: Read + Seek>(input: R) -> Result<Zipped, SnapshotError> {
    let mut archive = ZipArchive::new(input).map_err(|error| SnapshotError::Zip(error.to_string()))?;
    if archive.len() > MOST {
        return Err(SnapshotError::Zip(format!("it holds {} files; RKE packs two", archive.len())));
    }
    let mut found = None;
    for at in 0..archive.len() {
        let file = archive.by_index(at).map_err(|error| SnapshotError::Zip(error.to_string()))?;
        let size = file.size();
        let mut first = Vec::new();
        let read = file.take(64).read_to_end(&mut first);
        read.map_err(|error| SnapshotError::Zip(error.to_string()))?;
        if recognise(&first) != Some(Foreign::Database) {
            continue;
        }
        if size > LONGEST {
            return Err(SnapshotError::Zip(format!("a database of {} GiB is more than etcd takes", size >> 30)));
        }
        if found.replace(Zipped { size, at }).is_some() {
            return Err(SnapshotError::Zip("it holds more than one database".to_owned()));
        }
    }
    found.ok_or_else(|| SnapshotError::Zip("it holds no database of etcd".to_owned()))
}

/// Reads a database out of its zip. What `read` is given never becomes longer than the zip says, and ends with an error where it
/// does not become as long or its checksum does not fit.
pub fn read_zipped<R: Read + Seek, T>(
    input: R,
    zipped: &Zipped,
    read: impl FnOnce(&mut dyn Read) -> T,
) -> Result<T, SnapshotError> {
    let mut archive = ZipArchive::new(input).map_err(|error| SnapshotError::Zip(error.to_string()))?;
    let file = archive.by_index(zipped.at).map_err(|error| SnapshotError::Zip(error.to_string()))?;
    Ok(read(&mut Exactly { input: file, left: zipped.size, ended: false }))
}

/// Reads so many bytes, no more and no less.
struct Exactly<R> {
    input: R,
    left: u64,
    ended: bool,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.ended || bytes.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            // One read more: only there the checksum is compared.
            self.ended = true;
            return match self.input.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(std::io::Error::other("the file in the zip is longer than the zip says")),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let count = self.input.read(&mut bytes[..most])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;
    use std::io::Write as _;

    use zip::CompressionMethod;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::SnapshotError;
    use super::find_zipped;
    use super::read_zipped;

    fn database(pages: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..=250).cycle().take(pages * 4096).collect();
        bytes[16..20].copy_from_slice(&[0xED, 0xDA, 0x0C, 0xED]);
        bytes
    }

    fn zip(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn unpacked(zip: &[u8]) -> Result<Vec<u8>, SnapshotError> {
        let found = find_zipped(Cursor::new(zip))?;
        let mut all = Vec::new();
        let read = read_zipped(Cursor::new(zip), &found, |file| file.read_to_end(&mut all));
        read?.map_err(|error| SnapshotError::Zip(error.to_string()))?;
        Ok(all)
    }

    #[test]
    fn the_one_database_of_a_zip_is_found_and_comes_out_as_it_went_in() {
        let plain = database(30);
        for method in [CompressionMethod::Deflated, CompressionMethod::Stored] {
            let zip = zip(&[("backup/rke_etcd_snapshot", &plain), ("backup/rke.rkestate", b"{}")], method);
            assert!(unpacked(&zip).unwrap() == plain);
        }
    }

    #[test]
    fn what_is_not_one_database_is_refused() {
        let plain = database(3);
        let deflated = |files: &[(&str, &[u8])]| zip(files, CompressionMethod::Deflated);
        assert!(unpacked(&deflated(&[("a", b"{}")])).unwrap_err().to_string().contains("no database"));
        let two = deflated(&[("a", &plain), ("b", &plain)]);
        assert!(unpacked(&two).unwrap_err().to_string().contains("more than one"));
        let names: Vec<String> = (0..40).map(|at| at.to_string()).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        assert!(unpacked(&deflated(&many)).unwrap_err().to_string().contains("40 files"));
        let good = deflated(&[("a", &plain)]);
        assert!(unpacked(&good[..good.len() / 2]).is_err(), "cut off");
        let mut flipped = good.clone();
        flipped[good.len() / 3] ^= 1;
        assert!(unpacked(&flipped).is_err(), "damaged");
    }

    #[test]
    fn a_zip_that_lies_about_a_length_gives_no_more_than_it_says() {
        let plain = database(300);
        let mut zip = zip(&[("a", &plain)], CompressionMethod::Deflated);
        let said = u32::try_from(plain.len()).unwrap().to_le_bytes();
        let less = u32::try_from(plain.len() - 4096).unwrap().to_le_bytes();
        let mut at = 0;
        while let Some(found) = zip[at..].windows(4).position(|window| window == said) {
            zip[at + found..at + found + 4].copy_from_slice(&less);
            at += found + 4;
        }
        let found = find_zipped(Cursor::new(&zip)).unwrap();
        assert_eq!(found.size, plain.len() as u64 - 4096);
        let mut all = Vec::new();
        let read = read_zipped(Cursor::new(&zip), &found, |file| file.read_to_end(&mut all)).unwrap();
        assert!(read.is_err());
        assert!(all.len() as u64 <= found.size);
    }
}
