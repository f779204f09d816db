//! One SSH connection, from the first byte to the accepted login.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use russh::Preferred;
use russh::cipher;
use russh::client;
use russh::client::Handle;
use russh::compression;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio::time::timeout;

use super::handler::Farewell;
use super::handler::Fault;
use super::handler::KeyFault;
use super::handler::Purpose;
use super::handler::Verifier;
use super::hosts::HostKeys;
use super::login;
use super::login::LoginFault;
use super::resources::Handshake;
use super::resources::SshResources;
use super::stream;
use super::target::SshTarget;
use crate::host::HostError;
use crate::model::Login;

/// sshd's `MaxSessions` is 10; two are left to the administrator.
const SESSIONS: usize = 8;
/// A full sshd (`MaxStartups`) drops connections at random; each try is likely to get through.
const TRIES: u32 = 6;
/// Unanswered keepalives until the peer counts as dead.
const KEEPALIVES: u8 = 3;

/// An authenticated connection.
pub(super) struct Connection {
    /// The session's handle.
    pub(super) handle: Handle<Verifier>,
    /// Places for session channels.
    pub(super) places: Arc<Semaphore>,
    /// Session channels opened.
    pub(super) sessions: AtomicU32,
    /// direct-tcpip channels opened.
    pub(super) forwards: AtomicU32,
    /// The bastion's connection that this one runs through.
    _through: Option<Arc<Connection>>,
}

/// One sshd on the way.
pub(super) struct Hop<'a> {
    pub(super) address: &'a str,
    pub(super) login: &'a Login,
}

impl Hop<'_> {
    fn place(&self) -> String {
        let (address, port) = (self.address, self.login.port);
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }
}

/// Connects to the target's own sshd, through its bastions.
pub(super) async fn open(target: &SshTarget, shared: &Arc<SshResources>) -> Result<Connection, HostError> {
    let through = bastions(target, shared).await?;
    let hop = Hop { address: &target.address, login: &target.login };
    establish(target, &hop, through, shared).await
}

/// The key exchange alone: returns the key that the target shows.
pub(super) async fn look(target: &SshTarget, shared: &Arc<SshResources>) -> Result<russh::keys::PublicKey, HostError> {
    let through = bastions(target, shared).await?;
    let hop = Hop { address: &target.address, login: &target.login };
    match shake_hands(target, &hop, through.as_ref(), Purpose::Scan, shared).await {
        Ok(_) => Err(connect_error(target, &hop, "it showed no host key")),
        Err(Failure::Ssh(Fault::Scanned(key))) => Ok(*key),
        Err(failure) => Err(failure.explain(target, &hop)),
    }
}

/// The connection to the last bastion; each bastion of a run is connected to once.
async fn bastions(target: &SshTarget, shared: &Arc<SshResources>) -> Result<Option<Arc<Connection>>, HostError> {
    let mut through: Option<Arc<Connection>> = None;
    let mut route = String::new();
    for jump in &target.jumps {
        let hop = Hop { address: &jump.address, login: &jump.login };
        route = format!("{route}>{}@{}", jump.login.user, hop.place());
        let slot = shared.bastion(&route);
        let mut slot = slot.lock().await;
        let alive = slot.as_ref().filter(|connection| !connection.handle.is_closed()).cloned();
        let connection = if let Some(connection) = alive {
            connection
        } else {
            let made = Arc::new(establish(target, &hop, through.take(), shared).await?);
            *slot = Some(Arc::clone(&made));
            made
        };
        through = Some(connection);
    }
    Ok(through)
}

