//! Judges the host key inside the key exchange, and nothing else: russh sends its first request only after this said yes.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use russh::client::DisconnectReason;
use russh::client::Handler;
use russh::client::Session;
use russh::keys::Certificate;
use russh::keys::HashAlg;
use russh::keys::PublicKey;
use russh::keys::PublicKeyOrCertificate;

use super::hosts::HostKeys;
use super::known_hosts::Shown;
use super::known_hosts::Verdict;
use super::resources::locked;

/// Why a handshake ended.
#[derive(Debug)]
pub(super) enum Fault {
    /// The host key is not to be trusted.
    Key(KeyFault),
    /// The key was all that was wanted: see [`Purpose::Scan`].
    Scanned(Box<PublicKey>),
    /// Everything else.
    Ssh(russh::Error),
}

/// What is wrong with a host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyFault {
    /// No source knows it.
    Unknown {
        /// `SHA256:…`.
        fingerprint: String,
    },
    /// A source contradicts it.
    Wrong {
        /// `SHA256:…`.
        fingerprint: String,
        /// In words.
        reason: String,
    },
    /// It could not be recorded.
    Unrecorded(String),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// What the connection is made for.
pub(super) enum Purpose {
    /// To work on the host.
    Work,
    /// To see its key.
    Scan,
}

/// The part of a session that hears what is not a reply.
pub(super) struct Verifier {
    /// What is known about the host.
    pub(super) keys: HostKeys,
    /// What for.
    pub(super) purpose: Purpose,
    /// Why the session ended, for messages.
    pub(super) farewell: Farewell,
}

/// The peer's or the library's last words.
#[derive(Clone, Default)]
pub(super) struct Farewell(Arc<Mutex<Option<String>>>);

impl Farewell {
    /// In words, where there are any.
    pub(super) fn words(&self) -> Option<String> {
        locked(&self.0).clone()
    }
}

impl Verifier {
    async fn judge(&mut self, shown: Shown<'_>, key: &PublicKey) -> Result<bool, Fault> {
        if matches!(self.purpose, Purpose::Scan) {
            return Err(Fault::Scanned(Box::new(key.clone())));
        }
        // A clock before 1970 makes every certificate "not valid yet".
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        match self.keys.judge(shown, now) {
            Verdict::Trusted => Ok(true),
            Verdict::Wrong(reason) => Err(Fault::Key(KeyFault::Wrong { fingerprint, reason })),
            Verdict::Unknown { recordable } if recordable && self.keys.may_record() => {
                match self.keys.record(key, now).await {
                    Ok(Verdict::Wrong(reason)) => Err(Fault::Key(KeyFault::Wrong { fingerprint, reason })),
                    Ok(_) => Ok(true),
                    Err(reason) => Err(Fault::Key(KeyFault::Unrecorded(reason))),
                }
            }
            Verdict::Unknown { .. } => Err(Fault::Key(KeyFault::Unknown { fingerprint })),
        }
    }

    async fn judge_certificate(&mut self, certificate: &Certificate) -> Result<bool, Fault> {
        let key = PublicKey::new(certificate.public_key().clone(), "");
        self.judge(Shown::Certificate(certificate), &key).await
    }
}

impl Handler for Verifier {
    type Error = Fault;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.judge(Shown::Key(key), key).await,
            PublicKeyOrCertificate::Certificate(certificate) => self.judge_certificate(certificate).await,
        }
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), Fault> {
        tracing::debug!(banner, "login banner");
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        let (words, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => (info.message, Ok(())),
            DisconnectReason::Error(Fault::Ssh(error)) => (error.to_string(), Err(Fault::Ssh(error))),
            DisconnectReason::Error(fault) => ("its host key changed".to_owned(), Err(fault)),
        };
        *locked(&self.farewell.0) = Some(words);
        result
    }
}
