//! The state folder beside cluster.yml: sealed, signed, append-only; and the identity that opens it.
//!
//! Enters: revisions with their targets, contents and (opaque) secrets. Leaves: the same, any of them, and one sealed
//! document for the hosts. Never writes a secret in clear, never replaces what it cannot read by something new.

mod copy;
mod disk;
mod error;
mod examine;
mod folder;
mod freshness;
mod identity;
mod journal;
mod lock;
mod manifest;
mod pack;
mod plugin;
mod prune;
mod rekey;
mod seal;
mod sealer;
mod signer;
mod takeover;
#[cfg(test)]
mod tests;

pub use copy::Head;
pub use copy::Trust;
pub use copy::contents_of;
pub use copy::head;
pub use copy::recover;
pub use copy::restore_identity;
pub use copy::sealed_to;
pub use copy::secrets_of;
pub use disk::PrivateFile;
pub use disk::files_in;
pub use disk::open_file;
pub use disk::private_folder;
pub use disk::read_private;
pub use disk::remove_private;
pub use disk::sweep_staged;
pub use disk::write_private;
pub use error::StoreError;
pub use examine::Contents;
pub use examine::Examined;
pub use folder::Peek;
pub use folder::Store;
pub use folder::discard;
pub use folder::folder_for;
pub use folder::peek;
pub use freshness::Freshness;
pub use freshness::compare;
pub use identity::Ask;
pub use identity::Identity;
pub use identity::Protection;
pub use identity::identities_folder;
pub use identity::identity_path;
pub use identity::is_protected;
pub use journal::Journal;
pub use journal::JournalLine;
pub use journal::Outcome;
pub use lock::FolderLock;
pub use manifest::Backup;
pub use plugin::PluginTalk;
pub use prune::Pruned;
pub use seal::Closed;
pub use seal::Recipients;
pub use seal::Unsigned;
pub use seal::sign;
pub use seal::unverified;
pub use seal::verified;
pub use sealer::Sealer;
pub use signer::HostKey;
pub use signer::Signs;
pub use takeover::set_aside;
