//! One process at a time on a state folder.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::model::LockHolder;
use crate::store::StoreError;

/// The folder's lock; let go when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl FolderLock {
    pub(crate) fn take(folder: &Path, holder: &LockHolder) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let failed = |error: &std::io::Error| StoreError::io(&path, "locking", error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
                return Err(StoreError::Locked { folder: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        // Only for people; the lock itself is the kernel's.
        let name = serde_json::to_vec(holder).unwrap_or_default();
        file.set_len(0).and_then(|()| file.write_all(&name)).map_err(|error| failed(&error))?;
        Ok(Self { file })
    }
}

impl Drop for FolderLock {
    /// A child that another thread is starting holds a copy of the descriptor until it becomes its program, and with it the
    /// lock, unless it is let go of by name.
    fn drop(&mut self) {
        _ = self.file.unlock();
    }
}
