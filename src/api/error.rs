//! What can go wrong between here and an API server.

use std::time::Duration;

use crate::model::Digest;
use crate::model::HostName;
use crate::model::ObjectId;

/// How etcd's own words begin, which API servers pass on.
pub(super) const ETCD: &str = "etcdserver:";

/// A failed request. The messages of an admission plugin or webhook are passed on as the server wrote them, except for
/// Secrets, where the server may quote a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The credentials cannot be used.
    #[error("the API client's {what} cannot be used: {reason}")]
    Credentials {
        /// `certificate authority`, `certificate` or `key`.
        what: &'static str,
        /// In words, never the key.
        reason: String,
    },
    /// sshd of the host in between does not forward.
    #[error("{host}: sshd refuses to forward to the API server at {target}")]
    Forwarding {
        /// Whose sshd.
        host: HostName,
        /// `address:port`.
        target: String,
    },
    /// The certificate that the server shows is not from this cluster, or does not name the address.
    #[error("the API server at {server} is not this cluster's: {reason}")]
    Untrusted {
        /// `address:port`.
        server: String,
        /// rustls' words.
        reason: String,
    },
    /// No answer within the deadline, in spite of retries.
    #[error("the API server at {server} did not answer within {} s while {doing}: {reason}", patience.as_secs())]
    Unreachable {
        /// `address:port`.
        server: String,
        /// What was being done.
        doing: String,
        /// How long it was tried.
        patience: Duration,
        /// The last failure.
        reason: String,
    },
    /// The server said no.
    #[error("{doing}: the API server refuses ({code} {reason}): {message}")]
    Refused {
        /// What was being done.
        doing: String,
        /// HTTP status.
        code: u16,
        /// The machine-readable reason, such as `Forbidden`.
        reason: String,
        /// The server's own words.
        message: String,
    },
    /// Fields of an addon's object belong to somebody else.
    #[error("{id}: {}", conflicts(fields))]
    Conflict {
        /// Which object.
        id: ObjectId,
        /// Field and manager.
        fields: Vec<(String, String)>,
    },
    /// No server knows this kind.
    #[error("{id}: the API server does not know kind {} of {}", id.kind, id.api_version)]
    UnknownKind {
        /// Which object.
        id: ObjectId,
    },
    /// Deleting this would delete data.
    #[error("{id} is not deleted: with it everything inside would be lost")]
    Protected {
        /// Which object.
        id: ObjectId,
    },
    /// The object to delete is not bastide's any more.
    #[error("{id} is not deleted: it no longer carries bastide's label")]
    NotOurs {
        /// Which object.
        id: ObjectId,
    },
    /// An answer that is not what the API promises.
    #[error("{doing}: unreadable answer: {reason}")]
    Unreadable {
        /// What was being done.
        doing: String,
        /// What and where.
        reason: String,
    },
    /// The object's content is missing among the blobs, or is no object.
    #[error("{id}: {reason}")]
    Content {
        /// Which object.
        id: ObjectId,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that should have come about did not.
    #[error("{what} within {} s: {last}", patience.as_secs())]
    Waited {
        /// What was waited for, such as `CustomResourceDefinition x is not established`.
        what: String,
        /// How long.
        patience: Duration,
        /// What was seen last.
        last: String,
    },
}

impl ApiError {
    /// The blob of `id` is not there.
    pub(super) fn missing(id: &ObjectId, digest: &Digest) -> Self {
        Self::Content { id: id.clone(), reason: format!("content {} is missing", digest.short()) }
    }

    /// Whether the server has no time, no etcd, or no voice: nothing can be told from it but that it does not serve now.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, message, .. } => is_passing(*code, message),
            _ => false,
        }
    }

    /// Whether the server says that there is no such object.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }
}

/// Busy, starting, or between two leaders of etcd. Other failures of the server's own last: a Secret for which it lacks the key.
pub(super) fn is_passing(code: u16, message: &str) -> bool {
    let etcd = code == 500 && message.contains(ETCD) && !message.contains("too large");
    matches!(code, 429 | 503 | 504) || etcd
}

fn conflicts(fields: &[(String, String)]) -> String {
    let each: Vec<String> = fields.iter().map(|(field, manager)| format!("{field} belongs to {manager}")).collect();
    each.join(", ")
}
