//! A host's record before and after each batch.

use crate::model::Action;
use crate::model::Batch;
use crate::model::ClusterId;
use crate::model::Effect;
use crate::model::HostRecord;
use crate::model::ObservedHost;
use crate::model::RevisionId;

/// Layout of the record.
const SCHEMA: u32 = 1;

/// Which cluster and revision a host is being brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Whose host it is.
    pub cluster: ClusterId,
    /// For people.
    pub cluster_name: String,
    /// The revision of this run.
    pub revision: RevisionId,
    /// The one before.
    pub parent: Option<RevisionId>,
}

/// The record of a host that this run has not written to yet: what was known, under the run's revision.
pub fn opening(known: Option<&HostRecord>, stamp: &Stamp) -> HostRecord {
    let mut record = known.cloned().unwrap_or_else(|| HostRecord {
        schema: SCHEMA,
        cluster: stamp.cluster.clone(),
        cluster_name: String::new(),
        revision: stamp.revision.clone(),
        parent: None,
        complete: false,
        files: std::collections::BTreeMap::new(),
        directories: std::collections::BTreeSet::new(),
        units: std::collections::BTreeSet::new(),
        users: std::collections::BTreeSet::new(),
        images: std::collections::BTreeMap::new(),
    });
    record.schema = SCHEMA;
    record.cluster = stamp.cluster.clone();
    record.cluster_name.clone_from(&stamp.cluster_name);
    record.revision = stamp.revision.clone();
    record.parent.clone_from(&stamp.parent);
    record
}

/// The record that `seen` carries, brought to what is really there: a run that died may have announced files that it never
/// wrote, and may have removed some that are still listed.
pub fn reconciled(seen: &ObservedHost) -> Option<HostRecord> {
    let mut record = seen.record.clone()?;
    record.files.retain(|path, _| seen.files.contains_key(path));
    if !record.complete {
        for (path, digest) in &mut record.files {
            if let Some(file) = seen.files.get(path) {
                *digest = file.digest;
            }
        }
        record.units.retain(|name| seen.units.get(name).is_none_or(|unit| unit.active || unit.enabled));
    }
    Some(record)
}

/// The record while `batch` is being done, which lists everything that may be written, and the record when it is done.
///
/// `seen` is the host as it was when the plan was made: folders and users that were there already are not bastide's.
pub fn around(
    known: Option<&HostRecord>,
    seen: &ObservedHost,
    batch: &Batch,
    stamp: &Stamp,
) -> (HostRecord, HostRecord) {
    let mut before = HostRecord { complete: false, ..opening(known, stamp) };
    for action in &batch.0 {
        match action {
            Action::EnsureUser(user) => {
                if !seen.users.contains_key(&user.name) {
                    before.users.insert(user.name.clone());
                }
            }
            Action::EnsureDirectory(directory) => {
                if !seen.directories.contains_key(&directory.path) {
                    before.directories.insert(directory.path.clone());
                }
            }
            Action::PutFile { path, digest, .. } => {
                before.files.insert(path.clone(), *digest);
            }
            Action::StartUnit { name, effect: Effect::Restart, .. } => {
                before.units.insert(name.clone());
            }
            Action::ImportImage { image, manifest, .. } => {
                before.images.insert(image.clone(), *manifest);
            }
            Action::SetAccess { .. }
            | Action::RemoveFile { .. }
            | Action::ReloadUnits
            | Action::StartUnit { .. }
            | Action::StopUnit { .. }
            | Action::YieldLeadership
            | Action::AwaitPod { .. }
            | Action::AwaitGone { .. }
            | Action::RestoreEtcd(_)
            | Action::ClearEtcd { .. }
            | Action::ReturnEtcd { .. } => {}
        }
    }
    let mut after = HostRecord { complete: true, ..before.clone() };
    for action in &batch.0 {
        match action {
            Action::RemoveFile { path, .. } => {
                after.files.remove(path);
            }
            Action::StopUnit { name } => {
                after.units.remove(name);
            }
            _ => {}
        }
    }
    (before, after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Stamp;
    use super::around;
    use crate::model::Access;
    use crate::model::Action;
    use crate::model::Batch;
    use crate::model::ClusterId;
    use crate::model::Digest;
    use crate::model::Directory;
    use crate::model::ObservedHost;
    use crate::model::RemotePath;
    use crate::model::RevisionId;

    fn path(text: &str) -> RemotePath {
        RemotePath::new(text).unwrap()
    }

    fn put(text: &str) -> Action {
        let digest = Digest::of(text.as_bytes());
        Action::PutFile {
            path: path(text),
            digest,
            size: 1,
            access: Access::root(0o600),
            replaces: None,
            foreign: false,
            secret: false,
        }
    }

    fn stamp(number: u32) -> Stamp {
        Stamp {
            cluster: ClusterId("c".to_owned()),
            cluster_name: "demo".to_owned(),
            revision: RevisionId { number, nonce: "n".to_owned() },
            parent: None,
        }
    }

    #[test]
    fn what_may_have_been_written_stays_known_until_it_was_removed() {
        let seen = ObservedHost::default();
        let (_, first) = around(None, &seen, &Batch(vec![put("/a"), put("/b")]), &stamp(1));
        assert!(first.complete);
        let removal = Action::RemoveFile { path: path("/a"), replaces: Digest::of(b"/a") };
        let (before, after) = around(Some(&first), &seen, &Batch(vec![put("/c"), removal]), &stamp(2));
        assert_eq!(before.files.keys().cloned().collect::<Vec<_>>(), [path("/a"), path("/b"), path("/c")]);
        assert!(!before.complete);
        assert_eq!(after.files.keys().cloned().collect::<Vec<_>>(), [path("/b"), path("/c")]);
        assert_eq!(after.revision.number, 2);
    }

    #[test]
    fn a_folder_that_was_there_before_is_not_ours() {
        let mut seen = ObservedHost::default();
        seen.directories.insert(path("/etc/kubernetes"), Access::root(0o755));
        let ensure = |text| Action::EnsureDirectory(Directory { path: path(text), access: Access::root(0o700) });
        let (_, after) = around(None, &seen, &Batch(vec![ensure("/etc/kubernetes"), ensure("/etc/etcd")]), &stamp(1));
        assert_eq!(after.directories.into_iter().collect::<Vec<_>>(), [path("/etc/etcd")]);
    }
}
