//! What is dropped, and that the rest stays whole.

use super::support::Home;
use super::support::NOW;
use super::support::begin;
use super::support::files;
use super::support::id;
use super::support::whole;
use crate::model::RevisionState;
use crate::store::StoreError;

#[test]
fn the_newest_revisions_stay_whole_and_the_others_take_no_room() {
    let home = Home::new();
    let (mut store, lock) = home.create();
    for number in 1..=20 {
        begin(&mut store, &lock, number).unwrap();
        let state = if number == 19 { RevisionState::Failed } else { RevisionState::Reached };
        store.finish(&lock, &id(number), state, NOW).unwrap();
    }
    // A death before a manifest named it left this one.
    std::fs::write(home.folder().join("sealed").join("0000.age"), b"left over").unwrap();
    let before = files(&home.folder()).len();
    let pruned = store.prune(&lock, 2).unwrap();
    assert_eq!(pruned.dropped, (1..=17).map(id).collect::<Vec<_>>());
    assert!(pruned.freed > 0);
    drop(lock);

    let store = home.open().unwrap();
    assert_eq!(store.history().len(), 20);
    assert!(matches!(store.load(&id(17)), Err(StoreError::NotKept { .. })));
    assert!(!store.keeps(&id(17)) && store.keeps(&id(18)));
    assert_eq!(store.load(&id(18)).unwrap(), whole(18, RevisionState::Reached));
    assert_eq!(store.load(&id(19)).unwrap(), whole(19, RevisionState::Failed));
    assert_eq!(store.load(&id(20)).unwrap(), whole(20, RevisionState::Reached));
    let after = files(&home.folder());
    assert!(after.len() < before && !after.iter().any(|path| path.ends_with("0000.age")), "{after:?}");
    store.sealed_copy().unwrap();
}

#[test]
fn pruning_twice_changes_nothing_and_a_new_revision_builds_upon_what_stayed() {
    let home = Home::new();
    let (mut store, lock) = home.create();
    for number in 1..=3 {
        begin(&mut store, &lock, number).unwrap();
        store.finish(&lock, &id(number), RevisionState::Reached, NOW).unwrap();
    }
    store.prune(&lock, 1).unwrap();
    let kept = files(&home.folder());
    let again = store.prune(&lock, 1).unwrap();
    assert!(again.dropped.is_empty());
    assert_eq!(files(&home.folder()), kept);
    begin(&mut store, &lock, 4).unwrap();
    assert_eq!(store.load(&id(3)).unwrap(), whole(3, RevisionState::Reached));
    assert_eq!(store.load(&id(4)).unwrap(), whole(4, RevisionState::Started));
}
