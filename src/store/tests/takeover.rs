//! A history that begins with what was found.

use super::support::Home;
use super::support::NOW;
use super::support::blobs;
use super::support::desired;
use super::support::holder;
use super::support::id;
use super::support::revision;
use super::support::secrets;
use crate::model::Revision;
use crate::model::RevisionState;
use crate::store::StoreError;
use crate::store::set_aside;

fn reached(number: u32) -> Revision {
    Revision { state: RevisionState::Reached, ended: Some(NOW), ..revision(number) }
}

#[test]
fn what_was_found_is_the_newest_revision_and_the_older_ones_are_known_by_name() {
    let home = Home::new();
    let (mut store, lock) = home.create();
    let known = vec![Revision { parent: None, ..reached(6) }, reached(7)];
    assert!(matches!(
        store.found(&lock, known.clone(), &reached(7), &desired(), &blobs(7), &secrets(7)),
        Err(StoreError::History { .. })
    ));
    store.found(&lock, known, &reached(8), &desired(), &blobs(8), &secrets(8)).unwrap();
    drop(lock);
    let store = home.open().unwrap();
    assert_eq!(store.history().iter().map(|revision| revision.id.number).collect::<Vec<_>>(), [6, 7, 8]);
    assert_eq!(store.load(&id(8)).unwrap(), (reached(8), desired(), blobs(8), secrets(8)));
    assert!(matches!(store.load(&id(7)), Err(StoreError::NotKept { .. })));
    // Hosts get a copy of it as of any other.
    assert!(store.sealed_copy().is_ok());
}

#[test]
fn a_history_that_is_there_is_never_replaced() {
    let home = Home::new();
    let mut store = home.with_history();
    let lock = store.lock(&holder("anna@laptop")).unwrap();
    let found = store.found(&lock, Vec::new(), &reached(9), &desired(), &blobs(9), &secrets(9));
    assert!(matches!(found, Err(StoreError::Exists { .. })));
    assert_eq!(store.history().len(), 2);
}

#[test]
fn a_folder_that_nobody_opens_is_put_aside_and_not_removed() {
    let home = Home::new();
    assert_eq!(set_aside(&home.folder()).unwrap(), None);
    for number in 1..=2 {
        std::fs::create_dir(home.folder()).unwrap();
        std::fs::write(home.folder().join("manifest"), number.to_string()).unwrap();
        let aside = set_aside(&home.folder()).unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(aside.join("manifest")).unwrap(), number.to_string());
        assert!(!home.folder().exists());
    }
}
