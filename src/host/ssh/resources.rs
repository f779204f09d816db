//! What all connections of a run share: bounds, prompts that are asked once, bastions that are connected to once.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use russh::keys::PrivateKey;
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::OnceCell;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::connection::Connection;
use crate::model::Content;

/// Stock sshd drops handshakes beyond ten in flight (`MaxStartups 10:30:100`).
const HANDSHAKES_PER_SSHD: usize = 8;
/// Bounds sockets and key exchange work on the operator's machine.
const HANDSHAKES: usize = 64;

/// Answers what only a person knows. Called on a thread that may block; never called twice for one thing in a run.
pub trait Ask: Send + Sync + 'static {
    /// The passphrase of an encrypted private key; `key` is its path or fingerprint. `again` after a wrong one. None: nobody
    /// to ask.
    fn key_passphrase(&self, key: &str, again: bool) -> Option<Content>;
    /// The password of `user` for sudo, where hosts ask for one and none is configured. None: nobody to ask.
    fn sudo_password(&self, user: &str) -> Option<Content>;
}

/// Nobody is there: every question stays unanswered.
#[derive(Debug, Clone, Copy, Default)]
pub struct NobodyToAsk;

impl Ask for NobodyToAsk {
    fn key_passphrase(&self, _key: &str, _again: bool) -> Option<Content> {
        None
    }
    fn sudo_password(&self, _user: &str) -> Option<Content> {
        None
    }
}

/// Shared by all connections of a run.
pub struct SshResources {
    pub(super) ask: Arc<dyn Ask>,
    pub(super) agent: Option<PathBuf>,
    pub(super) accept_new_host_keys: bool,
    pub(super) recording: Mutex<()>,
    pub(super) passed_over: Mutex<BTreeSet<String>>,
    handshakes: Arc<Semaphore>,
    per_sshd: Mutex<HashMap<String, Arc<Semaphore>>>,
    keys: Mutex<HashMap<String, Slot<Unlocked>>>,
    passwords: Mutex<HashMap<String, Slot<Option<Content>>>>,
    bastions: Mutex<HashMap<String, Bastion>>,
}

/// Filled once, by whoever comes first.
type Slot<T> = Arc<OnceCell<T>>;

/// A decrypted key, or why there is none.
pub(super) type Unlocked = Result<Arc<PrivateKey>, String>;

/// The one connection to a bastion, made anew when it has died.
pub(super) type Bastion = Arc<AsyncMutex<Option<Arc<Connection>>>>;

/// A started handshake's places; dropped when it is over.
pub(super) struct Handshake {
    _overall: OwnedSemaphorePermit,
    _here: OwnedSemaphorePermit,
}

impl SshResources {
    /// Strict host keys, no agent.
    pub fn new(ask: Arc<dyn Ask>) -> Self {
        Self {
            ask,
            agent: None,
            accept_new_host_keys: false,
            recording: Mutex::new(()),
            passed_over: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            per_sshd: Mutex::default(),
            keys: Mutex::default(),
            passwords: Mutex::default(),
            bastions: Mutex::default(),
        }
    }

    /// Uses the agent at this socket (`SSH_AUTH_SOCK`, read by the caller).
    #[must_use]
    pub fn with_agent(mut self, socket: Option<PathBuf>) -> Self {
        self.agent = socket;
        self
    }

    /// Records the key of a host that no source knows, instead of refusing it (`--accept-new-host-keys`).
    #[must_use]
    pub fn accepting_new_host_keys(mut self, accept: bool) -> Self {
        self.accept_new_host_keys = accept;
        self
    }

    /// Waits for a place among the handshakes in flight. Taken one sshd first, so that hosts behind a full sshd hold no place
    /// that others could use.
    pub(super) async fn handshake(&self, sshd: &str) -> Handshake {
        let here = Arc::clone(
            locked(&self.per_sshd)
                .entry(sshd.to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(HANDSHAKES_PER_SSHD))),
        );
        Handshake { _here: place(here).await, _overall: place(Arc::clone(&self.handshakes)).await }
    }

    /// The slot of a decrypted private key.
    pub(super) fn key(&self, name: &str) -> Slot<Unlocked> {
        Arc::clone(locked(&self.keys).entry(name.to_owned()).or_default())
    }

    /// sudo's password of `user`, asked for once.
    pub(super) async fn sudo_password(&self, user: &str) -> Option<Content> {
        let slot = Arc::clone(locked(&self.passwords).entry(user.to_owned()).or_default());
        let ask = Arc::clone(&self.ask);
        let user = user.to_owned();
        slot.get_or_init(|| async move {
            tokio::task::spawn_blocking(move || ask.sudo_password(&user)).await.ok().flatten()
        })
        .await
        .clone()
    }

    /// The place of the connection to a bastion; `route` names the bastion and every hop before it.
    pub(super) fn bastion(&self, route: &str) -> Bastion {
        Arc::clone(locked(&self.bastions).entry(route.to_owned()).or_default())
    }
}

async fn place(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("these semaphores are never closed")
}

/// What these locks guard is never left half-changed, so a panic elsewhere does not spoil it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
