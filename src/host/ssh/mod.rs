//! Hosts over SSH: the real [`Wire`].
//!
//! Enters: an [`SshTarget`] and what the run shares ([`SshResources`]). Leaves: an [`SshWire`]. One connection a host for the whole
//! run, many channels on it; one connection a bastion. The host key is judged inside the key exchange, before anything else is
//! sent. Never asks for a terminal, never falls back to a weaker key, never waits without a deadline.

mod connection;
mod feed;
mod handler;
mod held;
mod hosts;
mod intake;
mod keys;
mod known_hosts;
mod login;
mod resources;
mod session;
mod shell;
mod stream;
mod talk;
mod target;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use held::SshHeld;
pub use hosts::default_known_hosts;
pub use resources::Ask;
pub use resources::NobodyToAsk;
pub use resources::SshResources;
use russh::keys::HashAlg;
pub use stream::SshStream;
pub use target::SshTarget;

use crate::host::Call;
use crate::host::Channels;
use crate::host::HostError;
use crate::host::Output;
use crate::host::Wire;
use crate::model::Content;
use connection::Connection;
use shell::Rise;

/// An open connection to a host. Clones share it.
#[derive(Clone)]
pub struct SshWire {
    target: Arc<SshTarget>,
    shared: Arc<SshResources>,
    connection: Arc<Connection>,
}

/// Connects and logs in, through the target's bastions. Nothing is asked of the host beyond that.
pub async fn connect(target: SshTarget, resources: &Arc<SshResources>) -> Result<SshWire, HostError> {
    let connection = connection::open(&target, resources).await?;
    Ok(SshWire { target: Arc::new(target), shared: Arc::clone(resources), connection: Arc::new(connection) })
}

/// A host key as it was shown, for a person to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh-ed25519` and the like.
    pub algorithm: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// The `known_hosts` line that records it.
    pub line: String,
}

/// The key that a host shows. Sends nothing beyond the key exchange; trusts nothing but known bastions.
pub async fn scan(target: &SshTarget, resources: &Arc<SshResources>) -> Result<HostKey, HostError> {
    let key = connection::look(target, resources).await?;
    Ok(HostKey {
        algorithm: key.algorithm().to_string(),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        line: hosts::line(&target.address, target.login.port, &key),
    })
}

/// Adds a scanned key to a `known_hosts` file: whole or not at all, 0600.
pub fn record(key: &HostKey, file: &Path) -> std::io::Result<()> {
    hosts::append(file, &key.line)
}

impl Wire for SshWire {
    type Stream = SshStream;
    type Held = SshHeld;

    async fn exec(&self, call: Call) -> Result<Output, HostError> {
        talk::run(self, call).await
    }

    async fn hold(&self, call: Call) -> Result<SshHeld, HostError> {
        held::hold(self, call).await
    }

    async fn dial(&self, address: &str, port: u16) -> Result<SshStream, HostError> {
        let (host, target) = (self.target.host.clone(), format!("{address}:{port}"));
        if self.target.relay {
            let relayed = stream::relay(&self.connection, address, port, self.connect_timeout()).await;
            return relayed.map_err(|_| self.lost(&format!("opening a stream to {target}")));
        }
        stream::open(&self.connection, address, port, self.connect_timeout()).await.map_err(|refusal| match refusal {
            stream::Refusal::Forbidden => HostError::ForwardingRefused { host, target },
            stream::Refusal::NobodyThere => HostError::Refused { host, target },
            stream::Refusal::Lost => self.lost(&format!("opening a stream to {target}")),
        })
    }

    fn channels(&self) -> Channels {
        Channels {
            sessions: self.connection.sessions.load(Ordering::Relaxed),
            forwards: self.connection.forwards.load(Ordering::Relaxed),
        }
    }
}

impl SshWire {
    /// Another connection to the same host, whatever became of this one. Nobody is asked anything again.
    pub async fn again(&self) -> Result<Self, HostError> {
        connect(self.target.as_ref().clone(), &self.shared).await
    }

    fn connect_timeout(&self) -> Duration {
        self.target.connect_timeout
    }

    fn rise(&self) -> Rise {
        if self.target.login.user == "root" { Rise::Root } else { Rise::Sudo }
    }

    async fn sudo_password(&self) -> Option<Content> {
        match &self.target.sudo_password {
            Some(password) => Some(password.clone()),
            None => self.shared.sudo_password(&self.target.login.user).await,
        }
    }

    fn lost(&self, doing: &str) -> HostError {
        HostError::Lost { host: self.target.host.clone(), doing: doing.to_owned() }
    }

    fn failed(&self, doing: &str, reason: impl Into<String>) -> HostError {
        HostError::Failed { host: self.target.host.clone(), doing: doing.to_owned(), reason: reason.into() }
    }

    fn sudo(&self, reason: String) -> HostError {
        HostError::Sudo { host: self.target.host.clone(), reason }
    }
}
