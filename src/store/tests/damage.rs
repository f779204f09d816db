//! Changed and cut files.

use std::path::Path;

use super::support::Home;
use super::support::NOW;
use super::support::begin;
use super::support::files;
use super::support::holder;
use super::support::id;
use super::support::whole;
use crate::model::RevisionState;
use crate::store::Backup;
use crate::store::Identity;
use crate::store::Protection;
use crate::store::Recipients;
use crate::store::Store;
use crate::store::StoreError;

/// Opens the folder and loads both revisions.
fn used(home: &Home) -> Result<(), StoreError> {
    let store = home.open()?;
    store.load(&id(1))?;
    store.load(&id(2))?;
    Ok(())
}

fn offsets(length: usize) -> impl Iterator<Item = usize> {
    let stride = (length / 120).max(1);
    (0..length).filter(move |at| *at < 160 || at + 40 > length || at % stride == 0)
}

fn must_be_refused(home: &Home, path: &Path, what: &str) {
    let error = used(home).expect_err(what);
    let acceptable = matches!(
        error,
        StoreError::Damaged { .. } | StoreError::NotSigned { .. } | StoreError::ForeignSignature { .. }
    );
    assert!(acceptable, "{what} of {}: {error:?}", path.display());
    assert!(error.to_string().contains("bastide state recover"), "{what}: {error}");
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let home = Home::new();
    home.with_history();
    used(&home).unwrap();
    let mut tried = 0;
    for path in files(&home.folder()).into_iter().filter(|path| !path.ends_with("lock")) {
        let good = std::fs::read(&path).unwrap();
        for at in offsets(good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bad).unwrap();
            must_be_refused(&home, &path, &format!("a flip at {at}"));
            tried += 1;
        }
        std::fs::write(&path, &good).unwrap();
        used(&home).unwrap();
    }
    assert!(tried > 800, "{tried}");
}

#[test]
fn a_cut_a_longer_and_a_missing_file_are_found() {
    let home = Home::new();
    home.with_history();
    for path in files(&home.folder()).into_iter().filter(|path| !path.ends_with("lock")) {
        let good = std::fs::read(&path).unwrap();
        for length in offsets(good.len()) {
            std::fs::write(&path, &good[..length]).unwrap();
            must_be_refused(&home, &path, &format!("a cut at {length}"));
        }
        std::fs::write(&path, [&good, b"\n".as_slice()].concat()).unwrap();
        must_be_refused(&home, &path, "a byte more");
        std::fs::remove_file(&path).unwrap();
        must_be_refused(&home, &path, "loss");
        std::fs::write(&path, &good).unwrap();
    }
    used(&home).unwrap();
}

#[test]
fn damage_names_the_revisions_that_are_lost_and_leaves_the_others_readable() {
    let home = Home::new();
    home.with_history();
    let store = home.open().unwrap();
    let second = store.manifest.entries[1].packs.last().unwrap().clone();
    let path = store.pack_path(&second);
    std::fs::write(&path, b"x").unwrap();
    assert_eq!(store.load(&id(1)).unwrap(), whole(1, RevisionState::Reached));
    assert_eq!(
        store.load(&id(2)).unwrap_err(),
        StoreError::Damaged {
            path,
            what: "its bytes are not the ones that were written".to_owned(),
            lost: "keys, certificates and rendered files of revision 2".to_owned(),
        }
    );
}

#[test]
fn a_well_formed_forgery_sealed_to_the_right_recipient_is_refused() {
    let home = Home::new();
    home.with_history();
    let real = home.identity();
    // The forger knows the cluster's id and its public recipient, and signs with a key of their own.
    let forger = tempfile::tempdir().unwrap();
    let identity = Identity::generate(real.cluster()).unwrap();
    let recipients = Recipients::parse(&[real.recipient()]).unwrap();
    let folder = forger.path().join("demo.bastide");
    let (mut store, lock) =
        Store::create(&folder, "demo", identity, recipients, Backup::None, NOW, &holder("forger")).unwrap();
    begin(&mut store, &lock, 1).unwrap();
    let signer = store.identity().signer();
    let copy = store.sealed_copy().unwrap();
    drop(lock);

    let refused = Store::open(&folder, home.identity(), Recipients::default()).unwrap_err();
    assert_eq!(
        refused,
        StoreError::ForeignSignature { what: folder.join("manifest").display().to_string(), signer: signer.clone() }
    );
    let rebuilt = forger.path().join("rebuilt");
    let refused =
        crate::store::recover(&copy, home.identity(), Recipients::default(), &rebuilt, &holder("anna")).unwrap_err();
    assert_eq!(refused, StoreError::ForeignSignature { what: "the sealed copy".to_owned(), signer });
    assert!(!rebuilt.exists());
}

#[test]
fn an_unsigned_manifest_is_refused() {
    let home = Home::new();
    home.with_history();
    let path = home.folder().join("manifest");
    let text = std::fs::read_to_string(&path).unwrap();
    let body = text.split_once('\n').unwrap().1;
    std::fs::write(&path, body).unwrap();
    assert_eq!(home.open().unwrap_err(), StoreError::NotSigned { what: path.display().to_string() });
}

#[test]
fn contents_sealed_to_somebody_else_are_told_from_damage() {
    let home = Home::new();
    let store = home.with_history();
    // The same signer with another opening key: what a hand-made identity file would be.
    let text = std::fs::read_to_string(crate::store::identity_path(&home.identities(), store.cluster())).unwrap();
    let other = tempfile::tempdir().unwrap();
    let stranger = Identity::generate(store.cluster()).unwrap();
    let path = stranger.save(other.path(), &Protection::default()).unwrap();
    let opening = std::fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
    let mixed: Vec<_> =
        text.lines().map(|line| if line.starts_with("AGE-SECRET") { opening.as_str() } else { line }).collect();
    std::fs::write(&path, mixed.join("\n")).unwrap();
    let identity = Identity::load_file(&path, &mut |_| None).unwrap();
    let store = Store::open(&home.folder(), identity, Recipients::default()).unwrap();
    assert!(matches!(store.load(&id(1)).unwrap_err(), StoreError::WrongIdentity { .. }));
}

#[test]
fn a_newer_layout_is_not_guessed_at() {
    let home = Home::new();
    let store = home.with_history();
    let mut newer = store.manifest.clone();
    newer.schema = 2;
    let path = home.folder().join("manifest");
    std::fs::write(&path, newer.sign(&home.identity()).unwrap()).unwrap();
    assert_eq!(home.open().unwrap_err(), StoreError::TooNew { what: path.display().to_string(), schema: 2 });
}
