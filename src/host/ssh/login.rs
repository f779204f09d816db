//! Proves to sshd who the operator is. Tells what was tried when nothing was accepted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::AgentAuthError;
use russh::SendError;
use russh::Signer;
use russh::client::AuthResult;
use russh::client::Handle;
use russh::keys::Algorithm;
use russh::keys::HashAlg;
use russh::keys::PrivateKey;
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::PublicKey;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::KeypairData;
use tokio::net::UnixStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::handler::Farewell;
use super::handler::Verifier;
use super::keys;
use super::keys::Identity;
use super::resources::SshResources;
use crate::model::Login;

/// Why there is no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LoginFault {
    /// What was tried, and what came of it.
    Refused(String),
    /// The connection closed while a person was asked for a passphrase.
    Stale,
}

/// Tries every key source in its order.
pub(super) async fn log_in(
    handle: &mut Handle<Verifier>,
    farewell: &Farewell,
    login: &Login,
    deadline: Duration,
    shared: &Arc<SshResources>,
) -> Result<(), LoginFault> {
    let mut trial = Trial { handle, farewell, user: &login.user, deadline, tried: Vec::new() };
    for source in &login.keys {
        let accepted = match keys::identity(source, shared).await {
            None => trial.agent(shared.agent.as_deref()).await?,
            Some(Err(reason)) => {
                trial.tried.push(reason);
                false
            }
            Some(Ok(_)) if trial.handle.is_closed() => return Err(LoginFault::Stale),
            Some(Ok(identity)) => trial.identity(&identity).await?,
        };
        if accepted {
            return Ok(());
        }
    }
    if login.keys.is_empty() {
        trial.tried.push("no key is configured and no agent is to be asked".to_owned());
    }
    Err(LoginFault::Refused(trial.tried.join("; ")))
}

/// One login in progress.
struct Trial<'a> {
    handle: &'a mut Handle<Verifier>,
    farewell: &'a Farewell,
    user: &'a str,
    deadline: Duration,
    tried: Vec<String>,
}

