//! The identity's file.

use std::os::unix::fs::PermissionsExt as _;

use super::support::cluster_id;
use crate::model::ClusterId;
use crate::model::Content;
use crate::store::Identity;
use crate::store::Protection;
use crate::store::StoreError;
use crate::store::identity_path;

fn protected() -> Protection {
    Protection { passphrase: Some(Content::new("correct horse")), work_factor: Some(2) }
}

#[test]
fn an_identity_is_the_same_after_a_trip_over_the_disk() {
    for protection in [Protection::default(), protected()] {
        let folder = tempfile::tempdir().unwrap();
        let made = Identity::generate(&cluster_id()).unwrap();
        let path = made.save(folder.path(), &protection).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let mut asked = 0;
        let read = Identity::load(folder.path(), &cluster_id(), &mut |_| {
            asked += 1;
            Some(Content::new("correct horse"))
        })
        .unwrap();
        assert_eq!((read.signer(), read.recipient()), (made.signer(), made.recipient()));
        assert_eq!(asked, usize::from(protection.passphrase.is_some()));
        assert_eq!(made.save(folder.path(), &protection).unwrap_err(), StoreError::IdentityExists { path });
    }
}

#[test]
fn a_protected_identity_shows_nothing_and_needs_its_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let path = Identity::generate(&cluster_id()).unwrap().save(folder.path(), &protected()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !text.contains("SECRET"));
    let load = |given: Option<&str>| {
        Identity::load(folder.path(), &cluster_id(), &mut |_| given.map(Content::new)).unwrap_err()
    };
    assert_eq!(load(Some("wrong")), StoreError::PassphraseWrong { path: path.clone() });
    assert_eq!(load(None), StoreError::PassphraseMissing { path });
}

#[test]
fn a_missing_a_foreign_and_a_damaged_identity_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = identity_path(folder.path(), &cluster_id());
    let load = || Identity::load(folder.path(), &cluster_id(), &mut |_| None).map(|identity| identity.signer());
    assert_eq!(load(), Err(StoreError::IdentityMissing { path: path.clone() }));

    let other = ClusterId("other".to_owned());
    let stranger = Identity::generate(&other).unwrap().save(folder.path(), &Protection::default()).unwrap();
    std::fs::rename(stranger, &path).unwrap();
    assert_eq!(
        load(),
        Err(StoreError::ForeignCluster { what: path.display().to_string(), expected: cluster_id(), found: other })
    );

    std::fs::remove_file(&path).unwrap();
    let made = Identity::generate(&cluster_id()).unwrap();
    made.save(folder.path(), &Protection::default()).unwrap();
    let good = std::fs::read(&path).unwrap();
    let first = good.windows(2).position(|pair| pair == b"\n#").unwrap();
    for at in first..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        // A flip either shows or, in spaces around what is read, changes nothing.
        assert!(load().is_err() || load() == Ok(made.signer()), "a flip at {at}");
        // Only the last line end is not missed.
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(load().is_err() || at + 1 == good.len(), "a cut at {at}");
    }
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", Identity::generate(&cluster_id()).unwrap());
    assert_eq!(shown, format!("Identity {{ cluster: {:?}, .. }}", cluster_id()));
}
