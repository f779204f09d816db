//! `host/ssh` against a real sshd. Root only; needs Debian's openssh-server, sudo, fish and csh.
#![allow(clippy::unwrap_used, clippy::panic)]

mod dead_peers;
mod host_keys;
mod logins;
mod proxy;
mod routes;
mod running;
mod sshd;
mod sudo;
