//! A history that begins with what was found, where the one before can't be opened by anybody any more.

use std::path::Path;
use std::path::PathBuf;

use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::Revision;
use crate::store::FolderLock;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::manifest::Entry;
use crate::store::pack::Index;

impl Store {
    /// Records a first revision with its contents, and before it those that hosts know of, without contents. Durable when this
    /// returns; when it fails or dies, the history is still empty.
    pub fn found(
        &mut self,
        _lock: &FolderLock,
        known: Vec<Revision>,
        revision: &Revision,
        desired: &Desired,
        blobs: &Blobs,
        secrets: &Content,
    ) -> Result<(), StoreError> {
        let refuse = |why| Err(StoreError::History { revision: revision.id.clone(), why });
        if !self.manifest.entries.is_empty() {
            return Err(StoreError::Exists { folder: self.folder.clone() });
        }
        if desired.cluster != self.manifest.cluster {
            return refuse("its target is of another cluster");
        }
        if known.iter().any(|known| known.id.number >= revision.id.number) {
            return refuse("its number is not above the newest one's");
        }
        let index = Index::of(&revision.id, desired, blobs, secrets);
        let (index, contents) = index.ok_or(StoreError::Crypto("packing the revision"))?;
        let packs = vec![self.write_pack(&index, contents.values())?];
        let mut manifest = self.manifest.clone();
        manifest.entries = known.into_iter().map(|revision| Entry { revision, packs: Vec::new() }).collect();
        manifest.entries.push(Entry { revision: revision.clone(), packs });
        manifest.written = revision.at;
        self.replace(manifest)
    }
}

/// Puts a state folder that nobody can open aside, under a name of its own, and says where. Nothing where there is none.
pub fn set_aside(folder: &Path) -> Result<Option<PathBuf>, StoreError> {
    if !folder.exists() {
        return Ok(None);
    }
    for number in 1.. {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(".unreadable-{number}"));
        let aside = PathBuf::from(name);
        if aside.exists() {
            continue;
        }
        std::fs::rename(folder, &aside).map_err(|error| StoreError::io(folder, "putting aside", &error))?;
        return Ok(Some(aside));
    }
    Ok(None)
}
