//! A snapshot: etcd's database and the sealed state in one file, so that whoever has it and the identity has the cluster.
//!
//! Enters: etcd's stream, the sealed copy of the state, what etcd said of itself. Leaves: one file, or what stands in one.
//! Never holds the database in memory, and believes nothing of a file that it has not verified.
//!
//! The file, in order:
//!
//! | bytes | what |
//! |---|---|
//! | 19 | `bastide-snapshot-1` and a line end |
//! | 8 | length of the state, big endian |
//! | … | the state: the same sealed and signed document that lies on every control-plane and etcd host |
//! | … | the database as etcd streams it (its own SHA-256 at the end), deflated, sealed with age |
//! | … | the [`Manifest`], signed, in clear: it holds no secret, and the digests of everything before it |
//! | 8 | length of the manifest, big endian |
//! | 16 | `bastide-snap-end` |
//!
//! The manifest stands at the end because nothing of it is known before the last byte went through. A list needs the end of
//! the file alone; a file that was cut off has none.

mod error;
mod log;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod log_on_etcd;
mod manifest;
mod measure;
mod read;
mod rke;
#[cfg(test)]
mod tests;
mod write;

pub use error::SnapshotError;
pub use log::LogEnd;
pub use log::read_log;
pub use manifest::KeyHash;
pub use manifest::Manifest;
pub use manifest::Part;
pub use read::LONGEST_END;
pub use read::Snapshot;
pub use read::manifest_of;
pub use read::manifest_signed_by;
pub use read::unverified_state;
pub use rke::Foreign;
pub use rke::Zipped;
pub use rke::find_zipped;
pub use rke::read_zipped;
pub use rke::recognise;
pub use write::Facts;
pub use write::Writer;

/// How a snapshot's file ends.
pub const ENDING: &str = ".snapshot";
