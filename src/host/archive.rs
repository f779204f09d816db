//! What goes to a host, as one tar stream that is never in memory as a whole.

use std::collections::VecDeque;
use std::io;
use std::io::Cursor;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::host::Contents;
use crate::model::Digest;

/// Size of a tar block, POSIX.1-2017 `pax`, section "ustar Interchange Format".
const BLOCK: u64 = 512;

/// A tar archive being read. Contents are opened when their turn comes.
pub(crate) struct Archive {
    parts: VecDeque<Part>,
    current: Option<Box<dyn Read + Send>>,
    /// Bytes of the current content that are still owed, where it is one.
    owed: u64,
    name: String,
    contents: Option<Arc<dyn Contents>>,
    size: u64,
    watch: Watch,
}

/// What the sender has to say while the archive is on its way.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    sent: Arc<AtomicU64>,
    error: Arc<Mutex<Option<String>>>,
}

enum Part {
    Memory(Vec<u8>),
    Content(Digest, u64),
}

impl Watch {
    /// Bytes read since the last call.
    pub(crate) fn take_sent(&self) -> u64 {
        self.sent.swap(0, Ordering::Relaxed)
    }
    /// Why the archive broke off on this side.
    pub(crate) fn take_error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Archive {
    /// An archive of `files`, then of `blobs/DIGEST` for each digest with its size.
    pub(crate) fn new(
        files: Vec<(&str, Vec<u8>)>,
        blobs: impl IntoIterator<Item = (Digest, u64)>,
        contents: Option<Arc<dyn Contents>>,
    ) -> io::Result<Self> {
        let mut archive = Self {
            parts: VecDeque::new(),
            current: None,
            owed: 0,
            name: String::new(),
            contents,
            size: 0,
            watch: Watch::default(),
        };
        for (name, bytes) in files {
            let size = bytes.len() as u64;
            archive.entry(name, size, tar::EntryType::Regular, Part::Memory(bytes))?;
        }
        let mut blobs = blobs.into_iter().peekable();
        if blobs.peek().is_some() {
            archive.entry("blobs/", 0, tar::EntryType::Directory, Part::Memory(Vec::new()))?;
        }
        for (digest, size) in blobs {
            archive.entry(&format!("blobs/{digest}"), size, tar::EntryType::Regular, Part::Content(digest, size))?;
        }
        archive.push(vec![0; 2 * usize::try_from(BLOCK).map_err(io::Error::other)?]);
        Ok(archive)
    }
    /// Length of the whole archive in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
    /// Stays with the sender when the archive is given away.
    pub(crate) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    fn entry(&mut self, name: &str, size: u64, kind: tar::EntryType, part: Part) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(size);
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o700 } else { 0o600 });
        header.set_cksum();
        self.push(header.as_bytes().to_vec());
        self.size += size;
        self.parts.push_back(part);
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).map_err(io::Error::other)?;
        self.push(vec![0; padding]);
        Ok(())
    }
    fn push(&mut self, bytes: Vec<u8>) {
        self.size += bytes.len() as u64;
        self.parts.push_back(Part::Memory(bytes));
    }

    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(reader) = &mut self.current {
                let read = reader.read(buffer)?;
                if read > 0 {
                    self.owed = self.owed.saturating_sub(read as u64);
                    return Ok(read);
                }
                if self.owed > 0 {
                    return Err(io::Error::other(format!("{} is {} bytes too short", self.name, self.owed)));
                }
                self.current = None;
            }
            match self.parts.pop_front() {
                None => return Ok(0),
                Some(Part::Memory(bytes)) => self.current = Some(Box::new(Cursor::new(bytes))),
                Some(Part::Content(digest, size)) => {
                    let Some(contents) = &self.contents else {
                        return Err(io::Error::other(format!("nothing holds the content {digest}")));
                    };
                    // Never more than was announced: the archive's length was told to the host before.
                    self.current = Some(Box::new(contents.open(&digest)?.take(size)));
                    self.owed = size;
                    self.name = format!("the content {digest}");
                }
            }
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.advance(buffer) {
            Ok(read) => {
                self.watch.sent.fetch_add(read as u64, Ordering::Relaxed);
                Ok(read)
            }
            Err(error) => {
                *self.watch.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                Err(error)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::model::Blobs;
    use crate::model::Content;

    fn read(files: Vec<(&str, Vec<u8>)>, blobs: Blobs, sizes: &[(Digest, u64)]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut archive = Archive::new(files, sizes.iter().copied(), Some(Arc::new(blobs)))?;
        let (watch, size) = (archive.watch(), archive.size());
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size, "the announced length is the real one");
        assert_eq!(watch.take_sent(), size);
        let mut reader = tar::Archive::new(bytes.as_slice());
        let entries = reader.entries()?.map(|entry| {
            let mut entry = entry?;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            Ok((entry.path()?.display().to_string(), content))
        });
        entries.collect()
    }

    #[test]
    fn the_archive_holds_files_and_contents_of_any_length() {
        let mut blobs = Blobs::default();
        let sizes: Vec<_> = [0, 1, 511, 512, 513, 100_000]
            .map(|size| (blobs.insert(Content::new(vec![7; size])), size as u64))
            .to_vec();
        let mut expected = vec![("manifest".to_owned(), b"lines\n".to_vec()), ("blobs/".to_owned(), vec![])];
        let named =
            |(digest, size): &(Digest, u64)| (format!("blobs/{digest}"), vec![7; usize::try_from(*size).unwrap()]);
        expected.extend(sizes.iter().map(named));
        assert_eq!(read(vec![("manifest", b"lines\n".to_vec())], blobs, &sizes).unwrap(), expected);
    }

    #[test]
    fn a_content_that_is_shorter_than_announced_breaks_the_archive_off() {
        let mut blobs = Blobs::default();
        let digest = blobs.insert(Content::new("four"));
        let error = read(vec![], blobs, &[(digest, 5)]).unwrap_err();
        assert_eq!(error.to_string(), format!("the content {digest} is 1 bytes too short"));
    }

    #[test]
    fn a_content_that_nobody_has_breaks_the_archive_off() {
        let digest = Digest::of(b"unknown");
        assert_eq!(
            read(vec![], Blobs::default(), &[(digest, 5)]).unwrap_err().to_string(),
            format!("no content {digest}")
        );
    }
}
