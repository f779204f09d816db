//! What of the past is kept.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::model::Content;
use crate::model::Digest;
use crate::model::RevisionId;
use crate::store::FolderLock;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::folder::CHAIN;
use crate::store::manifest::PackFile;
use crate::store::pack::Index;

/// What a pruning did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Revisions whose contents are gone; they stay in the history.
    pub dropped: Vec<RevisionId>,
    /// Bytes that the sealed files take less than before.
    pub freed: u64,
}

/// Sealed files of which each holds what the ones before it lack.
#[derive(Default)]
pub(crate) struct Chain {
    packs: Vec<PackFile>,
    held: BTreeSet<Digest>,
}

impl Chain {
    /// Writes what is new in the next revision. Gives all files that together hold it.
    pub(crate) fn add(
        &mut self,
        store: &Store,
        index: &Index,
        contents: &BTreeMap<Digest, Content>,
    ) -> Result<Vec<PackFile>, StoreError> {
        if self.packs.len() >= CHAIN {
            *self = Self::default();
        }
        let fresh = index.all().filter(|digest| !self.held.contains(*digest)).filter_map(|d| contents.get(d));
        self.packs.push(store.write_pack(index, fresh)?);
        self.held.extend(index.all().copied());
        Ok(self.packs.clone())
    }
}

impl Store {
    /// Whether the contents of this revision are kept.
    pub fn keeps(&self, id: &RevisionId) -> bool {
        self.manifest.find(id).is_some_and(|entry| !entry.packs.is_empty())
    }

    /// Keeps the contents of the newest `keep` reached revisions (at least one) and of all that are newer than these, and
    /// drops every sealed content that none of them refers to.
    ///
    /// The new sealed files are durable before the manifest names them, and the old ones are removed after: a death in
    /// between leaves files that nobody names, which the next pruning removes.
    pub fn prune(&mut self, _lock: &FolderLock, keep: usize) -> Result<Pruned, StoreError> {
        let before = self.sealed()?;
        let entries = &self.manifest.entries;
        let oldest = entries
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, entry)| entry.revision.was_reached() && !entry.packs.is_empty())
            .take(keep.max(1))
            .last()
            .map_or(0, |(at, _)| at);
        let mut manifest = self.manifest.clone();
        let mut dropped = Vec::new();
        for entry in &mut manifest.entries[..oldest] {
            if !entry.packs.is_empty() {
                entry.packs = Vec::new();
                dropped.push(entry.revision.id.clone());
            }
        }
        if !dropped.is_empty() {
            // Sealed files build upon older ones: those that stay are written anew, the first one whole.
            let mut chain = Chain::default();
            for (at, entry) in entries.iter().enumerate().skip(oldest) {
                if entry.packs.is_empty() {
                    continue;
                }
                let (index, contents) = self.contents(entry)?;
                manifest.entries[at].packs = chain.add(self, &index, &contents)?;
            }
            self.replace(manifest)?;
        }
        self.remove_unnamed()?;
        let size = |files: &[(PathBuf, u64)]| files.iter().map(|(_, size)| size).sum::<u64>();
        Ok(Pruned { dropped, freed: size(&before).saturating_sub(size(&self.sealed()?)) })
    }

    /// Removes sealed files that no revision names: a run that died left them, or they were written anew.
    pub(crate) fn remove_unnamed(&self) -> Result<(), StoreError> {
        let named: BTreeSet<PathBuf> =
            self.manifest.entries.iter().flat_map(|entry| &entry.packs).map(|file| self.pack_path(file)).collect();
        for (path, _) in self.sealed()? {
            if !named.contains(&path) {
                std::fs::remove_file(&path).map_err(|error| StoreError::io(&path, "removing", &error))?;
            }
        }
        Ok(())
    }

    /// Every sealed file with its size.
    fn sealed(&self) -> Result<Vec<(PathBuf, u64)>, StoreError> {
        let folder = self.folder.join("sealed");
        let failed = |error: std::io::Error| StoreError::io(&folder, "listing", &error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            files.push((entry.path(), entry.metadata().map_err(failed)?.len()));
        }
        Ok(files)
    }
}
