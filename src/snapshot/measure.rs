//! Size and digest of what passes through.

use std::io::Read;
use std::io::Write;

use sha2::Digest as _;

use crate::model::Digest;
use crate::snapshot::Part;

/// A reader or writer that counts and digests.
pub(super) struct Measured<T> {
    inner: T,
    size: u64,
    hash: sha2::Sha256,
}

impl<T> Measured<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, size: 0, hash: sha2::Sha256::new() }
    }
    /// What passed so far.
    pub(super) fn part(&self) -> Part {
        Part { size: self.size, digest: Digest(self.hash.clone().finalize().into()) }
    }
    pub(super) fn into_inner(self) -> T {
        self.inner
    }
    fn passed(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hash.update(bytes);
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }
}

/// Counts and digests etcd's stream, and checks its own SHA-256, which is the last 32 bytes and covers all others: so one digest
/// does for both.
#[derive(Default)]
pub(super) struct Trailer {
    size: u64,
    /// Of everything but `last`.
    hash: sha2::Sha256,
    /// The last bytes so far, which may be the digest: at most 32.
    last: Vec<u8>,
}

/// Length of a SHA-256.
const DIGEST: usize = 32;

impl Trailer {
    pub(super) fn passed(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some((before, last)) = bytes.len().checked_sub(DIGEST).map(|at| bytes.split_at(at)) {
            self.hash.update(&self.last);
            self.hash.update(before);
            self.last.clear();
            self.last.extend_from_slice(last);
            return;
        }
        let surplus = (self.last.len() + bytes.len()).saturating_sub(DIGEST);
        self.hash.update(&self.last[..surplus]);
        self.last.drain(..surplus);
        self.last.extend_from_slice(bytes);
    }
    pub(super) fn size(&self) -> u64 {
        self.size
    }
    /// What passed so far, its last 32 bytes among it.
    pub(super) fn part(&self) -> Part {
        let whole = self.hash.clone().chain_update(&self.last);
        Part { size: self.size, digest: Digest(whole.finalize().into()) }
    }
    pub(super) fn fits(self) -> bool {
        self.last.len() == DIGEST && self.hash.finalize()[..] == self.last[..]
    }
}
