use super::*;
use crate::model::Action;
use crate::model::Batch;
use crate::model::ClusterId;
use crate::model::RevisionId;

#[tokio::test]
async fn a_machine_that_loses_power_keeps_what_was_written_before() {
    let host = FakeHost::new("h1");
    let holder = LockHolder { run: "r1".to_owned(), who: "me".to_owned(), command: "up".to_owned(), since: 1 };
    let lock = host.lock(&holder).await.unwrap();
    let mut blobs = Blobs::default();
    let digest = blobs.insert(Content::new("content"));
    let put = |path: &str| Action::PutFile {
        path: RemotePath::new(path).unwrap(),
        digest,
        size: 7,
        access: Access::root(0o600),
        replaces: None,
        foreign: false,
        secret: false,
    };
    let batch = Batch(vec![put("/etc/a"), put("/etc/b")]);
    let contents: Arc<dyn Contents> = Arc::new(blobs);
    let before = HostRecord {
        schema: 1,
        cluster: ClusterId("0".repeat(32)),
        cluster_name: "demo".to_owned(),
        revision: RevisionId { number: 1, nonce: "0".repeat(16) },
        parent: None,
        complete: false,
        files: BTreeMap::new(),
        directories: BTreeSet::new(),
        units: BTreeSet::new(),
        users: BTreeSet::new(),
        images: BTreeMap::new(),
    };
    host.state().fail_at = Some(3);
    let result = host.perform(work(&batch, &contents, (&before, &before), "r1")).await;
    assert!(matches!(result, Err(HostError::Lost { .. })), "{result:?}");
    assert_eq!(host.state().writes, ["record before", "file /etc/a"]);
    drop(lock);
    let result = host.perform(work(&batch, &contents, (&before, &before), "r1")).await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
}
