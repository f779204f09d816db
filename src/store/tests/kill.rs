//! Death at every write.

use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::support::Home;
use super::support::NOW;
use super::support::begin;
use super::support::cluster_id;
use super::support::files;
use super::support::holder;
use super::support::id;
use super::support::whole;
use crate::model::RevisionState;
use crate::store::Backup;
use crate::store::FolderLock;
use crate::store::Identity;
use crate::store::Protection;
use crate::store::Recipients;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::disk::OPERATIONS_LEFT;
use crate::store::recover;

/// Runs `work`, which may do so many operations before it counts as killed.
fn dying<T>(operations: usize, work: impl FnOnce() -> T) -> T {
    OPERATIONS_LEFT.set(Some(operations));
    let outcome = work();
    OPERATIONS_LEFT.set(None);
    outcome
}

/// Dies in `work` after 0, 1, 2… operations until it gets through, and looks at the folder each time. Returns how many
/// deaths there were.
fn die_everywhere(
    work: impl Fn(&mut Store, &FolderLock) -> Result<(), StoreError>,
    old: impl Fn(&Store) -> bool,
    new: impl Fn(&Store) -> bool,
) -> usize {
    for operations in 0..100 {
        let home = Home::new();
        let mut store = home.with_history();
        let lock = store.lock(&holder("anna")).unwrap();
        let outcome = dying(operations, || work(&mut store, &lock));
        drop((store, lock));

        let mut store = home.open().unwrap();
        assert!(old(&store) != new(&store), "after {operations} operations the state is in between");
        assert!(outcome.is_err() || new(&store), "what was promised after {operations} operations is not there");
        for revision in store.history() {
            store.load(&revision.id).unwrap();
        }
        // The next run goes on and removes what the dead one left.
        let lock = store.lock(&holder("anna")).unwrap();
        assert!(files(&home.folder()).iter().all(|path| !path.to_string_lossy().contains("/.new-")));
        work(&mut store, &lock).or_else(|error| if new(&store) { Ok(()) } else { Err(error) }).unwrap();
        assert!(new(&store));
        if outcome.is_ok() {
            return operations;
        }
    }
    panic!("the work never ended");
}

#[test]
fn a_death_while_beginning_leaves_the_old_or_the_new_history() {
    let deaths = die_everywhere(
        |store, lock| begin(store, lock, 3),
        |store| store.history().len() == 2,
        |store| store.load(&id(3)).is_ok_and(|loaded| loaded == whole(3, RevisionState::Started)),
    );
    // Two files: making, half of the bytes, all of them, synced, renamed.
    assert_eq!(deaths, 10);
}

#[test]
fn a_death_while_finishing_leaves_the_old_or_the_new_history() {
    let deaths = die_everywhere(
        |store, lock| store.finish(lock, &id(2), RevisionState::Reached, NOW),
        |store| store.newest().unwrap().state == RevisionState::Started,
        |store| store.newest().unwrap().state == RevisionState::Reached,
    );
    assert_eq!(deaths, 5);
}

#[test]
fn a_death_while_sealing_anew_leaves_everything_sealed_to_the_old_or_to_the_new_recipients() {
    let key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".to_owned();
    let others = || Recipients::parse(std::slice::from_ref(&key)).unwrap();
    let all = |store: &Store, recipients: &Recipients| {
        let mut packs = store.manifest.entries.iter().flat_map(|entry| &entry.packs);
        packs.all(|pack| pack.recipients == recipients.digest())
    };
    let deaths = die_everywhere(
        |store, lock| {
            let count = store.rekey(lock, others(), Backup::Recipients)?;
            assert_eq!(count, 2);
            assert!(store.examine()?.is_well(), "something is left of what was sealed before");
            Ok(())
        },
        |store| all(store, &Recipients::default()) && store.backup() == Backup::None,
        |store| all(store, &others()) && store.backup() == Backup::Recipients,
    );
    // Two sealed files and the manifest.
    assert_eq!(deaths, 15);
}

