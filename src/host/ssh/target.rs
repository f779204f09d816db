//! What is needed to reach one host, in plain types: `ops/` makes them from cluster.yml.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Content;
use crate::model::HostName;
use crate::model::Jump;
use crate::model::Login;

/// One host and the way to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SshTarget {
    /// The node's name, for messages.
    pub host: HostName,
    /// Name or address of its sshd.
    pub address: String,
    /// How to log in there.
    pub login: Login,
    /// Bastions to pass through, from the operator outward.
    pub jumps: Vec<Jump>,
    /// Files to look host keys up in, in this order; new keys are recorded in the first. See [`super::default_known_hosts`].
    pub known_hosts: Vec<PathBuf>,
    /// What sudo may be told. Without it [`super::Ask::sudo_password`] is asked, once a run.
    pub sudo_password: Option<Content>,
    /// Streams are carried by a command on the host, because its sshd may forward none.
    pub relay: bool,
    /// Longest time for each of: the TCP connection, the key exchange, one login attempt, opening a channel.
    pub connect_timeout: Duration,
    /// After this much silence the peer is asked whether it lives; after four times as much it counts as dead.
    pub keepalive: Duration,
}

impl SshTarget {
    /// A target without bastion or sudo password, with the default times (15 s to connect, keepalive every 5 s).
    pub fn new(host: HostName, address: impl Into<String>, login: Login) -> Self {
        Self {
            host,
            address: address.into(),
            login,
            jumps: Vec::new(),
            known_hosts: Vec::new(),
            sudo_password: None,
            relay: false,
            connect_timeout: Duration::from_secs(15),
            keepalive: Duration::from_secs(5),
        }
    }
}