/// Key exchange and login, tried again where sshd was too busy to answer.
async fn establish(
    target: &SshTarget,
    hop: &Hop<'_>,
    through: Option<Arc<Connection>>,
    shared: &Arc<SshResources>,
) -> Result<Connection, HostError> {
    let mut outcome = Err(LoginFault::Stale);
    // A person may take longer for a passphrase than sshd waits; the second time it is known.
    for _ in 0..2 {
        let mut greeted = shake_hands(target, hop, through.as_ref(), Purpose::Work, shared)
            .await
            .map_err(|failure| failure.explain(target, hop))?;
        let attempt = login::log_in(&mut greeted.handle, &greeted.farewell, hop.login, target.connect_timeout, shared);
        outcome = attempt.await.map(|()| greeted.handle);
        if !matches!(outcome, Err(LoginFault::Stale)) {
            break;
        }
    }
    match outcome {
        Ok(handle) => Ok(Connection {
            handle,
            places: Arc::new(Semaphore::new(SESSIONS)),
            sessions: AtomicU32::new(0),
            forwards: AtomicU32::new(0),
            _through: through,
        }),
        Err(LoginFault::Refused(reason)) => Err(HostError::Login {
            host: target.host.clone(),
            user: hop.login.user.clone(),
            reason: format!("{}: {reason}", hop.place()),
        }),
        Err(LoginFault::Stale) => Err(connect_error(target, hop, "the connection closed during the login")),
    }
}

/// A session whose host key is trusted, before the login. Its place among the handshakes is kept until then: sshd counts
/// connections that have not logged in.
struct Greeted {
    handle: Handle<Verifier>,
    farewell: Farewell,
    _place: Handshake,
}

/// Why there is no session.
enum Failure {
    /// Nobody answers, in words.
    Connect(String),
    /// Not a matter of answering, in words.
    Obstructed(String),
    /// Too busy, or gone: worth another try.
    Dropped(String),
    /// In SSH.
    Ssh(Fault),
}

async fn shake_hands(
    target: &SshTarget,
    hop: &Hop<'_>,
    through: Option<&Arc<Connection>>,
    purpose: Purpose,
    shared: &Arc<SshResources>,
) -> Result<Greeted, Failure> {
    let scan = matches!(purpose, Purpose::Scan);
    let mut pause = Duration::from_millis(100);
    for _ in 1..TRIES {
        let purpose = if scan { Purpose::Scan } else { Purpose::Work };
        match try_once(target, hop, through, purpose, shared).await {
            Err(Failure::Dropped(reason)) => tracing::debug!(%reason, sshd = hop.place(), "handshake dropped, again"),
            other => return other,
        }
        // Spread by a random part, so that those who were dropped together do not come back together.
        let mut random = [0];
        let _ = aws_lc_rs::rand::fill(&mut random);
        sleep(pause + pause.mul_f32(f32::from(random[0]) / 255.0)).await;
        pause *= 2;
    }
    try_once(target, hop, through, purpose, shared).await
}

async fn try_once(
    target: &SshTarget,
    hop: &Hop<'_>,
    through: Option<&Arc<Connection>>,
    purpose: Purpose,
    shared: &Arc<SshResources>,
) -> Result<Greeted, Failure> {
    let keys = HostKeys::load(hop.address, hop.login.port, hop.login.host_key.as_deref(), &target.known_hosts, shared)
        .map_err(Failure::Obstructed)?;
    let config = Arc::new(config(target, &keys, &purpose));
    let farewell = Farewell::default();
    let verifier = Verifier { keys, purpose, farewell: farewell.clone() };
    let place = shared.handshake(&hop.place()).await;
    let handle = match through {
        None => {
            let socket = timeout(target.connect_timeout, TcpStream::connect((hop.address, hop.login.port)))
                .await
                .map_err(|_| Failure::Connect(format!("no answer within {:?}", target.connect_timeout)))?
                .map_err(|error| Failure::Connect(error.to_string()))?;
            socket.set_nodelay(true).map_err(|error| Failure::Connect(error.to_string()))?;
            exchange_keys(target, config, socket, verifier).await
        }
        Some(bastion) => {
            let channel = stream::open(bastion, hop.address, hop.login.port, target.connect_timeout).await.map_err(
                |refusal| {
                    let reason = format!("through the bastion: {refusal}");
                    match refusal {
                        stream::Refusal::Forbidden => Failure::Obstructed(reason),
                        stream::Refusal::NobodyThere | stream::Refusal::Lost => Failure::Connect(reason),
                    }
                },
            )?;
            exchange_keys(target, config, channel, verifier).await
        }
    }?;
    Ok(Greeted { handle, farewell, _place: place })
}

