//! Which is newer: what lies here or what a host knows.

use crate::model::ClusterId;
use crate::model::HostRecord;
use crate::model::Revision;

/// How a host's record stands to the local history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It was last being brought to the newest revision.
    Same,
    /// It was brought to an older one.
    HostOlder,
    /// It knows a revision that the local history lacks: the local state is an old copy, or two copies were used in
    /// turn. Nothing may be changed from here.
    HostNewer,
    /// It belongs to another cluster.
    Foreign,
}

/// Compares a host's record with the history of `cluster`, oldest first.
pub fn compare(cluster: &ClusterId, history: &[Revision], record: &HostRecord) -> Freshness {
    if record.cluster != *cluster {
        return Freshness::Foreign;
    }
    match history.iter().rposition(|revision| revision.id == record.revision) {
        Some(at) if at + 1 == history.len() => Freshness::Same,
        Some(_) => Freshness::HostOlder,
        None => Freshness::HostNewer,
    }
}
