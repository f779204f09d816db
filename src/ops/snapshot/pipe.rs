//! From one writer to many places, and from a place to one reader: in constant memory, the slowest sets the pace.

use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use sha2::Digest as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::bucket::Bucket;
use crate::host::Host as _;
use crate::model::Content;
use crate::model::Digest;
use crate::model::RemotePath;
use crate::model::SnapshotName;
use crate::ops::connect::RealHost;

/// Pieces that may wait for one place.
const WAITING: usize = 8;
/// What is sent at once.
const PIECE: usize = 128 << 10;
/// What is fetched from elsewhere at once.
const BLOCK: u64 = 4 << 20;

/// What goes to a place: bytes, or that they are all. A pipe that just ends has broken.
enum Piece {
    Bytes(Arc<Vec<u8>>),
    End,
}

/// Where a writer that knows nothing of places leaves its bytes. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Tray(Arc<Mutex<Vec<u8>>>);

impl Tray {
    /// What came together, where that is worth sending.
    pub(super) fn full(&self) -> Option<Vec<u8>> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (bytes.len() >= PIECE).then(|| std::mem::take(&mut *bytes))
    }

    /// What is left.
    pub(super) fn rest(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Tray {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Gives the same bytes to many places.
#[derive(Default)]
pub(super) struct Fan {
    places: Vec<mpsc::Sender<Piece>>,
    hash: sha2::Sha256,
}

impl Fan {
    /// One more place, to be read by somebody who may block.
    pub(super) fn place(&mut self) -> Source {
        let (sender, pieces) = mpsc::channel(WAITING);
        self.places.push(sender);
        Source { pieces, piece: Arc::default(), read: 0, ended: false }
    }

    /// Hands these bytes on, as fast as the slowest place takes them. False when no place is left.
    pub(super) async fn give(&mut self, bytes: Vec<u8>) -> bool {
        self.hash.update(&bytes);
        let piece = Arc::new(bytes);
        let mut left = Vec::new();
        for place in self.places.drain(..) {
            // A place that is gone has its own way to say why.
            if place.send(Piece::Bytes(Arc::clone(&piece))).await.is_ok() {
                left.push(place);
            }
        }
        self.places = left;
        !self.places.is_empty()
    }

    /// Says that this was all. Returns the digest of everything.
    pub(super) async fn end(mut self) -> Digest {
        for place in self.places.drain(..) {
            let _ = place.send(Piece::End).await;
        }
        Digest(self.hash.finalize().into())
    }
}

/// One place's end of a [`Fan`].
pub(in crate::ops) struct Source {
    pieces: mpsc::Receiver<Piece>,
    piece: Arc<Vec<u8>>,
    read: usize,
    ended: bool,
}

impl Source {
    /// The next bytes, for a place that need not block; none when these were all.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Arc<Vec<u8>>>> {
        match self.pieces.recv().await {
            Some(Piece::Bytes(piece)) => Ok(Some(piece)),
            Some(Piece::End) => Ok(None),
            None => Err(std::io::Error::other("it was given up")),
        }
    }
}

impl Read for Source {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        while self.read == self.piece.len() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(piece)) => (self.piece, self.read) = (piece, 0),
                Some(Piece::End) => self.ended = true,
                None => return Err(std::io::Error::other("it was given up")),
            }
        }
        let count = bytes.len().min(self.piece.len() - self.read);
        bytes[..count].copy_from_slice(&self.piece[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

/// A pipe into one place, whose last piece waits until all was verified: before that the place has not got everything.
pub(in crate::ops) fn feed() -> (Feed, Source) {
    let (sender, pieces) = mpsc::channel(WAITING);
    (Feed { sender, held: Vec::new() }, Source { pieces, piece: Arc::default(), read: 0, ended: false })
}

/// The writing end. Only for threads that may block.
pub(in crate::ops) struct Feed {
    sender: mpsc::Sender<Piece>,
    held: Vec<u8>,
}

impl Feed {
    /// Everything was verified: lets the last piece go.
    pub(in crate::ops) fn end(mut self) -> std::io::Result<()> {
        let last = std::mem::take(&mut self.held);
        self.send(Piece::Bytes(Arc::new(last)))?;
        self.send(Piece::End)
    }
    fn send(&self, piece: Piece) -> std::io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.held.len() >= PIECE {
            let full = std::mem::take(&mut self.held);
            self.send(Piece::Bytes(Arc::new(full)))?;
        }
        self.held.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file that is elsewhere.
#[derive(Clone)]
pub(in crate::ops) enum Door {
    /// In the folder of snapshots on a host.
    Host(Arc<RealHost>, RemotePath, SnapshotName),
    /// In the bucket.
    Bucket(Arc<Bucket>, SnapshotName),
}

impl Door {
    async fn read(self, offset: u64, length: u64) -> std::io::Result<Content> {
        let block = match &self {
            Self::Host(host, folder, file) => {
                host.read_snapshot(folder, file, offset, length).await.map_err(std::io::Error::other)
            }
            Self::Bucket(bucket, name) => {
                bucket.read(name, offset, length).await.map(Content::new).map_err(std::io::Error::other)
            }
        };
        let shorter = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file has become shorter");
        block.and_then(|block| if block.len() as u64 == length { Ok(block) } else { Err(shorter()) })
    }

    /// For people.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Host(host, folder, file) => format!("{}:{folder}/{file}", host.name()),
            Self::Bucket(bucket, name) => format!("{}/{name}", bucket.address()),
        }
    }
}

/// A snapshot that is elsewhere, read block by block. Only for threads that may block.
pub(in crate::ops) struct Remote {
    pub(super) door: Door,
    size: u64,
    runtime: Handle,
    at: u64,
    block: Content,
    /// Where the block begins.
    from: u64,
    /// The block after it, where whoever reads goes through the file from one to the next: a round trip is not waited for then.
    ahead: Option<(u64, AbortOnDropHandle<std::io::Result<Content>>)>,
}

impl Remote {
    /// The file of this size. Runs on `runtime` while the caller's thread waits.
    pub(in crate::ops) fn new(door: Door, size: u64, runtime: Handle) -> Self {
        Self { door, size, runtime, at: 0, block: Content::new(Vec::new()), from: 0, ahead: None }
    }

    /// The block at `at` takes the place of the one that is there.
    fn fetch(&mut self) -> std::io::Result<()> {
        let at = self.at;
        let length = |from: u64| BLOCK.min(self.size - from);
        let goes_on = !self.block.is_empty() && at == self.from + self.block.len() as u64;
        // Not both at once.
        self.block = Content::new(Vec::new());
        let block = match self.ahead.take().filter(|(from, _)| *from == at) {
            Some((_, ahead)) => self.runtime.block_on(ahead).map_err(std::io::Error::other)??,
            None => self.runtime.block_on(self.door.clone().read(at, length(at)))?,
        };
        let next = at + block.len() as u64;
        if goes_on && next < self.size {
            let reading = self.runtime.spawn(self.door.clone().read(next, length(next)));
            self.ahead = Some((next, AbortOnDropHandle::new(reading)));
        }
        (self.block, self.from) = (block, at);
        Ok(())
    }
}

/// Reads for itself.
impl Clone for Remote {
    fn clone(&self) -> Self {
        Self { at: self.at, ..Self::new(self.door.clone(), self.size, self.runtime.clone()) }
    }
}

impl Read for Remote {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.at >= self.size {
            return Ok(0);
        }
        if self.at < self.from || self.at >= self.from + self.block.len() as u64 {
            self.fetch()?;
        }
        let start = usize::try_from(self.at - self.from).unwrap_or_default();
        let count = bytes.len().min(self.block.len() - start);
        bytes[..count].copy_from_slice(&self.block.expose()[start..start + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Remote {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::io::Write as _;

    use super::Fan;
    use super::PIECE;
    use super::Tray;
    use crate::model::Digest;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_place_gets_everything_or_an_error() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * PIECE + 7).collect();
        let mut fan = Fan::default();
        let (mut whole, gone) = (fan.place(), fan.place());
        drop(gone);
        let reader = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            whole.read_to_end(&mut all).map(|_| all)
        });
        let mut tray = Tray::default();
        for piece in bytes.chunks(1000) {
            tray.write_all(piece).unwrap();
            if let Some(full) = tray.full() {
                assert!(fan.give(full).await);
            }
        }
        fan.give(tray.rest()).await;
        assert_eq!(fan.end().await, Digest::of(&bytes));
        assert_eq!(reader.await.unwrap().unwrap(), bytes);

        let mut fan = Fan::default();
        let mut cut = fan.place();
        assert!(fan.give(bytes).await);
        drop(fan);
        let ended = tokio::task::spawn_blocking(move || cut.read_to_end(&mut Vec::new())).await.unwrap();
        assert!(ended.is_err(), "half was taken for all");
    }
}