async fn exchange_keys<S>(
    target: &SshTarget,
    config: Arc<client::Config>,
    stream: S,
    verifier: Verifier,
) -> Result<Handle<Verifier>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match timeout(target.connect_timeout, client::connect_stream(config, stream, verifier)).await {
        Err(_) => Err(Failure::Connect(format!("no SSH key exchange within {:?}", target.connect_timeout))),
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(Fault::Ssh(error))) if dropped(&error) => Err(Failure::Dropped(error.to_string())),
        Ok(Err(fault)) => Err(Failure::Ssh(fault)),
    }
}

/// Whether sshd hung up before saying anything of substance, as it does when `MaxStartups` is reached.
fn dropped(error: &russh::Error) -> bool {
    match error {
        russh::Error::HUP | russh::Error::Disconnect => true,
        russh::Error::IO(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

/// Whether the connection ended, rather than the two sides' understanding.
fn gone(error: &russh::Error) -> bool {
    use russh::Error as E;
    dropped(error)
        || matches!(
            error,
            E::IO(_)
                | E::ConnectionTimeout
                | E::KeepaliveTimeout
                | E::InactivityTimeout
                | E::Elapsed(_)
                | E::SendError
                | E::RecvError
        )
}

fn config(target: &SshTarget, keys: &HostKeys, purpose: &Purpose) -> client::Config {
    let certificates = match purpose {
        Purpose::Work => keys.certificate_types(),
        Purpose::Scan => Vec::new(),
    };
    client::Config {
        preferred: Preferred {
            key: Cow::Owned(keys.preferred_types()),
            host_key_certificates: Cow::Owned(certificates),
            // AES-GCM is half again as fast as ChaCha20 where the processor knows AES, and every server of today does.
            cipher: Cow::Borrowed(&[
                cipher::AES_256_GCM,
                cipher::AES_128_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        keepalive_interval: Some(target.keepalive),
        keepalive_max: usize::from(KEEPALIVES),
        // Keepalives are not sent while a write blocks, nor before the login; this ends both.
        inactivity_timeout: Some(target.connect_timeout + target.keepalive * (u32::from(KEEPALIVES) + 1)),
        nodelay: true,
        ..client::Config::default()
    }
}

impl Failure {
    fn explain(self, target: &SshTarget, hop: &Hop<'_>) -> HostError {
        let (host, address) = (target.host.clone(), hop.place());
        match self {
            Self::Connect(reason) => connect_error(target, hop, &reason),
            Self::Obstructed(reason) => obstructed(target, hop, &reason),
            Self::Dropped(reason) => {
                connect_error(target, hop, &format!("{reason} ({TRIES} times; sshd's MaxStartups may be too low)"))
            }
            Self::Ssh(Fault::Key(KeyFault::Unknown { fingerprint })) => {
                HostError::UnknownHostKey { host, address, fingerprint }
            }
            Self::Ssh(Fault::Key(KeyFault::Wrong { fingerprint, reason })) => {
                HostError::WrongHostKey { host, address, fingerprint, reason }
            }
            Self::Ssh(Fault::Key(KeyFault::Unrecorded(reason))) => {
                obstructed(target, hop, &format!("its host key could not be recorded: {reason}"))
            }
            Self::Ssh(Fault::Scanned(_)) => connect_error(target, hop, "the key exchange was only looked at"),
            Self::Ssh(Fault::Ssh(error)) if gone(&error) => connect_error(target, hop, &error.to_string()),
            Self::Ssh(Fault::Ssh(error)) => obstructed(target, hop, &error.to_string()),
        }
    }
}

fn connect_error(target: &SshTarget, hop: &Hop<'_>, reason: &str) -> HostError {
    HostError::Connect { host: target.host.clone(), reason: format!("{}: {reason}", hop.place()) }
}

fn obstructed(target: &SshTarget, hop: &Hop<'_>, reason: &str) -> HostError {
    HostError::Obstructed { host: target.host.clone(), reason: format!("{}: {reason}", hop.place()) }
}