impl Trial<'_> {
    async fn identity(&mut self, identity: &Identity) -> Result<bool, LoginFault> {
        let hash = match self.rsa_hash(&identity.key.algorithm()).await {
            Ok(hash) => hash,
            Err(reason) => {
                self.tried.push(format!("{}: {reason}", identity.name));
                return Ok(false);
            }
        };
        if let Some(certificate) = &identity.certificate {
            let mut signer = LocalSigner { key: Arc::clone(&identity.key) };
            let attempt = self.handle.authenticate_certificate_with(self.user, certificate.clone(), hash, &mut signer);
            let answer = timeout(self.deadline, attempt).await.map(|answer| answer.map_err(|error| error.to_string()));
            let what = format!("{} with certificate {:?}", identity.name, certificate.key_id());
            if self.verdict(&what, answer)? {
                return Ok(true);
            }
        }
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&identity.key), hash);
        let attempt = self.handle.authenticate_publickey(self.user, key);
        let answer = timeout(self.deadline, attempt).await.map(|answer| answer.map_err(|error| error.to_string()));
        self.verdict(&identity.name, answer)
    }

    async fn agent(&mut self, socket: Option<&Path>) -> Result<bool, LoginFault> {
        let Some(socket) = socket else {
            self.tried.push("agent: SSH_AUTH_SOCK is not set".to_owned());
            return Ok(false);
        };
        let identities = timeout(self.deadline, self.agent_identities(socket)).await;
        let (mut agent, identities) = match identities {
            Ok(Ok(found)) => found,
            Ok(Err(reason)) => {
                self.tried.push(format!("agent at {}: {reason}", socket.display()));
                return Ok(false);
            }
            Err(_) => {
                self.tried.push(format!("agent at {}: no answer within {:?}", socket.display(), self.deadline));
                return Ok(false);
            }
        };
        if identities.is_empty() {
            self.tried.push(format!("agent at {}: it holds no key", socket.display()));
        }
        for identity in identities {
            if self.agent_identity(&mut agent, identity).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn agent_identities(
        &self,
        socket: &Path,
    ) -> Result<(AgentClient<UnixStream>, Vec<AgentIdentity>), russh::keys::Error> {
        let mut agent = AgentClient::connect_uds(socket).await?;
        if let Some(binding) = self.handle.agent_session_binding() {
            // Keys that are bound to destinations need it; agents that do not know it say no, which is no error.
            let _ = agent.bind_session(binding, false).await;
        }
        let identities = agent.request_identities().await?;
        Ok((agent, identities))
    }

    async fn agent_identity(
        &mut self,
        agent: &mut AgentClient<UnixStream>,
        identity: AgentIdentity,
    ) -> Result<bool, LoginFault> {
        let key: PublicKey = identity.public_key().into_owned();
        let what = format!("agent key {} {}", key.fingerprint(HashAlg::Sha256), identity.comment());
        let hash = match self.rsa_hash(&key.algorithm()).await {
            Ok(hash) => hash,
            Err(reason) => {
                self.tried.push(format!("{what}: {reason}"));
                return Ok(false);
            }
        };
        // An agent may ask its owner to confirm each use, so this may take as long as a person does.
        let answer: Result<AuthResult, AgentAuthError> = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                self.handle.authenticate_publickey_with(self.user, key, hash, agent).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                self.handle.authenticate_certificate_with(self.user, certificate, hash, agent).await
            }
        };
        self.verdict(what.trim_end(), Ok(answer.map_err(|error| error.to_string())))
    }

    /// The strongest hash the server takes for RSA. Never SHA-1, which is what russh takes `None` for.
    async fn rsa_hash(&self, key: &Algorithm) -> Result<Option<HashAlg>, String> {
        if !matches!(key, Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        match timeout(self.deadline, self.handle.best_supported_rsa_hash()).await {
            Ok(Ok(Some(Some(hash)))) => Ok(Some(hash)),
            Ok(Ok(Some(None))) => Err("the server takes RSA with SHA-1 only".to_owned()),
            // It did not say (RFC 8308 is optional): every server since 2016 knows SHA-512.
            Ok(Ok(None) | Err(_)) | Err(_) => Ok(Some(HashAlg::Sha512)),
        }
    }

    /// Notes what came of one attempt. The connection is over when it timed out or was closed.
    fn verdict(&mut self, what: &str, answer: Result<Result<AuthResult, String>, Elapsed>) -> Result<bool, LoginFault> {
        let fatal = match answer {
            Ok(Ok(AuthResult::Success)) => return Ok(true),
            Ok(Ok(AuthResult::Failure { remaining_methods, partial_success })) => {
                if self.handle.is_closed() {
                    let words = self.farewell.words().unwrap_or_else(|| "the connection closed".to_owned());
                    self.tried.push(format!("{what}: {words}"));
                    true
                } else if partial_success {
                    self.tried.push(format!("{what}: accepted, but the server wants {remaining_methods:?} as well"));
                    false
                } else {
                    self.tried.push(format!("{what}: refused"));
                    false
                }
            }
            Ok(Err(reason)) => {
                self.tried.push(format!("{what}: {reason}"));
                self.handle.is_closed()
            }
            Err(_) => {
                self.tried.push(format!("{what}: no answer within {:?}", self.deadline));
                true
            }
        };
        if fatal { Err(LoginFault::Refused(self.tried.join("; "))) } else { Ok(false) }
    }
}

/// Signs for a certificate with a key at hand: russh's own way for that signs RSA with SHA-1's name.
struct LocalSigner {
    key: Arc<PrivateKey>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("the connection closed")]
    Closed,
    #[error("it cannot sign: {0}")]
    Key(#[from] ssh_key::Error),
    #[error("it cannot sign: {0}")]
    Signature(#[from] russh::keys::signature::Error),
    #[error("it cannot sign: {0}")]
    Encoding(#[from] russh::keys::ssh_encoding::Error),
}

impl From<SendError> for SignError {
    fn from(_: SendError) -> Self {
        Self::Closed
    }
}

impl Signer for LocalSigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _identity: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let signature: Signature = match self.key.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&to_sign)?,
            pair => pair.try_sign(&to_sign)?,
        };
        let mut encoded = Vec::new();
        signature.encode(&mut encoded)?;
        encoded.encode(&mut to_sign)?;
        Ok(to_sign)
    }
}
