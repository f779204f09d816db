//! Throw-away Linux hosts: what `bed.sh` does, for Rust programs.
//!
//! A [`Bed`] is a private network with hosts on it, each with systemd, sshd and everything else that a real one has. A bed
//! holds its slot (a name and a subnet) by a file lock, so that several stand side by side and what a dead program left is
//! found and destroyed by the next one.

mod bed;
mod cache;
mod cluster;
mod host;
mod judge;
mod machine;
mod points;
mod s3;

pub use bed::Bed;
pub use bed::Keep;
pub use cache::Cache;
pub use cluster::ClusterFile;
pub use cluster::Node;
pub use host::Host;
pub use judge::Check;
pub use judge::Verdict;
pub use judge::judge;
pub use judge::judge_by;
pub use machine::Machine;
pub use points::Points;
pub use s3::S3;
