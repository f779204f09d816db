//! Files that are either wholly there or not at all.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::model::Content;
use crate::store::StoreError;

/// Unfinished files begin with this; a run that died leaves them, the next one that holds the lock removes them.
const UNFINISHED: &str = ".new-";
/// And so end staged snapshots.
const STAGED: &str = ".part";

#[cfg(test)]
thread_local! {
    /// How many more operations this thread may do before it counts as killed.
    pub(crate) static OPERATIONS_LEFT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// The file system as the store uses it. In tests it can stop at its n-th operation, as a killed process does.
#[derive(Debug, Default)]
pub(crate) struct Disk;

/// Writes a file of the operator's, 0600, durably, whole or not at all.
pub fn write_private(path: &Path, content: &Content) -> Result<(), StoreError> {
    Disk.write(path, content.expose())
}

/// Reads a file of the operator's.
pub fn read_private(path: &Path) -> Result<Content, StoreError> {
    std::fs::read(path).map(Content::new).map_err(|error| StoreError::io(path, "reading", &error))
}

/// Removes such a file, where it is there.
pub fn remove_private(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(path, "removing", &error)),
        _ => Ok(()),
    }
}

/// A file of the operator's that is written piece by piece: 0600, and not there before [`PrivateFile::keep`].
pub struct PrivateFile {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl PrivateFile {
    /// Begins a file at `path`, where nothing may be yet.
    pub fn begin(path: &Path) -> Result<Self, StoreError> {
        Self::hidden(path, UNFINISHED, "")
    }

    /// The same, where what was not finished is to be found by the name's ending: `.NAME.` and something, then `.part`, as the
    /// snapshots on hosts are staged.
    pub fn staged(path: &Path) -> Result<Self, StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::hidden(path, &format!(".{name}."), STAGED)
    }

    fn hidden(path: &Path, prefix: &str, suffix: &str) -> Result<Self, StoreError> {
        let failed = |error: &std::io::Error| StoreError::io(path, "writing", error);
        if path.exists() {
            let reason = "a file of this name is there already".to_owned();
            return Err(StoreError::Io { path: path.to_owned(), doing: "writing", reason });
        }
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(suffix)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .map_err(|error| failed(&error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes it durable and gives it its name. A file that appeared there meanwhile stays.
    pub fn keep(self) -> Result<(), StoreError> {
        let failed = |error: &std::io::Error| StoreError::io(&self.path, "writing", error);
        self.file.as_file().sync_all().map_err(|error| failed(&error))?;
        self.file.persist_noclobber(&self.path).map_err(|error| failed(&error.error))?;
        sync_folder(self.path.parent().unwrap_or(&self.path))
    }
}

impl std::io::Write for PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Makes a folder for its owner alone, or tightens it.
pub fn private_folder(path: &Path) -> Result<(), StoreError> {
    Disk.folder(path)
}

/// Removes the staged files whose names begin with `.` and `prefix`: only where nobody else can be writing one.
pub fn sweep_staged(folder: &Path, prefix: &str) -> Result<(), StoreError> {
    let prefix = format!(".{prefix}");
    for path in files_in(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(STAGED) {
            remove_private(&path)?;
        }
    }
    Ok(())
}

/// The files in a folder of the operator's, by name. None where there is no such folder.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error: &std::io::Error| StoreError::io(folder, "reading", error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(&error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&error))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Opens a file of the operator's for reading.
pub fn open_file(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|error| StoreError::io(path, "reading", &error))
}

impl Disk {
    /// Makes a folder for its owner alone, with its parents, or tightens an existing one.
    pub(crate) fn folder(&self, path: &Path) -> Result<(), StoreError> {
        self.alive(path)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)))
            .map_err(|error| StoreError::io(path, "making the folder", &error))?;
        self.alive(path)?;
        sync_folder(path.parent().unwrap_or(path))
    }

    /// Afterwards `path` holds `bytes`, durably, mode 0600. After an error or a power cut it holds either them or what
    /// was there before.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(path);
        let failed = |error: &std::io::Error| StoreError::io(path, "writing", error);
        self.alive(path)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(|error| failed(&error))?;
        let filled = self.fill(&mut file, path, bytes);
        // A killed process would not clean up either; keeping the rest makes the tests see what it leaves.
        #[cfg(test)]
        if filled.is_err() {
            let _ = file.keep();
            return filled;
        }
        filled?;
        file.persist(path).map_err(|error| failed(&error.error))?;
        self.alive(path)?;
        sync_folder(folder)
    }

    fn fill(&self, file: &mut tempfile::NamedTempFile, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let failed = |error: &std::io::Error| StoreError::io(path, "writing", error);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all(first).map_err(|error| failed(&error))?;
        self.alive(path)?;
        file.write_all(second).map_err(|error| failed(&error))?;
        self.alive(path)?;
        file.as_file().sync_all().map_err(|error| failed(&error))?;
        self.alive(path)
    }

    /// Adds `line` to the end of `path`, durably. What a torn write left at the end stays a line of its own.
    pub(crate) fn append(&self, path: &Path, line: &str) -> Result<(), StoreError> {
        let failed = |error: &std::io::Error| StoreError::io(path, "writing", error);
        self.alive(path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(&error))?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last).map_err(|error| failed(&error))?;
        }
        let text = format!("{}{line}\n", if last == *b"\n" { "" } else { "\n" });
        file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
        file.sync_data().map_err(|error| failed(&error))
    }

    /// Removes what runs that died left unfinished. Only under the folder's lock.
    pub(crate) fn sweep(&self, folder: &Path) -> Result<(), StoreError> {
        let failed = |error: &std::io::Error| StoreError::io(folder, "removing unfinished files", error);
        self.alive(folder)?;
        for entry in std::fs::read_dir(folder).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn alive(&self, _: &Path) -> Result<(), StoreError> {
        Ok(())
    }

    #[cfg(test)]
    #[allow(clippy::unused_self)]
    fn alive(&self, path: &Path) -> Result<(), StoreError> {
        OPERATIONS_LEFT.with(|left| match left.get() {
            None => Ok(()),
            Some(0) => Err(StoreError::Io { path: path.to_owned(), doing: "writing", reason: "killed".to_owned() }),
            Some(more) => {
                left.set(Some(more - 1));
                Ok(())
            }
        })
    }
}

/// A rename is durable only when its folder is.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|open| open.sync_all())
        .map_err(|error| StoreError::io(folder, "making the folder durable", &error))
}
