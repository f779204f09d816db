//! The folder in daily use.

use std::os::unix::fs::PermissionsExt as _;

use super::support::Home;
use super::support::NEEDLE;
use super::support::NOW;
use super::support::begin;
use super::support::blobs;
use super::support::cluster_id;
use super::support::desired;
use super::support::files;
use super::support::holder;
use super::support::id;
use super::support::revision;
use super::support::secrets;
use super::support::whole;
use crate::model::ClusterId;
use crate::model::Desired;
use crate::model::HostRecord;
use crate::model::Revision;
use crate::model::RevisionState;
use crate::store::Backup;
use crate::store::Freshness;
use crate::store::Peek;
use crate::store::Recipients;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::compare;
use crate::store::discard;
use crate::store::folder_for;
use crate::store::peek;

#[test]
fn every_revision_can_be_loaded_again() {
    let home = Home::new();
    home.with_history();
    let store = home.open().unwrap();
    assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
    assert_eq!(store.load(&id(2)).unwrap(), whole(2, RevisionState::Started));
    assert_eq!(store.newest().unwrap().id, id(2));
    assert_eq!(store.reached().unwrap().id, id(1));
    assert_eq!(store.history().iter().map(|one| one.id.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((store.cluster(), store.name(), store.backup()), (&cluster_id(), "demo", Backup::None));
    assert_eq!(store.load(&id(3)).unwrap_err(), StoreError::UnknownRevision { revision: id(3) });
}

#[test]
fn a_long_history_stays_readable_and_shares_what_did_not_change() {
    let home = Home::new();
    let (mut store, lock) = home.create();
    for number in 1..=40 {
        begin(&mut store, &lock, number).unwrap();
        store.finish(&lock, &id(number), RevisionState::Reached, NOW).unwrap();
    }
    drop(lock);
    let store = home.open().unwrap();
    for number in 1..=40 {
        assert_eq!(store.load(&id(number)).unwrap(), whole(number, RevisionState::Reached));
    }
    let size: u64 = files(&home.folder().join("sealed")).iter().map(|path| path.metadata().unwrap().len()).sum();
    // The shared content takes about 11 kB sealed, the rest about 2 kB a revision; it is written three times, not forty.
    assert!(size < 40 * 4000 + 3 * 14_000, "{size}");
}

#[test]
fn nothing_secret_lies_in_clear_and_nothing_is_open_to_others() {
    let home = Home::new();
    home.with_history();
    for path in files(home.path()) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(NEEDLE.len()).any(|part| part == NEEDLE.as_bytes()), "{}", path.display());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600, "{}", path.display());
    }
    for folder in [home.folder(), home.folder().join("sealed"), home.identities()] {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, 0o700, "{}", folder.display());
    }
}

#[test]
fn history_only_grows() {
    let home = Home::new();
    let mut store = home.with_history();
    let lock = store.lock(&holder("anna")).unwrap();
    let refused = |store: &mut Store, revision: &Revision, desired: &Desired| match store
        .begin(&lock, revision, desired, &blobs(9), &secrets(9))
        .unwrap_err()
    {
        StoreError::History { why, .. } => why,
        other => panic!("{other}"),
    };
    let mut foreign = desired();
    foreign.cluster = ClusterId("other".to_owned());
    let ended = Revision { state: RevisionState::Reached, ..revision(3) };
    let orphan = Revision { parent: Some(id(7)), ..revision(3) };
    assert_eq!(refused(&mut store, &revision(2), &desired()), "its number is not above the newest one's");
    assert_eq!(refused(&mut store, &ended, &desired()), "a revision begins as started");
    assert_eq!(refused(&mut store, &orphan, &desired()), "its parent is not in the history");
    assert_eq!(refused(&mut store, &revision(3), &foreign), "its target is of another cluster");
    assert!(matches!(
        store.finish(&lock, &id(1), RevisionState::Failed, NOW),
        Err(StoreError::History { why: "it has already ended", .. })
    ));
    assert_eq!(
        store.finish(&lock, &id(3), RevisionState::Failed, NOW),
        Err(StoreError::UnknownRevision { revision: id(3) })
    );
    store.finish(&lock, &id(1), RevisionState::Reached, NOW).unwrap();
    store.finish(&lock, &id(2), RevisionState::ReachedExcept { hosts: vec!["w1".to_owned()] }, NOW).unwrap();
    assert_eq!(store.reached().unwrap().id, id(2));
    store.finish(&lock, &id(2), RevisionState::Reached, NOW).unwrap();
    assert_eq!(store.next_id().unwrap().number, 3);
    assert_ne!(store.next_id().unwrap().nonce, store.next_id().unwrap().nonce);
}

