//! What can go wrong between here and a host.

use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::RemotePath;

/// A failed verb. Each message names the host; hints and exit codes are `cli/error.rs`'s.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nobody answers, or whoever does hangs up.
    #[error("{host}: cannot connect: {reason}")]
    Connect {
        /// Where.
        host: HostName,
        /// In words, with the address.
        reason: String,
    },
    /// What stands in the way of the connection is not the host's silence: a `known_hosts` file that cannot be read, a
    /// bastion that forwards nothing, an sshd that agrees to no algorithm. No later run fares better.
    #[error("{host}: no connection can be made: {reason}")]
    Obstructed {
        /// Where.
        host: HostName,
        /// In words, with the address.
        reason: String,
    },
    /// No source knows this host key.
    #[error("{host}: host key {fingerprint} of {address} is not known")]
    UnknownHostKey {
        /// Where.
        host: HostName,
        /// `address:port`.
        address: String,
        /// `SHA256:…`.
        fingerprint: String,
    },
    /// The host shows another key than the recorded one, or a revoked one.
    #[error("{host}: {address} shows host key {fingerprint}, which is not the recorded one ({reason})")]
    WrongHostKey {
        /// Where.
        host: HostName,
        /// `address:port`.
        address: String,
        /// `SHA256:…`.
        fingerprint: String,
        /// File and line of the recorded key, or `revoked`.
        reason: String,
    },
    /// No key was accepted.
    #[error("{host}: {user} may not log in: {reason}")]
    Login {
        /// Where.
        host: HostName,
        /// As whom.
        user: String,
        /// What was tried.
        reason: String,
    },
    /// sudo refused.
    #[error("{host}: sudo refused: {reason}")]
    Sudo {
        /// Where.
        host: HostName,
        /// sudo's words.
        reason: String,
    },
    /// sshd does not forward.
    #[error("{host}: sshd refuses to forward to {target}")]
    ForwardingRefused {
        /// Where.
        host: HostName,
        /// `address:port`.
        target: String,
    },
    /// The far end did not accept a forwarded connection.
    #[error("{host}: nothing answers at {target}")]
    Refused {
        /// Where.
        host: HostName,
        /// `address:port`.
        target: String,
    },
    /// The connection died, or nothing came within the deadline.
    #[error("{host}: connection lost while {doing}")]
    Lost {
        /// Where.
        host: HostName,
        /// What was being done.
        doing: String,
    },
    /// A script ended with an error of its own.
    #[error("{host}: {doing}: {reason}")]
    Failed {
        /// Where.
        host: HostName,
        /// What was being done.
        doing: String,
        /// The script's words.
        reason: String,
    },
    /// The host no longer holds what the plan was made from. This file was not written.
    #[error("{host}: {path} changed since the plan was made")]
    Drift {
        /// Where.
        host: HostName,
        /// Which file.
        path: RemotePath,
    },
    /// Somebody else is at work.
    #[error("{host}: locked by {} ({}) since {}", holder.who, holder.command, holder.since)]
    Locked {
        /// Where.
        host: HostName,
        /// By whom.
        holder: LockHolder,
    },
    /// This run's lock is gone. Nothing more was written.
    #[error("{host}: this run no longer holds the lock")]
    LockLost {
        /// Where.
        host: HostName,
    },
    /// The host answered something that could not be read.
    #[error("{host}: unreadable answer: {reason}")]
    Unreadable {
        /// Where.
        host: HostName,
        /// What and where.
        reason: String,
    },
}

impl HostError {
    /// What happened, for whoever names the host already.
    pub fn without_host(&self) -> String {
        let words = self.to_string();
        // Every message begins with the host, and no host's name has a colon.
        words.split_once(": ").map_or_else(|| words.clone(), |(_, what)| what.to_owned())
    }

    /// Whether the host is simply not there, rather than there and wrong.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Lost { .. })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::HostError;
    use crate::model::HostName;
    use crate::model::LockHolder;
    use crate::model::RemotePath;

    #[test]
    fn every_message_begins_with_the_host_and_can_do_without() {
        let host = || HostName::new("h1").unwrap();
        let text = || "x: y".to_owned();
        let (reason, doing, address, target) = (text, text, text, text);
        let holder = LockHolder { who: text(), command: text(), since: 1, run: text() };
        let all = [
            HostError::Connect { host: host(), reason: reason() },
            HostError::Obstructed { host: host(), reason: reason() },
            HostError::UnknownHostKey { host: host(), address: address(), fingerprint: text() },
            HostError::WrongHostKey { host: host(), address: address(), fingerprint: text(), reason: reason() },
            HostError::Login { host: host(), user: text(), reason: reason() },
            HostError::Sudo { host: host(), reason: reason() },
            HostError::ForwardingRefused { host: host(), target: target() },
            HostError::Refused { host: host(), target: target() },
            HostError::Lost { host: host(), doing: doing() },
            HostError::Failed { host: host(), doing: doing(), reason: reason() },
            HostError::Drift { host: host(), path: RemotePath::new("/x").unwrap() },
            HostError::Locked { host: host(), holder },
            HostError::LockLost { host: host() },
            HostError::Unreadable { host: host(), reason: reason() },
        ];
        for error in all {
            assert_eq!(error.to_string(), format!("h1: {}", error.without_host()));
        }
    }
}
