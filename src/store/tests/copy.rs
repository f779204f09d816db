//! The sealed copy and what is rebuilt from it.

use super::support::Home;
use super::support::NEEDLE;
use super::support::NOW;
use super::support::begin;
use super::support::holder;
use super::support::id;
use super::support::secrets;
use super::support::whole;
use crate::model::Content;
use crate::model::RevisionState;
use crate::store::FolderLock;
use crate::store::Identity;
use crate::store::Recipients;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Trust;
use crate::store::head;
use crate::store::recover;
use crate::store::restore_identity;
use crate::store::sealed_to;
use crate::store::secrets_of;

fn recovered(home: &Home, copy: &Content) -> Result<(Store, FolderLock), StoreError> {
    recover(copy, home.identity(), Recipients::default(), &home.folder(), &holder("anna"))
}

#[test]
fn a_lost_folder_is_rebuilt_and_goes_on() {
    let home = Home::new();
    let store = home.with_history();
    let history = store.history();
    let copy = store.sealed_copy().unwrap();
    eprintln!("sealed copy: {} bytes", copy.len());
    std::fs::remove_dir_all(home.folder()).unwrap();

    let (mut store, lock) = recovered(&home, &copy).unwrap();
    assert_eq!(store.history(), history);
    store.finish(&lock, &id(2), RevisionState::Reached, NOW).unwrap();
    begin(&mut store, &lock, 3).unwrap();
    drop((store, lock));
    let store = home.open().unwrap();
    assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
    assert_eq!(store.load(&id(2)).unwrap(), whole(2, RevisionState::Reached));
    assert_eq!(store.load(&id(3)).unwrap(), whole(3, RevisionState::Started));
}

#[test]
fn a_copy_holds_the_newest_reached_and_the_newest_revision_and_the_whole_history() {
    let home = Home::new();
    let mut store = home.with_history();
    let lock = store.lock(&holder("anna")).unwrap();
    for number in [2, 3, 4] {
        store.finish(&lock, &id(number), RevisionState::Reached, NOW).unwrap();
        begin(&mut store, &lock, number + 1).unwrap();
    }
    let copy = store.sealed_copy().unwrap();
    assert_eq!(head(&copy).unwrap().revision, Some(id(5)));
    drop(lock);
    std::fs::remove_dir_all(home.folder()).unwrap();
    let (store, _lock) = recovered(&home, &copy).unwrap();
    assert_eq!(store.history().len(), 5);
    assert_eq!(store.load(&id(3)).unwrap_err(), StoreError::NotKept { revision: id(3) });
    assert_eq!(store.load(&id(4)).unwrap(), whole(4, RevisionState::Reached));
    assert_eq!(store.load(&id(5)).unwrap(), whole(5, RevisionState::Started));
}

#[test]
fn an_empty_history_has_a_copy_too() {
    let home = Home::new();
    let (store, lock) = home.create();
    let copy = store.sealed_copy().unwrap();
    drop(lock);
    std::fs::remove_dir_all(home.folder()).unwrap();
    assert_eq!(recovered(&home, &copy).unwrap().0.history(), []);
}

#[test]
fn an_older_folder_is_brought_forward_and_keeps_its_own_past() {
    let home = Home::new();
    let (mut store, lock) = home.create();
    begin(&mut store, &lock, 1).unwrap();
    store.finish(&lock, &id(1), RevisionState::Reached, NOW).unwrap();
    let manifest = std::fs::read(home.folder().join("manifest")).unwrap();
    for number in [2, 3] {
        begin(&mut store, &lock, number).unwrap();
        store.finish(&lock, &id(number), RevisionState::Reached, NOW).unwrap();
    }
    let copy = store.sealed_copy().unwrap();
    drop(lock);
    std::fs::write(home.folder().join("manifest"), manifest).unwrap();

    let (store, _lock) = recovered(&home, &copy).unwrap();
    assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
    assert_eq!(store.load(&id(2)).unwrap_err(), StoreError::NotKept { revision: id(2) });
    assert_eq!(store.load(&id(3)).unwrap(), whole(3, RevisionState::Reached));
}

