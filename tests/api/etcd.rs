//! A member asked through its host, and its database streamed into a snapshot that etcd's own program restores.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastide::api::Claim;
use bastide::api::Credentials;
use bastide::api::MemberChange;
use bastide::api::etcd::Etcd;
use bastide::api::probe;
use bastide::host::Dial as _;
use bastide::model::ClusterId;
use bastide::model::Content;
use bastide::model::SnapshotName;
use bastide::snapshot::Facts;
use bastide::snapshot::Snapshot;
use bastide::snapshot::Writer;
use bastide::store::Identity;
use bastide::store::Recipients;

use crate::health::Here;
use crate::server::LOOPBACK;
use crate::server::Server;
use crate::server::foreign_authority;
use crate::server::host;
use crate::turn;

const WAIT: Duration = Duration::from_secs(20);
/// More than HTTP/2 lets the member send ahead, so that the stream has to wait for its reader.
const VALUES: usize = 80;
const VALUE: usize = 200_000;

async fn put(here: &Here, credentials: &Credentials, key: &str, value: &[u8]) {
    let tls = probe::Tls::verified(credentials).unwrap();
    let stream = here.dial("127.0.0.1", 2379).await.unwrap();
    let body = serde_json::json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) }).to_string();
    let answer = probe::https_post(stream, LOOPBACK, 2379, &tls, "/v3/kv/put", &body, WAIT).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_members_database_becomes_a_snapshot_that_etcd_restores() {
    let _turn = turn().await;
    let server = Server::get();
    let (here, credentials) = (Arc::new(Here(host())), server.etcd_credentials());
    let etcd = Etcd { host: &here, address: LOOPBACK, credentials: &credentials, deadline: WAIT };
    for number in 0..VALUES {
        let value: Vec<u8> = (0..VALUE).map(|at| (at * (number + 7) % 251).to_be_bytes()[7]).collect();
        put(&here, &credentials, &format!("/snapshot/{number}"), &value).await;
    }

    let status = etcd.status().await.unwrap();
    assert!(status.version.starts_with("3.") && status.leader == status.id && !status.learner, "{status:?}");
    assert!(status.size >= status.in_use && status.raft_index >= status.raft_applied, "{status:?}");
    assert!(etcd.metrics().await.unwrap().contains("etcd_disk_wal_fsync_duration_seconds_bucket"));
    assert_eq!(etcd.alarms().await.unwrap(), []);
    let (revision, keys) = etcd.count().await.unwrap();
    assert!(revision >= VALUES as u64 && keys >= VALUES as u64, "{revision}, {keys}");
    let hash = etcd.hash(revision).await.unwrap();
    assert_eq!(etcd.hash(revision).await.unwrap(), hash);
    let future = etcd.hash(revision + 1_000_000).await.unwrap_err().to_string();
    assert!(future.contains("future revision"), "{future}");

    let identity = Identity::generate(&ClusterId("a".to_owned())).unwrap();
    let recipients = Recipients::default().with(&identity).unwrap();
    let file = tempfile::tempfile().unwrap();
    let mut writer = Writer::begin(file, &Content::new("state"), &recipients).unwrap();
    let mut stream = etcd.snapshot().await.unwrap();
    while let Some(piece) = stream.next().await.unwrap() {
        writer.write_all(&piece).unwrap();
        tokio::task::yield_now().await;
    }
    let facts = Facts {
        cluster: identity.cluster().clone(),
        cluster_name: "test".to_owned(),
        name: SnapshotName::new("streamed").unwrap(),
        taken_at: 0,
        member: host(),
        why: "test".to_owned(),
        etcd_version: status.version,
        kubernetes: "v1.37.1".parse().unwrap(),
        revision: None,
        etcd_revision: revision,
        keys,
        hash: None,
    };
    let (manifest, file) = writer.finish(facts, &identity).unwrap();
    assert!(manifest.database.size > (VALUES * VALUE) as u64, "{manifest:?}");

    let folder = tempfile::tempdir().unwrap();
    let mut database = std::fs::File::create(folder.path().join("db")).unwrap();
    Snapshot::open(file, &identity, None).unwrap().database(&identity, &mut database).unwrap();
    let programs = bed::Cache::from_environment().folder().join("artifacts/etcd-3.7");
    let output = Command::new(programs.join("etcdutl"))
        .current_dir(folder.path())
        .args(["snapshot", "restore", "db", "--data-dir", "data"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("data/member/snap/db").exists());

    etcd.defragment().await.unwrap();
    assert_eq!(etcd.hash(revision).await.unwrap(), hash, "a defragmentation changed the data");
}

#[tokio::test]
async fn a_stream_that_breaks_off_and_a_stranger_are_errors() {
    let _turn = turn().await;
    let server = Server::get();
    let (here, credentials) = (Arc::new(Here(host())), server.etcd_credentials());
    let strangers = [
        Credentials { authorities: foreign_authority(), ..credentials.clone() },
        Credentials { authorities: credentials.authorities.clone(), ..server.credentials() },
    ];
    for stranger in strangers {
        let etcd = Etcd { host: &here, address: LOOPBACK, credentials: &stranger, deadline: WAIT };
        assert!(etcd.status().await.is_err());
        assert!(etcd.snapshot().await.is_err());
    }
}

#[tokio::test]
async fn of_two_who_claim_one_holds_until_it_gives_back_and_only_the_holder_writes() {
    let _turn = turn().await;
    let server = Server::get();
    let (here, credentials) = (Arc::new(Here(host())), server.etcd_credentials());
    let etcd = Etcd { host: &here, address: LOOPBACK, credentials: &credentials, deadline: WAIT };
    assert_eq!(etcd.get("/bastide/test/last").await.unwrap(), None);
    let first = etcd.claim("/bastide/test/claim", "h1 a", 60).await.unwrap();
    let Claim::Held { lease } = first else { panic!("{first:?}") };
    let second = etcd.claim("/bastide/test/claim", "h2 b", 60).await.unwrap();
    assert_eq!(second, Claim::Taken { by: "h1 a".to_owned() });
    assert!(!etcd.put_holding(("/bastide/test/claim", "h2 b"), "/bastide/test/last", b"two").await.unwrap());
    assert!(etcd.put_holding(("/bastide/test/claim", "h1 a"), "/bastide/test/last", b"one").await.unwrap());
    assert_eq!(etcd.get("/bastide/test/last").await.unwrap(), Some(b"one".to_vec()));
    etcd.give_back(&lease).await.unwrap();
    let third = etcd.claim("/bastide/test/claim", "h2 b", 60).await.unwrap();
    assert!(matches!(third, Claim::Held { .. }), "{third:?}");
    // What was written stays when the turn ends.
    assert_eq!(etcd.get("/bastide/test/last").await.unwrap(), Some(b"one".to_vec()));
}

#[tokio::test]
async fn a_learner_is_added_is_not_given_a_vote_before_it_has_caught_up_and_is_taken_out_again() {
    let _turn = turn().await;
    let server = Server::get();
    let (here, credentials) = (Arc::new(Here(host())), server.etcd_credentials());
    let etcd = Etcd { host: &here, address: LOOPBACK, credentials: &credentials, deadline: WAIT };
    let before = etcd.members().await.unwrap();
    assert_eq!((before.len(), &before[0].id), (1, &etcd.status().await.unwrap().id));
    let peer = "https://127.0.0.9:2380".to_owned();
    etcd.change_members(&MemberChange::AddLearner { peer: peer.clone() }).await.unwrap();
    let added = etcd.members().await.unwrap();
    let learner = added.iter().find(|member| member.peer_urls == [peer.clone()]).unwrap();
    assert!(learner.learner && learner.name.is_empty(), "{learner:?}");
    let id = learner.id.clone();
    let early = etcd.change_members(&MemberChange::Promote { id: id.clone() }).await.unwrap_err().to_string();
    assert!(early.contains("in sync with leader"), "{early}");
    etcd.change_members(&MemberChange::Remove { id: id.clone() }).await.unwrap();
    assert_eq!(etcd.members().await.unwrap(), before);
    let again = etcd.change_members(&MemberChange::Remove { id }).await.unwrap_err().to_string();
    assert!(again.contains("member not found"), "{again}");
}
