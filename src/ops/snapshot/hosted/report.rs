//! What a host tells of its recurring snapshots: a file beside its record, which `bastide status` reads. No secret stands in it.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Content;
use crate::model::SnapshotName;
use crate::ops::OpsError;
use crate::store;

/// Where it lies.
pub(in crate::ops) const PATH: &str = "/var/lib/bastide/recurring.json";

/// A host's own word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// When its timer last fired, seconds since 1970.
    pub looked_at: i64,
    /// The last one that this host took.
    pub last: Option<HostTaken>,
    /// Why it took none the last time that it was its turn.
    pub trouble: Option<HostTrouble>,
}

/// A snapshot that a host took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostTaken {
    /// Its name.
    pub name: SnapshotName,
    /// When it was begun, seconds since 1970.
    pub taken_at: i64,
    /// In bytes, as it lies on the disk.
    pub size: u64,
    /// etcd's revision.
    pub etcd_revision: u64,
    /// How long that took.
    pub seconds: f64,
    /// What is wanting: a place that did not get it, old ones that could not be removed.
    pub troubles: Vec<String>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrouble {
    /// When, seconds since 1970.
    pub at: i64,
    /// In words.
    pub reason: String,
}

/// The report in these bytes; none where they are none.
pub(in crate::ops) fn of(content: &Content) -> Option<HostReport> {
    serde_json::from_slice(content.expose()).ok()
}

/// The report that was written last; an empty one where there is none that can be read.
pub(super) fn read(path: &Path) -> HostReport {
    store::read_private(path).ok().as_ref().and_then(of).unwrap_or_default()
}

pub(super) fn write(path: &Path, report: &HostReport) -> Result<(), OpsError> {
    let text = serde_json::to_vec_pretty(report).map_err(|error| OpsError::Impossible(error.to_string()))?;
    Ok(store::write_private(path, &Content::new(text))?)
}