#[test]
fn a_folder_that_never_held_state_is_told_from_one_that_lost_it() {
    let home = Home::new();
    let nothing = StoreError::NoState { folder: home.folder() };
    assert_eq!(home.open().unwrap_err(), nothing);
    assert_eq!(peek(&home.folder()).unwrap_err(), nothing);
    home.with_history();
    assert_eq!(peek(&home.folder()), Ok(Peek { cluster: cluster_id(), name: "demo".to_owned() }));
    std::fs::remove_file(home.folder().join("manifest")).unwrap();
    for error in [home.open().unwrap_err(), peek(&home.folder()).unwrap_err()] {
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    let again = Store::create(
        &home.folder(),
        "demo",
        home.identity(),
        Recipients::default(),
        Backup::None,
        NOW,
        &holder("anna"),
    );
    assert!(matches!(again.unwrap_err(), StoreError::Damaged { .. }));
}

#[test]
fn a_second_creation_is_refused() {
    let home = Home::new();
    home.create();
    let again = Store::create(
        &home.folder(),
        "demo",
        home.identity(),
        Recipients::default(),
        Backup::None,
        NOW,
        &holder("anna"),
    );
    assert_eq!(again.unwrap_err(), StoreError::Exists { folder: home.folder() });
}

#[test]
fn a_second_process_is_told_who_is_at_work() {
    let home = Home::new();
    let (_first, lock) = home.create();
    let mut second = home.open().unwrap();
    let error = second.lock(&holder("bert@desk")).unwrap_err();
    assert_eq!(error, StoreError::Locked { folder: home.folder(), holder: Some(holder("anna@laptop")) });
    assert!(error.to_string().ends_with("is in use by anna@laptop (up, run 1f)"));
    drop(lock);
    second.lock(&holder("bert@desk")).unwrap();
}

#[test]
fn taking_the_lock_shows_what_another_process_wrote_meanwhile() {
    let home = Home::new();
    let (mut first, lock) = home.create();
    let mut second = home.open().unwrap();
    begin(&mut first, &lock, 1).unwrap();
    drop(lock);
    assert_eq!(second.newest(), None);
    let lock = second.lock(&holder("bert")).unwrap();
    assert_eq!(second.newest().unwrap().id, id(1));
    begin(&mut second, &lock, 2).unwrap();
}

#[test]
fn new_recipients_open_everything_that_is_written_from_then_on() {
    let home = Home::new();
    home.with_history();
    let other = age::x25519::Identity::generate();
    let recipients = Recipients::parse(&[other.to_public().to_string()]).unwrap();
    let mut store = Store::open(&home.folder(), home.identity(), recipients).unwrap();
    let before = files(&home.folder().join("sealed"));
    let lock = store.lock(&holder("anna")).unwrap();
    begin(&mut store, &lock, 3).unwrap();
    let added: Vec<_> =
        files(&home.folder().join("sealed")).into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(added.len(), 1);
    let bytes = std::fs::read(&added[0]).unwrap();
    assert!(age::decrypt(&other, &bytes).unwrap().len() > 10_000);
}

#[test]
fn a_recipient_is_age_or_ssh() {
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN anna";
    assert!(Recipients::parse(&[ssh.to_owned()]).is_ok());
    assert_eq!(
        Recipients::parse(&["age1nonsense".to_owned()]).unwrap_err(),
        StoreError::Recipient { recipient: "age1nonsense".to_owned() }
    );
}

#[test]
fn a_host_is_compared_by_revision_not_by_number() {
    let history: Vec<Revision> = (1..=3).map(revision).collect();
    let record = |cluster: &str, revision| HostRecord {
        schema: 1,
        cluster: ClusterId(cluster.to_owned()),
        cluster_name: "demo".to_owned(),
        revision,
        parent: None,
        complete: true,
        files: std::collections::BTreeMap::new(),
        directories: std::collections::BTreeSet::new(),
        units: std::collections::BTreeSet::new(),
        users: std::collections::BTreeSet::new(),
        images: std::collections::BTreeMap::new(),
    };
    let of = |cluster, revision| compare(&cluster_id(), &history, &record(cluster, revision));
    let own = &cluster_id().0;
    assert_eq!(of(own, id(3)), Freshness::Same);
    assert_eq!(of(own, id(1)), Freshness::HostOlder);
    assert_eq!(of(own, id(4)), Freshness::HostNewer);
    // Two copies of the folder were used in turn: the same number, another revision.
    let mut fork = id(2);
    fork.nonce = "f".repeat(16);
    assert_eq!(of(own, fork), Freshness::HostNewer);
    assert_eq!(of("other", id(3)), Freshness::Foreign);
    assert_eq!(compare(&cluster_id(), &[], &record(own, id(1))), Freshness::HostNewer);
}

#[test]
fn a_discarded_folder_is_gone_and_what_a_dead_run_left_of_one_too() {
    let home = Home::new();
    let mut store = home.with_history();
    let lock = store.lock(&holder("anna")).unwrap();
    let aside = home.path().join("demo.bastide.removed");
    std::fs::create_dir_all(aside.join("sealed")).unwrap();
    discard(store, lock).unwrap();
    assert!(!home.folder().exists() && !aside.exists());
    assert_eq!(peek(&home.folder()).unwrap_err(), StoreError::NoState { folder: home.folder() });
}

#[test]
fn the_folder_lies_beside_the_cluster_file() {
    assert_eq!(folder_for("a/prod.yml".as_ref()), std::path::Path::new("a/prod.bastide"));
}
