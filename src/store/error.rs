//! What can go wrong with what is kept.

use std::path::PathBuf;

use crate::model::ClusterId;
use crate::model::LockHolder;
use crate::model::RevisionId;

/// A failed use of the state folder, the identity or a sealed document. Messages never hold contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was ever kept here.
    #[error("{} holds no state", .folder.display())]
    NoState {
        /// The state folder.
        folder: PathBuf,
    },
    /// Another process on this machine is at work.
    #[error("{} is in use by {}", .folder.display(), shown(.holder.as_ref()))]
    Locked {
        /// The state folder.
        folder: PathBuf,
        /// Who, where it could be read.
        holder: Option<LockHolder>,
    },
    /// Bytes are not the ones that were written. Nothing is made anew in their place.
    #[error(
        "{} is damaged: {what}. Lost: {lost}. `bastide state recover --host HOST` rebuilds the folder from any \
         control-plane or etcd host",
        .path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What can't be read because of it.
        lost: String,
    },
    /// Intact, ours, and yet this identity does not open it.
    #[error("{what} is not sealed to the identity of this cluster")]
    WrongIdentity {
        /// Which file or document.
        what: String,
    },
    /// There is no signature where one must be.
    #[error(
        "{what} is not signed by bastide, so it is not taken. `bastide state recover --host HOST` gives a signed one"
    )]
    NotSigned {
        /// Which file or document.
        what: String,
    },
    /// Signed by somebody else, or its signature's first bytes are damaged.
    #[error(
        "{what} carries the signature of {signer}, not of this cluster's identity, so it is not taken. If it should be \
         this cluster's own, it is damaged: `bastide state recover --host HOST` rebuilds it"
    )]
    ForeignSignature {
        /// Which file or document.
        what: String,
        /// Whose signature it claims to carry.
        signer: String,
    },
    /// It belongs to another cluster.
    #[error("{what} belongs to cluster {found}, not to {expected}")]
    ForeignCluster {
        /// Which file or document.
        what: String,
        /// Whose it should be.
        expected: ClusterId,
        /// Whose it is.
        found: ClusterId,
    },
    /// The identity that opens the state is not on this machine.
    #[error(
        "the identity {} is missing: put its backup there, or let one of bastide.state.recipients bring it back with \
         `bastide state recover --host HOST --recipient-key FILE`",
        .path.display()
    )]
    IdentityMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The identity's file does not hold what was written.
    #[error("the identity {} is damaged: {what}. Restore it from its backup", .path.display())]
    IdentityDamaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An identity is never overwritten by another.
    #[error("{} exists and holds another identity", .path.display())]
    IdentityExists {
        /// Which file.
        path: PathBuf,
    },
    /// The identity is protected, and no passphrase was given.
    #[error("the identity {} needs its passphrase", .path.display())]
    PassphraseMissing {
        /// Which file.
        path: PathBuf,
    },
    /// The passphrase does not open the identity.
    #[error("the passphrase does not open the identity {}", .path.display())]
    PassphraseWrong {
        /// Which file.
        path: PathBuf,
    },
    /// The user has no folder for configuration.
    #[error("there is no configuration folder: neither HOME nor XDG_CONFIG_HOME is set")]
    NoHome,
    /// An entry of `bastide.state.recipients` is none.
    #[error("bastide.state.recipients: {recipient:?} is neither an age recipient (age1…) nor an SSH public key")]
    Recipient {
        /// As given.
        recipient: String,
    },
    /// The program that holds or seals to a key is not there.
    #[error("{program} is not in PATH: an age plugin of that name is needed for one of bastide.state.recipients")]
    PluginMissing {
        /// `age-plugin-NAME`.
        program: String,
    },
    /// A plugin of age's refused or died.
    #[error("an age plugin gave nothing: {reason}")]
    Plugin {
        /// Its own words, or age's.
        reason: String,
    },
    /// State is not overwritten by new state.
    #[error("{} already holds the state of a cluster", .folder.display())]
    Exists {
        /// The state folder.
        folder: PathBuf,
    },
    /// The folder knows revisions that the copy lacks.
    #[error("{} holds revision {revision}, which this copy lacks; nothing was changed", .folder.display())]
    CopyOlder {
        /// The state folder.
        folder: PathBuf,
        /// Newest revision of the folder.
        revision: RevisionId,
    },
    /// No such revision.
    #[error("there is no revision {revision} ({})", .revision.nonce)]
    UnknownRevision {
        /// Which.
        revision: RevisionId,
    },
    /// The revision's contents were pruned, or left behind when the folder was rebuilt from a host's copy.
    #[error(
        "the contents of revision {revision} are not kept: they were pruned, or the folder was rebuilt from a copy that lacked them"
    )]
    NotKept {
        /// Which.
        revision: RevisionId,
    },
    /// History only grows: an entry that would bend it is refused.
    #[error("revision {revision} cannot be recorded: {why}")]
    History {
        /// Which.
        revision: RevisionId,
        /// What is against it.
        why: &'static str,
    },
    /// Written by a newer program.
    #[error("{what} has layout {schema}, which this bastide does not read")]
    TooNew {
        /// Which file or document.
        what: String,
        /// Its layout.
        schema: u32,
    },
    /// The cryptographic library refused.
    #[error("{0} failed")]
    Crypto(&'static str),
    /// The file system refused.
    #[error("{}: {doing}: {reason}", .path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn io(path: &std::path::Path, doing: &'static str, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing, reason: error.to_string() }
    }
}

fn shown(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(
        || "another process".to_owned(),
        |holder| format!("{} ({}, run {})", holder.who, holder.command, holder.run),
    )
}
