//! Encryption at rest: what API servers work with, what lies in etcd, and how one key takes another one's place.

mod census;
mod change;
mod loaded;
mod rotate;
mod status;
mod then;
mod toward;

pub(super) use census::prefix;
pub(super) use change::make_way;
pub(super) use change::settled;
pub(super) use loaded::await_target;
pub(super) use loaded::wanted;
pub use rotate::RotateKeyOptions;
pub use rotate::rotate_key;
pub use status::EncryptionStatus;
pub use status::ServerKeys;
pub use status::StoredObjects;
pub use status::encryption_status;
pub(super) use then::read_as_then;
pub(super) use then::read_by_target;
pub(super) use toward::Ahead;
pub(super) use toward::ahead;
pub(super) use toward::hold;
pub(super) use toward::is_cut_off;
pub(super) use toward::note;
pub(super) use toward::walk;