#[test]
fn a_death_while_creating_leaves_nothing_or_an_empty_history() {
    let create = |home: &Home| {
        let recipients = Recipients::default();
        Store::create(&home.folder(), "demo", home.identity(), recipients, Backup::None, NOW, &holder("anna"))
    };
    for operations in 0..100 {
        let home = Home::new();
        let done = dying(operations, || create(&home)).is_ok();
        match home.open() {
            Ok(store) => assert_eq!(store.history(), []),
            Err(error) => {
                assert_eq!(error, StoreError::NoState { folder: home.folder() });
                create(&home).unwrap();
            }
        }
        if done {
            assert!(operations > 8, "{operations}");
            return;
        }
    }
    panic!("the work never ended");
}

#[test]
fn a_death_while_recovering_can_be_recovered_from() {
    let lost = |home: &Home| {
        for file in files(&home.folder()) {
            std::fs::write(&file, b"rubbish").unwrap();
        }
    };
    let home = Home::new();
    let copy = home.with_history().sealed_copy().unwrap();
    let again = || recover(&copy, home.identity(), Recipients::default(), &home.folder(), &holder("anna"));
    for operations in 0..100 {
        lost(&home);
        let done = dying(operations, again).is_ok();
        match home.open() {
            Ok(store) => {
                assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
                assert_eq!(store.load(&id(2)).unwrap(), whole(2, RevisionState::Started));
            }
            Err(error) => assert!(matches!(error, StoreError::NotSigned { .. }), "{error}"),
        }
        assert_eq!(again().unwrap().0.load(&id(2)).unwrap(), whole(2, RevisionState::Started));
        if done {
            assert!(operations > 15, "{operations}");
            return;
        }
    }
    panic!("the work never ended");
}

#[test]
fn a_death_while_saving_the_identity_leaves_it_absent_or_whole() {
    for operations in 0..100 {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate(&cluster_id()).unwrap();
        let done = dying(operations, || identity.save(folder.path(), &Protection::default())).is_ok();
        match Identity::load(folder.path(), &cluster_id(), &mut |_| None) {
            Ok(read) => assert_eq!(read.signer(), identity.signer()),
            Err(error) => {
                assert!(matches!(error, StoreError::IdentityMissing { .. }), "{error}");
                identity.save(folder.path(), &Protection::default()).unwrap();
            }
        }
        if done {
            assert!(operations > 5, "{operations}");
            return;
        }
    }
    panic!("the work never ended");
}

/// Not a test: what [`a_killed_process_leaves_every_promised_revision`] kills.
#[test]
#[ignore = "runs as the victim of another test"]
fn victim() {
    let Some(folder) = std::env::var_os("BASTIDE_VICTIM") else { return };
    let identities = std::path::Path::new(&folder).join("config/identities");
    let identity = Identity::load(&identities, &cluster_id(), &mut |_| None).unwrap();
    let folder = std::path::Path::new(&folder).join("demo.bastide");
    let mut store = Store::open(&folder, identity, Recipients::default()).unwrap();
    let lock = store.lock(&holder("victim")).unwrap();
    let told = folder.with_extension("told");
    for number in store.newest().map_or(0, |newest| newest.id.number) + 1.. {
        begin(&mut store, &lock, number).unwrap();
        // In one step, or a death in the middle of the telling would look like a broken promise.
        let telling = folder.with_extension("telling");
        std::fs::write(&telling, number.to_string()).unwrap();
        std::fs::rename(&telling, &told).unwrap();
        store.finish(&lock, &id(number), RevisionState::Reached, NOW).unwrap();
    }
}

#[test]
fn a_killed_process_leaves_every_promised_revision() {
    let home = Home::new();
    home.create();
    let told_now = || {
        let told = std::fs::read_to_string(home.folder().with_extension("told")).unwrap_or_default();
        told.parse::<u32>().unwrap_or(0)
    };
    for pause in [0, 1, 3, 7, 15, 31] {
        let before = told_now();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::kill::victim", "--ignored"])
            .env("BASTIDE_VICTIM", home.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // However slow the machine is, it is at work when it dies.
        let started = Instant::now();
        while told_now() == before {
            assert!(started.elapsed() < Duration::from_mins(1), "the victim does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = home.open().unwrap();
        let told = told_now();
        let newest = store.newest().map_or(0, |newest| newest.id.number);
        assert!(newest >= told && newest <= told + 1, "{told} were promised, {newest} are there");
        if let Some(newest) = store.newest() {
            store.load(&newest.id).unwrap();
        }
    }
    assert!(home.open().unwrap().newest().is_some());
}