#[test]
fn a_folder_that_knows_more_than_the_copy_is_left_alone() {
    let home = Home::new();
    let (mut store, lock) = home.create();
    begin(&mut store, &lock, 1).unwrap();
    let copy = store.sealed_copy().unwrap();
    store.finish(&lock, &id(1), RevisionState::Reached, NOW).unwrap();
    drop(lock);
    // The same revision, ended since: what the folder knows stays.
    assert_eq!(recovered(&home, &copy).unwrap().0.reached().unwrap().id, id(1));

    let lock = store.lock(&holder("anna")).unwrap();
    begin(&mut store, &lock, 2).unwrap();
    drop(lock);
    let before = std::fs::read(home.folder().join("manifest")).unwrap();
    assert_eq!(recovered(&home, &copy).unwrap_err(), StoreError::CopyOlder { folder: home.folder(), revision: id(2) });
    assert_eq!(std::fs::read(home.folder().join("manifest")).unwrap(), before);
}

#[test]
fn a_damaged_folder_is_rebuilt_in_place() {
    let home = Home::new();
    let copy = home.with_history().sealed_copy().unwrap();
    std::fs::write(home.folder().join("manifest"), b"rubbish").unwrap();
    for entry in std::fs::read_dir(home.folder().join("sealed")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"rubbish").unwrap();
    }
    let (store, _lock) = recovered(&home, &copy).unwrap();
    assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
}

#[test]
fn a_copy_is_unreadable_without_the_identity_and_its_damage_is_found() {
    let home = Home::new();
    let store = home.with_history();
    let copy = store.sealed_copy().unwrap();
    let bytes = copy.expose();
    assert!(!bytes.windows(NEEDLE.len()).any(|part| part == NEEDLE.as_bytes()));
    std::fs::remove_dir_all(home.folder()).unwrap();
    for at in (0..bytes.len()).filter(|at| *at < 600 || at % 97 == 0) {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x20;
        assert!(recovered(&home, &Content::new(bad)).is_err(), "a flip at {at}");
        assert!(recovered(&home, &Content::new(&bytes[..at])).is_err(), "a cut at {at}");
    }
    assert!(!home.folder().exists());
    let stranger = Identity::generate(&crate::model::ClusterId("other".to_owned())).unwrap();
    let refused = recover(&copy, stranger, Recipients::default(), &home.folder(), &holder("anna")).unwrap_err();
    assert!(matches!(refused, StoreError::ForeignSignature { .. }));
}

#[test]
fn a_document_of_one_kind_is_not_taken_for_another() {
    let home = Home::new();
    let store = home.with_history();
    let plan = Content::new("a plan");
    let document = store.seal("plan", &plan).unwrap();
    assert_eq!(store.unseal("plan", &document).unwrap(), plan);
    assert_eq!(
        store.unseal("copy", &document).unwrap_err(),
        StoreError::NotSigned { what: "the sealed copy".to_owned() }
    );
    assert_eq!(
        store.unseal("plan", &store.sealed_copy().unwrap()).unwrap_err(),
        StoreError::NotSigned { what: "the sealed plan".to_owned() }
    );
}

