//! Is everything there, sealed, and readable by nobody else?

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::model::Revision;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::folder::manifest_path;

/// What a whole look at the folder found.
#[derive(Debug)]
pub struct Examined {
    /// Each revision, oldest first, and whether its contents are here and whole.
    pub revisions: Vec<(Revision, Contents)>,
    /// What is wrong beside that, in words.
    pub findings: Vec<String>,
    /// Sealed files and their bytes together.
    pub sealed: (usize, u64),
}

/// How a revision's contents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Here, and every digest right.
    Whole,
    /// Not kept: only the history knows of it.
    NotKept,
    /// Lost, with the reason.
    Damaged(String),
}

impl Examined {
    /// Whether nothing is lost and nothing is open to others.
    pub fn is_well(&self) -> bool {
        let lost = |(_, contents): &(Revision, Contents)| matches!(contents, Contents::Damaged(_));
        self.findings.is_empty() && !self.revisions.iter().any(lost)
    }
}

impl Store {
    /// Reads every sealed file, checks every digest and every file's access. Changes nothing.
    pub fn examine(&self) -> Result<Examined, StoreError> {
        let mut needed: BTreeSet<PathBuf> = [manifest_path(&self.folder)].into();
        let mut sealed = (0, 0);
        for file in self.manifest.entries.iter().flat_map(|entry| &entry.packs) {
            if needed.insert(self.pack_path(file)) {
                sealed = (sealed.0 + 1, sealed.1 + file.size);
            }
        }
        let revisions = self.manifest.entries.iter().map(|entry| {
            let contents = match self.load(&entry.revision.id) {
                Ok(_) => Contents::Whole,
                Err(StoreError::NotKept { .. }) => Contents::NotKept,
                Err(error) => Contents::Damaged(error.to_string()),
            };
            (entry.revision.clone(), contents)
        });
        let revisions = revisions.collect();
        let mut findings = Vec::new();
        for (path, metadata) in walk(&self.folder)? {
            let open = metadata.permissions().mode() & 0o077;
            if open != 0 {
                findings.push(format!(
                    "{}: others may use it (mode {:o})",
                    path.display(),
                    metadata.permissions().mode() & 0o7777
                ));
            }
            let is_sealed = path.extension().is_some_and(|ending| ending == "age");
            if is_sealed && !needed.contains(&path) {
                findings.push(format!("{}: belongs to no revision", path.display()));
            }
        }
        Ok(Examined { revisions, findings, sealed })
    }
}

/// The folder itself and everything in it.
fn walk(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, StoreError> {
    let reading = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| StoreError::io(&path, "reading", &error)
    };
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::symlink_metadata(&path).map_err(reading(&path))?;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(reading(&path))? {
                waiting.push(entry.map_err(reading(&path))?.path());
            }
        }
        found.push((path, metadata));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}
