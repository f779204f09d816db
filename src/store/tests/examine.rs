//! `state check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::store::Contents;
use crate::store::tests::support::Home;

#[test]
fn a_folder_as_it_was_written_is_well() {
    let home = Home::new();
    let examined = home.with_history().examine().unwrap();
    assert!(examined.is_well(), "{examined:?}");
    assert_eq!(examined.revisions.len(), 2);
    assert!(examined.revisions.iter().all(|(_, contents)| *contents == Contents::Whole));
}

#[test]
fn a_file_that_others_may_read_or_that_belongs_to_nothing_is_named() {
    let home = Home::new();
    let store = home.with_history();
    let sealed = fs::read_dir(home.folder().join("sealed")).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o640)).unwrap();
    let stray = home.folder().join("sealed/stray.age");
    fs::write(&stray, b"x").unwrap();
    fs::set_permissions(&stray, fs::Permissions::from_mode(0o600)).unwrap();
    let examined = store.examine().unwrap();
    assert!(!examined.is_well());
    for path in [sealed, stray] {
        let path = path.display().to_string();
        assert!(examined.findings.iter().any(|finding| finding.starts_with(&path)), "{path}: {:?}", examined.findings);
    }
}

#[test]
fn a_flipped_byte_is_told_with_the_revisions_that_it_costs() {
    let home = Home::new();
    let store = home.with_history();
    let mut damaged = 0;
    for entry in fs::read_dir(home.folder().join("sealed")).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let examined = store.examine().unwrap();
        assert!(!examined.is_well());
        damaged += examined.revisions.iter().filter(|(_, contents)| matches!(contents, Contents::Damaged(_))).count();
        fs::write(&path, &whole).unwrap();
    }
    assert!(damaged >= 2, "{damaged}");
}
