//! How an sshd is logged in to.

use std::path::PathBuf;

use crate::model::Content;

/// How one sshd is logged in to.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// Default 22.
    pub port: u16,
    /// `root` runs scripts directly, everybody else through sudo.
    pub user: String,
    /// In order of trial.
    pub keys: Vec<KeySource>,
    /// The one host key to accept: an OpenSSH public key line (type and base64). `known_hosts` is then read for `@revoked`
    /// alone.
    pub host_key: Option<String>,
}

/// Where a private key comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// Every key of the agent at `SSH_AUTH_SOCK`.
    Agent,
    /// A key that is at hand.
    Inline {
        /// OpenSSH or PEM private key, possibly encrypted.
        key: Content,
        /// OpenSSH user certificate line.
        certificate: Option<String>,
    },
    /// A key in a file.
    Path {
        /// Private key file, possibly encrypted.
        key: PathBuf,
        /// OpenSSH user certificate file.
        certificate: Option<PathBuf>,
    },
}

/// A bastion.
#[derive(Debug, Clone, PartialEq)]
pub struct Jump {
    /// Name or address, as the previous hop sees it.
    pub address: String,
    /// How to log in there.
    pub login: Login,
}
