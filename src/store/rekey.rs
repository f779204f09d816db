//! Everything sealed anew, to others.

use crate::store::Backup;
use crate::store::FolderLock;
use crate::store::Recipients;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::prune::Chain;

impl Store {
    /// Seals the contents of every revision to the identity and `recipients` alone, and removes what was sealed before. Gives how
    /// many revisions have contents.
    ///
    /// The new sealed files are durable before the manifest names them: until that is replaced, the folder is what it was.
    pub fn rekey(&mut self, _lock: &FolderLock, recipients: Recipients, backup: Backup) -> Result<usize, StoreError> {
        let before = std::mem::replace(&mut self.recipients, recipients);
        match self.seal_anew(backup) {
            Ok(count) => {
                self.remove_unnamed()?;
                Ok(count)
            }
            Err(error) => {
                self.recipients = before;
                Err(error)
            }
        }
    }

    fn seal_anew(&mut self, backup: Backup) -> Result<usize, StoreError> {
        let mut manifest = self.manifest.clone();
        let mut chain = Chain::default();
        let mut count = 0;
        for entry in manifest.entries.iter_mut().filter(|entry| !entry.packs.is_empty()) {
            let (index, contents) = self.contents(entry)?;
            entry.packs = chain.add(self, &index, &contents)?;
            count += 1;
        }
        manifest.backup = backup;
        self.replace(manifest)?;
        Ok(count)
    }
}
