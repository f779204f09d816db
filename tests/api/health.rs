//! Health, asked of each component through its host.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bastide::api::ApiError;
use bastide::api::etcd::Etcd;
use bastide::api::probe;
use bastide::api::probe::Health;
use bastide::api::probe::ProbeError;
use bastide::host::Channels;
use bastide::host::Dial;
use bastide::host::HeldLock;
use bastide::host::Host;
use bastide::host::HostError;
use bastide::host::Work;
use bastide::model::Content;
use bastide::model::HostName;
use bastide::model::HostRecord;
use bastide::model::LockHolder;
use bastide::model::ObservedHost;
use bastide::model::RemotePath;
use bastide::model::Scope;
use tokio::net::TcpStream;

use crate::server::LOOPBACK;
use crate::server::Server;
use crate::server::foreign_authority;
use crate::server::host;
use crate::turn;

const WAIT: Duration = Duration::from_secs(20);

/// A host whose standard ports are the server's own.
pub(crate) struct Here(pub(crate) HostName);

pub(crate) struct NoLock;

impl HeldLock for NoLock {
    async fn lost(&mut self) {
        pending::<()>().await;
    }
}

impl Dial for Here {
    type Stream = TcpStream;

    async fn dial(&self, address: &str, port: u16) -> Result<TcpStream, HostError> {
        let server = Server::get();
        let real = match port {
            6443 => server.port,
            2379 => server.etcd_port,
            2381 => server.etcd_metrics_port,
            other => other,
        };
        TcpStream::connect((address, real))
            .await
            .map_err(|_| HostError::Refused { host: self.0.clone(), target: format!("{address}:{port}") })
    }
}

impl Host for Here {
    type Lock = NoLock;

    fn name(&self) -> &HostName {
        &self.0
    }
    async fn observe(&self, _: &Scope) -> Result<ObservedHost, HostError> {
        unimplemented!()
    }
    async fn perform(&self, _: Work<'_>) -> Result<(), HostError> {
        unimplemented!()
    }
    async fn keep_state(&self, _: &Content, _: &HostRecord, _: &str) -> Result<(), HostError> {
        unimplemented!()
    }
    async fn fetch_state(&self) -> Result<Option<Content>, HostError> {
        unimplemented!()
    }
    async fn read(&self, _: &BTreeSet<RemotePath>) -> Result<BTreeMap<RemotePath, Content>, HostError> {
        unimplemented!()
    }
    async fn lock(&self, _: &LockHolder) -> Result<NoLock, HostError> {
        unimplemented!()
    }
    async fn last_words(&self, _: &str) -> Result<String, HostError> {
        unimplemented!()
    }
    async fn erase(&self, _: &str, _: bool) -> Result<(), HostError> {
        unimplemented!()
    }
    fn channels(&self) -> Channels {
        Channels::default()
    }
}

#[tokio::test]
async fn a_healthy_api_server_and_etcd_say_so() {
    let _turn = turn().await;
    let server = Server::get();
    let here = Here(host());
    assert_eq!(probe::api_server(&here, LOOPBACK, &server.credentials(), WAIT).await.unwrap(), Health::Ok);
    assert_eq!(probe::etcd(&here, WAIT).await.unwrap(), Health::Ok);
    let (host, credentials) = (Arc::new(here), server.etcd_credentials());
    let etcd = Etcd { host: &host, address: LOOPBACK, credentials: &credentials, deadline: WAIT };
    assert!(etcd.status().await.unwrap().leads());
    let members = etcd.members_it_knows().await.unwrap();
    let [member] = members.as_slice() else { panic!("{members:?}") };
    assert_eq!(member.name, "h1");
    assert!(!member.learner && member.peer_urls.len() == 1);
}

#[tokio::test]
async fn nobody_at_the_port_and_a_foreign_authority_are_errors() {
    let _turn = turn().await;
    let server = Server::get();
    let here = Here(host());
    let nobody = probe::kubelet(&here, WAIT).await.unwrap_err();
    assert!(matches!(nobody, ProbeError::Host(HostError::Refused { .. })), "{nobody:?}");
    let mut foreign = server.credentials();
    foreign.authorities = foreign_authority();
    let refused = probe::api_server(&here, LOOPBACK, &foreign, WAIT).await.unwrap_err();
    assert!(matches!(refused, ProbeError::Broken { .. }), "{refused:?}");
    // etcd takes clients of its own authority alone.
    let own = server.credentials();
    let mixed = bastide::api::Credentials { authorities: server.etcd_credentials().authorities, ..own };
    let etcd = Etcd { host: &Arc::new(here), address: LOOPBACK, credentials: &mixed, deadline: WAIT };
    assert!(etcd.members_it_knows().await.is_err());
}

#[tokio::test]
async fn a_name_for_the_api_leads_there_or_it_is_said_why_not() {
    let _turn = turn().await;
    let server = Server::get();
    let own = server.credentials();
    let ask = |host: &'static str, port, credentials| bastide::api::obstacle(host, port, credentials, WAIT);
    assert_eq!(ask("localhost", server.port, Some(&own)).await, None);
    // Without an API server there is only a name to look at.
    assert_eq!(ask("localhost", 1, None).await, None);
    let said = ask("nowhere.invalid", 6443, None).await.unwrap();
    assert!(said.starts_with("nowhere.invalid cannot be resolved on this machine ("), "{said}");
    let said = ask("127.0.0.1", 1, Some(&own)).await.unwrap();
    assert!(said.starts_with("nobody answers at 127.0.0.1:1 ("), "{said}");
    let foreign = bastide::api::Credentials { authorities: foreign_authority(), ..server.credentials() };
    let said = ask("127.0.0.1", server.port, Some(&foreign)).await.unwrap();
    assert!(said.contains("is no API server of this cluster ("), "{said}");
}

#[tokio::test]
async fn a_host_as_a_dialer_reaches_the_api() {
    let _turn = turn().await;
    let server = Server::get();
    let here = std::sync::Arc::new(Here(host()));
    let api = bastide::api::Api::through(here, LOOPBACK, 6443, &server.credentials(), WAIT).unwrap();
    api.observe(&[], &bastide::model::Blobs::default()).await.unwrap();
}

/// Its sshd does not forward.
#[tokio::test]
async fn a_host_that_does_not_forward_is_told_at_once() {
    let server = Server::get();
    let dial = || async {
        let refused = HostError::ForwardingRefused { host: host(), target: "192.0.2.11:6443".to_owned() };
        Err::<TcpStream, _>(std::io::Error::other(refused))
    };
    let api = bastide::api::Api::over(dial, LOOPBACK, 6443, &server.credentials(), WAIT).unwrap();
    let refused = api.observe(&[], &bastide::model::Blobs::default()).await.unwrap_err();
    assert_eq!(refused, ApiError::Forwarding { host: host(), target: "192.0.2.11:6443".to_owned() });
}
