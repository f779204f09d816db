//! API servers in memory, of a real authority, that say that they are ready and then nothing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use super::API_PORT;
use super::Doors;
use super::Keys;
use super::Trouble;
use crate::apply::Cluster as _;
use crate::apply::Health;
use crate::config::KeyAlgorithm;
use crate::host::fake::FakeHost;
use crate::host::fake::Server;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::ops::OpsError;
use crate::ops::prepare;
use crate::plan::testing::Builder;
use crate::render::tests::support;
use crate::secrets;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Operator;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;

/// What the API servers were asked, in order: `h1 ready`, `h1`.
type Asked = Arc<Mutex<Vec<String>>>;

/// Says that it is ready to whoever asks for that, and listens to everybody else without a word.
fn ready_and_silent(name: &HostName, secrets: &Secrets, asked: &Asked) -> Server {
    let leaf = &secrets.leaves[&LeafId::of(LeafName::ApiServer, name)];
    let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.expose()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let (acceptor, name, asked) = (TlsAcceptor::from(Arc::new(config)), name.to_string(), Arc::clone(asked));
    Server(Arc::new(move |stream| {
        drop(tokio::spawn(answer(acceptor.clone(), stream, name.clone(), Arc::clone(&asked))));
    }))
}

async fn answer(acceptor: TlsAcceptor, stream: DuplexStream, name: String, asked: Asked) {
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut begin = [0; 11];
    stream.read_exact(&mut begin).await.unwrap();
    if &begin == b"GET /readyz" {
        asked.lock().unwrap().push(format!("{name} ready"));
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").await.unwrap();
        stream.shutdown().await.unwrap();
    } else {
        asked.lock().unwrap().push(name);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

fn doors(asked: &Asked) -> (Doors<FakeHost>, Desired) {
    let cluster = support::cluster(support::THREE_HOSTS);
    let now = prepare::now();
    let mut entropy = SeededEntropy::new(1);
    let (secrets, _) = secrets::complete(&cluster, None, now, &mut entropy).unwrap();
    let operator =
        secrets::operator_leaf(&secrets, Operator::SuperAdmin, KeyAlgorithm::P256, now, &mut entropy).unwrap();
    let sample = Builder::new(&[("h1", "cew"), ("h2", "cew"), ("h3", "cew")]).build();
    let mut desired = sample.desired;
    let mut hosts = BTreeMap::new();
    for node in &cluster.nodes {
        desired.hosts.get_mut(&node.name).unwrap().internal_address = node.internal_address;
        let host = FakeHost::new(node.name.as_str());
        // Nothing listens on the third.
        if node.name.as_str() != "h3" {
            host.state().servers.insert(API_PORT, ready_and_silent(&node.name, &secrets, asked));
        }
        hosts.insert(node.name.clone(), Arc::new(host));
    }
    let keys = Keys { secrets: &secrets, operator: &operator, direct: false, deadlines: cluster.options.deadlines };
    let mut doors = Doors::new(hosts, &desired, Arc::new(sample.blobs), BTreeMap::new(), &keys);
    doors.patience.request = Duration::from_millis(300);
    (doors, desired)
}

#[tokio::test]
async fn an_api_server_that_falls_silent_after_it_was_ready_counts_as_none_and_the_others_are_asked() {
    let asked = Asked::default();
    let (doors, desired) = doors(&asked);
    assert_eq!(doors.observe(&desired).await.unwrap(), None);
    let mut seen = asked.lock().unwrap().clone();
    seen.dedup();
    assert_eq!(seen, ["h1 ready", "h1", "h2 ready", "h2"]);
    assert!(doors.api.lock().await.is_none(), "a silent one is kept for the next question");
}

#[tokio::test]
async fn whoever_could_not_ask_names_the_host_once() {
    let (doors, _) = doors(&Asked::default());
    let h3 = HostName::new("h3").unwrap();
    assert_eq!(doors.kubelet(&h3).await, Err(Trouble::Silent("nothing answers at 127.0.0.1:10248".to_owned())));
    let (_, etcd) = doors.etcd_members().find(|(name, _)| **name == h3).unwrap();
    let shown = |error| OpsError::etcd(&h3)(error).to_string();
    let at = format!("nothing answers at {}:2379", etcd.address);
    assert_eq!(shown(etcd.status().await.unwrap_err()), format!("h3: etcd: {at}"));
    let broken = shown(etcd.snapshot().await.err().unwrap());
    assert!(broken.ends_with(&at) && broken.matches("h3").count() == 1, "{broken}");
}

#[tokio::test]
async fn a_balancer_is_well_where_it_leads_to_an_api_server_of_this_cluster() {
    let asked = Asked::default();
    let (doors, _) = doors(&asked);
    let gate = |host: &str| Gate::Balancer { host: HostName::new(host).unwrap() };
    assert_eq!(doors.gate(&gate("h1")).await, Ok(Health::Well));
    assert_eq!(*asked.lock().unwrap(), ["h1 ready"]);
    assert!(doors.gate(&gate("h3")).await.is_err(), "nothing listens there");
}