#[test]
fn a_recipient_gets_the_identity_back_from_a_copy() {
    use age::secrecy::ExposeSecret as _;
    let home = Home::new();
    home.with_history();
    let key = age::x25519::Identity::generate();
    let secret = Content::new(format!("# mine\n{}\n", key.to_string().expose_secret()));
    let recipients = Recipients::parse(&[key.to_public().to_string()]).unwrap();
    let store = Store::open(&home.folder(), home.identity(), recipients).unwrap();
    let copy = store.sealed_copy().unwrap();
    let signer = store.identity().signer();

    let back = restore_identity(&copy, &secret, &Trust::Signer(signer.clone()), None).unwrap();
    assert_eq!((back.signer(), back.recipient()), (signer, store.identity().recipient()));
    assert!(restore_identity(&copy, &secret, &Trust::OnFirstUse, None).is_ok());
    assert!(matches!(
        restore_identity(&copy, &secret, &Trust::Signer("other".to_owned()), None),
        Err(StoreError::ForeignSignature { .. })
    ));
    let stranger = Content::new(age::x25519::Identity::generate().to_string().expose_secret());
    assert!(matches!(
        restore_identity(&copy, &stranger, &Trust::OnFirstUse, None),
        Err(StoreError::WrongIdentity { .. })
    ));
    std::fs::remove_dir_all(home.folder()).unwrap();
    let (store, _lock) = recover(&copy, back, Recipients::default(), &home.folder(), &holder("anna")).unwrap();
    assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
}

#[test]
fn an_export_holds_the_contents_of_every_revision_and_the_journal() {
    let home = Home::new();
    let mut store = home.with_history();
    let lock = store.lock(&holder("anna")).unwrap();
    store.finish(&lock, &id(2), RevisionState::Reached, NOW).unwrap();
    begin(&mut store, &lock, 3).unwrap();
    store.finish(&lock, &id(3), RevisionState::Reached, NOW).unwrap();
    drop(lock);
    std::fs::write(home.folder().join("journal.jsonl"), "{\"a line\": 1}\n").unwrap();
    let (copy, export) = (store.sealed_copy().unwrap(), store.export().unwrap());
    assert!(!export.expose().windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()), "it lies in clear");
    for (document, oldest) in [(copy, false), (export, true)] {
        std::fs::remove_dir_all(home.folder()).unwrap();
        let recovered = recover(&document, home.identity(), Recipients::default(), &home.folder(), &holder("anna"));
        let (store, _lock) = recovered.unwrap();
        assert_eq!(store.load(&id(3)).unwrap(), whole(3, RevisionState::Reached));
        assert_eq!(store.load(&id(1)).is_ok_and(|loaded| loaded == whole(1, RevisionState::Reached)), oldest);
        assert_eq!(home.folder().join("journal.jsonl").exists(), oldest);
        assert!(store.examine().unwrap().is_well());
    }
}

#[test]
fn the_secrets_of_a_copys_revisions_are_those_that_went_in() {
    let home = Home::new();
    let copy = home.with_history().sealed_copy().unwrap();
    assert_eq!(secrets_of(&copy, &home.identity()).unwrap(), [secrets(1), secrets(2)]);
    let other = crate::store::Identity::generate(&super::support::cluster_id()).unwrap();
    assert!(secrets_of(&copy, &other).is_err());
}

#[test]
fn a_copy_tells_a_host_whom_it_is_sealed_to_and_only_where_the_right_one_signed_it() {
    let home = Home::new();
    let store = home.with_history();
    let (copy, signer) = (store.sealed_copy().unwrap(), store.identity().signer());
    let (head, recipients) = sealed_to(&copy, &signer).unwrap();
    assert_eq!(head.cluster, *store.cluster());
    assert_eq!(recipients.texts(), [store.identity().recipient()]);
    let other = Identity::generate(store.cluster()).unwrap();
    assert!(matches!(sealed_to(&copy, &other.signer()), Err(StoreError::ForeignSignature { .. })));
}

#[test]
fn a_host_seals_to_whom_no_plugin_is_needed() {
    let own = Identity::generate(&super::support::cluster_id()).unwrap().recipient();
    let both = Recipients::parse(&[own.clone(), "age1drawer1vfshxarfv3jskuu2vv".to_owned()]).unwrap();
    assert!(matches!(both.sealing(Vec::new()), Err(StoreError::PluginMissing { .. })));
    let here = both.without_plugins();
    assert_eq!(here.texts(), [own]);
    assert!(here.sealing(Vec::new()).is_ok());
}
