//! Ways through bastions, and many hosts at once.

use std::fmt::Write;
use std::fs;

use bastide::host::HostError;
use bastide::host::Wire;
use bastide::host::ssh::SshTarget;
use bastide::host::ssh::connect;
use bastide::model::Jump;

use crate::proxy::Proxy;
use crate::sshd::Sshd;
use crate::sshd::call;
use crate::sshd::resources;

/// A target behind bastions, with everybody's host key on record.
fn behind(inner: &Sshd, bastions: &[(&Sshd, u16)]) -> SshTarget {
    let mut target = inner.target("root");
    let mut lines = fs::read_to_string(&target.known_hosts[0]).unwrap();
    for (bastion, port) in bastions {
        let _ = writeln!(lines, "[127.0.0.1]:{port} {}", bastion.text("host.pub"));
        target.jumps.push(Jump { address: "127.0.0.1".to_owned(), login: bastion.login("free", *port) });
    }
    fs::write(&target.known_hosts[0], lines).unwrap();
    target
}

#[tokio::test]
async fn two_hosts_share_one_connection_to_their_bastion() {
    let (bastion, inner, other) = (Sshd::start(), Sshd::start(), Sshd::start());
    let tap = Proxy::before(bastion.port).await;
    let shared = resources();
    let targets = [behind(&inner, &[(&bastion, tap.port)]), behind(&other, &[(&bastion, tap.port)])];
    let [first, second] = targets.map(|target| connect(target, &shared));
    let (first, second) = tokio::join!(first, second);
    let (first, second) = (first.unwrap(), second.unwrap());
    let (one, two) = tokio::join!(first.exec(call("echo one")), second.exec(call("echo two")));
    assert_eq!((one.unwrap().stdout, two.unwrap().stdout), (b"one\n".to_vec(), b"two\n".to_vec()));
    assert_eq!(tap.connections(), 1);
    // A great deal of output of one does not stop the other.
    let (flood, beside) = tokio::join!(first.exec(call("head -c 30000000 /dev/zero")), second.exec(call("echo still")));
    assert_eq!((flood.unwrap().stdout.len(), beside.unwrap().stdout), (30_000_000, b"still\n".to_vec()));
}

#[tokio::test]
async fn a_bastion_that_went_away_is_connected_to_anew() {
    let (bastion, inner) = (Sshd::start(), Sshd::start());
    let tap = Proxy::before(bastion.port).await;
    let shared = resources();
    let target = behind(&inner, &[(&bastion, tap.port)]);
    let lost = connect(target.clone(), &shared).await.unwrap();
    bastion.kill_sessions();
    assert!(matches!(lost.exec(call("true")).await, Err(HostError::Lost { .. })));
    let wire = connect(target, &shared).await.unwrap();
    assert_eq!(wire.exec(call("echo again")).await.unwrap().stdout, b"again\n");
    assert_eq!(tap.connections(), 2);
}

#[tokio::test]
async fn a_chain_of_two_bastions_leads_to_the_host() {
    let (outer, middle, inner) = (Sshd::start(), Sshd::start(), Sshd::start());
    let target = behind(&inner, &[(&outer, outer.port), (&middle, middle.port)]);
    let wire = connect(target, &resources()).await.unwrap();
    assert_eq!(wire.exec(call("id -u")).await.unwrap().stdout, b"0\n");
    for bastion in [&outer, &middle] {
        assert_eq!(bastion.log().matches("Accepted publickey for free").count(), 1);
    }
}

#[tokio::test]
async fn a_bastion_is_held_to_the_same_rules_as_a_host() {
    let (bastion, inner) = (Sshd::with("AllowTcpForwarding no"), Sshd::start());
    let target = behind(&inner, &[(&bastion, bastion.port)]);
    let error = connect(target.clone(), &resources()).await.err().unwrap();
    assert!(!error.is_silence(), "the host behind it is not the one that is wrong: {error}");
    assert!(error.to_string().contains("through the bastion: its sshd forbids forwarding"), "{error}");
    // Its key is not on record.
    inner.target("root");
    let error = connect(target, &resources()).await.err().unwrap();
    let HostError::UnknownHostKey { address, .. } = error else { panic!("{error}") };
    assert_eq!(address, format!("127.0.0.1:{}", bastion.port));
}

#[tokio::test]
async fn forty_connections_at_once_pass_a_stock_sshd() {
    let sshd = Sshd::with("MaxStartups 10:30:100");
    let shared = resources();
    let target = sshd.target("root");
    let connections = (0..40).map(|_| connect(target.clone(), &shared));
    for connection in futures::future::join_all(connections).await {
        connection.unwrap();
    }
    // An sshd that drops nearly everybody is tried again until it lets one in.
    let sshd = Sshd::with("MaxStartups 2:50:4");
    let target = sshd.target("root");
    let connections = (0..8).map(|_| connect(target.clone(), &shared));
    for connection in futures::future::join_all(connections).await {
        connection.unwrap();
    }
}
