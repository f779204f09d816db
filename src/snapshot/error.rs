//! What can be wrong with a snapshot.

use crate::model::ClusterId;
use crate::model::SnapshotName;
use crate::store::StoreError;

/// A snapshot that cannot be made or is not believed. Messages never hold contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It is no snapshot of bastide's at all.
    #[error("this is no snapshot that bastide made")]
    NotOurs,
    /// It ends before its end.
    #[error("the snapshot is cut off: its end is missing")]
    CutOff,
    /// Its bytes are not the ones that were written.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// It has no signature of this cluster's.
    #[error("the snapshot is not signed by this cluster's identity{}", .signer.as_ref().map(|signer| format!(" but by {signer}")).unwrap_or_default())]
    Unsigned {
        /// Who signed it, where somebody did.
        signer: Option<String>,
    },
    /// It is of another cluster.
    #[error("the snapshot is of cluster {found}, not of {expected}")]
    ForeignCluster {
        /// Whose identity it is.
        expected: ClusterId,
        /// Whose snapshot.
        found: ClusterId,
    },
    /// It was made under another name.
    #[error("the snapshot was made as {found:?} and lies here as {expected:?}", found = .found.as_str(), expected = .expected.as_str())]
    OtherName {
        /// What it was asked for as.
        expected: SnapshotName,
        /// What it says.
        found: SnapshotName,
    },
    /// Sealed to somebody else.
    #[error("the identity does not open the snapshot")]
    WrongIdentity,
    /// Written by a newer program.
    #[error("the snapshot has layout {schema}, which this bastide does not read")]
    TooNew {
        /// Its layout.
        schema: u32,
    },
    /// What came from etcd is not what etcd sent.
    #[error("etcd's stream is not whole: {0}")]
    Stream(&'static str),
    /// A zip that is not one of RKE's snapshots.
    #[error("the zip cannot be restored: {0}")]
    Zip(String),
    /// A member's write-ahead log is not as it was written.
    #[error("the member's log is damaged: {0}")]
    Log(&'static str),
    /// Sealing or the state went wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing went wrong.
    #[error("{doing}: {reason}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
}

impl SnapshotError {
    pub(crate) fn io(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Io { doing, reason: error.to_string() }
    }
}
