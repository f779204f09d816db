//! The door to the API server, through a channel of the host.
//!
//! Enters: desired objects, actions. Leaves: how objects compare, what was done. Never decides what should be.

mod apply;
mod compare;
mod connection;
mod encryption;
mod error;
pub mod etcd;
mod etcd_keys;
mod etcd_members;
mod front;
mod kinds;
mod node;
mod observe;
mod pods;
mod presented;
pub mod probe;
mod registry;
mod rest;
mod sets;
mod tokens;
mod trial;
mod trust;
mod workloads;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use connection::Credentials;
pub use encryption::loaded_encryption;
pub use encryption::plugins;
pub use error::ApiError;
pub use etcd_keys::Claim;
pub use etcd_members::EtcdMember;
pub use etcd_members::MemberChange;
pub use front::obstacle;
pub use pods::CallingPod;
pub use presented::presented;
pub use tokens::TokenSecret;
pub use tokens::published_key_ids;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::Mutex;
pub use trial::Trial;
pub use trial::trial;
pub use trust::Bundled;
pub use trust::GivenTrust;
pub use trust::PublishedTrust;

use crate::host::Host;

/// The name under which the API server books bastide's fields.
pub const FIELD_MANAGER: &str = "bastide";

/// How often something that must come about is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How long something that others bring about may take: a kubelet's registration, a new kind. As `bastide.deadlines.ready`.
const WAITING: Duration = Duration::from_mins(5);

/// An API server. Every request goes over one kept connection, which is dialed when it is first needed and again when it
/// dies. Each request is tried again for as long as `patience`.
pub struct Api {
    client: kube::Client,
    /// `address:port`, for errors.
    server: String,
    patience: Duration,
    waiting: Duration,
    kinds: Mutex<Option<Arc<kinds::Kinds>>>,
    sets: Mutex<sets::Sets>,
}

impl Api {
    /// The API server at `address:port`, dialed from `host`.
    pub fn through<H: Host>(
        host: Arc<H>,
        address: IpAddr,
        port: u16,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, ApiError> {
        let dial = move || {
            let host = host.clone();
            async move { host.dial(&address.to_string(), port).await.map_err(io::Error::other) }
        };
        Self::over(dial, address, port, credentials, patience)
    }

    /// The API server at `address:port`, dialed from here.
    pub fn direct(address: IpAddr, port: u16, credentials: &Credentials, patience: Duration) -> Result<Self, ApiError> {
        Self::over(move || tokio::net::TcpStream::connect((address, port)), address, port, credentials, patience)
    }

    /// The API server whose certificate names `address`, over the streams that `dial` opens.
    pub fn over<D, F, S>(
        dial: D,
        address: IpAddr,
        port: u16,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, ApiError>
    where
        D: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Ok(Self {
            client: connection::client(dial, address, port, credentials)?,
            server: std::net::SocketAddr::new(address, port).to_string(),
            patience,
            waiting: WAITING,
            kinds: Mutex::default(),
            sets: Mutex::default(),
        })
    }

    /// Waits this long for what others bring about: the registration of a node, a new kind. Five minutes by default.
    #[must_use]
    pub fn with_waiting(mut self, waiting: Duration) -> Self {
        self.waiting = waiting;
        self
    }
}
