#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Cursor;
use std::io::Write as _;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::snapshot::Facts;
use crate::snapshot::Foreign;
use crate::snapshot::KeyHash;
use crate::snapshot::Manifest;
use crate::snapshot::Part;
use crate::snapshot::Snapshot;
use crate::snapshot::SnapshotError;
use crate::snapshot::Writer;
use crate::snapshot::manifest_of;
use crate::snapshot::manifest_signed_by;
use crate::snapshot::recognise;
use crate::snapshot::unverified_state;
use crate::store::Identity;
use crate::store::Recipients;
use crate::store::Signs;

const NEEDLE: &str = "s3cr3t-n33dl3";

fn identity(of: &str) -> Identity {
    Identity::generate(&ClusterId(of.to_owned())).unwrap()
}

fn name(text: &str) -> SnapshotName {
    SnapshotName::new(text).unwrap()
}

fn facts(identity: &Identity, called: &str) -> Facts {
    Facts {
        cluster: identity.cluster().clone(),
        cluster_name: "demo".to_owned(),
        name: name(called),
        taken_at: 1_767_225_600,
        member: HostName::new("h1").unwrap(),
        why: "save".to_owned(),
        etcd_version: "3.7.2".to_owned(),
        kubernetes: "v1.37.1".parse().unwrap(),
        revision: None,
        etcd_revision: 4711,
        keys: 42,
        hash: Some(KeyHash { hash: 7, revision: 4711, compact_revision: 4000 }),
    }
}

/// What etcd streams: pages, and their SHA-256.
fn stream(seed: u8, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = NEEDLE.bytes().chain([seed]).cycle().take(size / 2).collect();
    let mut block = Digest::of(&[seed]);
    while bytes.len() < size {
        bytes.extend_from_slice(&block.0);
        block = Digest::of(&block.0);
    }
    bytes.truncate(size);
    bytes.extend_from_slice(&Digest::of(&bytes).0);
    bytes
}

fn state() -> Content {
    Content::new("the sealed copy of the state, opaque here".repeat(20))
}

/// A whole snapshot, and the database that stands in it.
fn made(identity: &Identity, called: &str, seed: u8) -> (Vec<u8>, Vec<u8>) {
    signed(identity, facts(identity, called), seed, identity)
}

/// The same, signed by somebody else.
fn signed(identity: &Identity, facts: Facts, seed: u8, key: &dyn Signs) -> (Vec<u8>, Vec<u8>) {
    let recipients = Recipients::default().with(identity).unwrap();
    let database = stream(seed, 200_000);
    let mut writer = Writer::begin(Vec::new(), &state(), &recipients).unwrap();
    // In odd pieces, so that etcd's digest never comes as one.
    for piece in database.chunks(777) {
        writer.write_all(piece).unwrap();
    }
    let (_, file) = writer.finish(facts, key).unwrap();
    (file, database)
}

fn opened(file: &[u8], identity: &Identity, called: &str) -> Result<(Manifest, Content, Vec<u8>), SnapshotError> {
    let mut snapshot = Snapshot::open(Cursor::new(file), identity, Some(&name(called)))?;
    let state = snapshot.state()?;
    let mut database = Vec::new();
    snapshot.database(identity, &mut database)?;
    Ok((snapshot.manifest().clone(), state, database))
}

#[test]
fn what_went_in_comes_out() {
    let identity = identity("a");
    let (file, database) = made(&identity, "one", 1);
    let (manifest, kept, found) = opened(&file, &identity, "one").unwrap();
    assert!(found == database, "another database came out");
    assert_eq!(kept, state());
    assert_eq!((manifest.etcd_revision, manifest.keys, manifest.name.as_str()), (4711, 42, "one"));
    assert_eq!(manifest.database, Part { size: database.len() as u64, digest: Digest::of(&database) });
    assert!(file.len() < database.len(), "it was not compressed");
    assert!(!file.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()), "the database lies in clear");
    assert_eq!(manifest_of(&file[file.len() - 4000..], &identity, None).unwrap(), manifest);
    assert_eq!(unverified_state(&mut Cursor::new(&file)).unwrap(), state());
}

#[test]
fn every_flipped_bit_is_refused() {
    let identity = identity("a");
    let (mut file, _) = made(&identity, "one", 1);
    let step = file.len() / 190;
    let places = (0..file.len()).step_by(step).chain(file.len() - 40..file.len());
    for at in places {
        for bit in [1, 0x80] {
            file[at] ^= bit;
            assert!(opened(&file, &identity, "one").is_err(), "bit {bit:#x} of byte {at} was not noticed");
            file[at] ^= bit;
        }
    }
    assert!(opened(&file, &identity, "one").is_ok());
}

#[test]
fn a_file_that_was_cut_off_or_added_to_is_refused() {
    let identity = identity("a");
    let (file, _) = made(&identity, "one", 1);
    for length in (0..file.len()).step_by(file.len() / 97).chain([file.len() - 1]) {
        assert!(opened(&file[..length], &identity, "one").is_err(), "{length} bytes of it were taken for all");
    }
    for more in [&b"x"[..], b"bastide-snap-end"] {
        assert!(opened(&[&file, more].concat(), &identity, "one").is_err());
        assert!(opened(&[more, &file].concat(), &identity, "one").is_err());
    }
}

#[test]
fn parts_of_two_snapshots_do_not_make_one() {
    let identity = identity("a");
    let ((one, _), (two, _)) = (made(&identity, "one", 1), made(&identity, "one", 2));
    let end = |file: &[u8]| {
        let length: [u8; 8] = file[file.len() - 24..file.len() - 16].try_into().unwrap();
        file.len() - 24 - usize::try_from(u64::from_be_bytes(length)).unwrap()
    };
    let head = 27 + state().len();
    let mixed = [
        [&one[..end(&one)], &two[end(&two)..]].concat(),
        [&one[..head], &two[head..end(&two)], &one[end(&one)..]].concat(),
        // The state and the database change places.
        [&one[..27], &one[head..end(&one)], &one[27..head], &one[end(&one)..]].concat(),
    ];
    for file in mixed {
        assert!(opened(&file, &identity, "one").is_err());
    }
}

#[test]
fn an_old_one_under_a_new_name_is_refused() {
    let identity = identity("a");
    let (file, _) = made(&identity, "old", 1);
    assert!(matches!(opened(&file, &identity, "new"), Err(SnapshotError::OtherName { .. })));
}

#[test]
fn a_foreign_and_an_unsigned_one_are_refused() {
    let (ours, theirs) = (identity("a"), identity("b"));
    let (file, database) = made(&theirs, "one", 1);
    assert!(matches!(opened(&file, &ours, "one"), Err(SnapshotError::Unsigned { signer: Some(_) })));
    // Sealed to our public key and well-formed, by somebody who has not our signing key.
    let recipients = Recipients::default().with(&ours).unwrap();
    let mut writer = Writer::begin(Vec::new(), &state(), &recipients).unwrap();
    writer.write_all(&database).unwrap();
    let (_, forged) = writer.finish(facts(&ours, "one"), &theirs).unwrap();
    assert!(matches!(opened(&forged, &ours, "one"), Err(SnapshotError::Unsigned { signer: Some(_) })));
    // Ours by signature, another cluster's by its words.
    let mut writer = Writer::begin(Vec::new(), &state(), &recipients).unwrap();
    writer.write_all(&database).unwrap();
    let (_, foreign) = writer.finish(facts(&theirs, "one"), &ours).unwrap();
    assert!(matches!(opened(&foreign, &ours, "one"), Err(SnapshotError::ForeignCluster { .. })));
    assert!(matches!(opened(&database, &ours, "one"), Err(SnapshotError::NotOurs)));
    assert!(matches!(opened(b"", &ours, "one"), Err(SnapshotError::NotOurs)));
}

#[test]
fn a_stream_that_etcd_did_not_end_makes_no_snapshot() {
    let identity = identity("a");
    let recipients = Recipients::default().with(&identity).unwrap();
    let whole = stream(1, 50_000);
    let mut flipped = whole.clone();
    flipped[33] ^= 1;
    for database in [&whole[..whole.len() - 1], &whole[..100], &[], &flipped] {
        let mut writer = Writer::begin(Vec::new(), &state(), &recipients).unwrap();
        writer.write_all(database).unwrap();
        let ended = writer.finish(facts(&identity, "one"), &identity);
        assert!(matches!(ended, Err(SnapshotError::Stream(_))));
    }
}

#[test]
fn every_recipient_opens_it_and_nobody_else() {
    let (ours, other) = (identity("a"), identity("a"));
    let recipients = Recipients::parse(&[other.recipient()]).unwrap();
    let mut writer = Writer::begin(Vec::new(), &state(), &recipients).unwrap();
    writer.write_all(&stream(1, 5000)).unwrap();
    let (_, file) = writer.finish(facts(&ours, "one"), &ours).unwrap();
    let mut snapshot = Snapshot::open(Cursor::new(&file), &ours, None).unwrap();
    assert!(matches!(snapshot.database(&ours, &mut std::io::sink()), Err(SnapshotError::WrongIdentity)));
    assert!(snapshot.database(&other, &mut std::io::sink()).is_ok());
}

#[test]
fn what_others_made_is_told_apart() {
    let mut page = vec![0; 64];
    page[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    assert_eq!(recognise(&page), Some(Foreign::Database));
    assert_eq!(recognise(b"PK\x03\x04rest of the zip"), Some(Foreign::RkeZip));
    assert_eq!(recognise(&made(&identity("a"), "one", 1).0[..64]), None);
    assert_eq!(recognise(b""), None);
}

#[test]
fn what_a_host_took_by_itself_is_believed_and_nothing_else_that_it_signs() {
    let (own, other) = (identity("a"), identity("b"));
    let host = |name: &str| HostName::new(name).unwrap();
    let by = |identity: &Identity, why: &str, key: &dyn Signs| {
        let facts = Facts { why: why.to_owned(), ..facts(identity, "one") };
        signed(identity, facts, 1, key)
    };
    let key = own.host_key(&host("h1")).unwrap();
    let (file, database) = by(&own, Manifest::RECURRING, &key);
    let (manifest, _, found) = opened(&file, &own, "one").unwrap();
    assert!(found == database && manifest.why == "recurring");
    assert!(opened(&file, &own, "two").is_err(), "another name");
    assert!(opened(&file, &other, "one").is_err(), "another cluster");
    for at in (0..file.len()).step_by(file.len() / 97) {
        let mut file = file.clone();
        file[at] ^= 1;
        assert!(opened(&file, &own, "one").is_err(), "byte {at}");
    }
    // Another host's key, another cluster's, and what only people take.
    let foreign = [
        by(&own, Manifest::RECURRING, &own.host_key(&host("h2")).unwrap()),
        by(&own, Manifest::RECURRING, &other.host_key(&host("h1")).unwrap()),
        by(&own, Manifest::RECURRING, &other),
        by(&own, "save", &key),
    ];
    for (at, (file, _)) in foreign.iter().enumerate() {
        let error = opened(file, &own, "one").err();
        assert!(matches!(error, Some(SnapshotError::Unsigned { signer: Some(_) })), "{at}: {error:?}");
    }
    // On a host, by public keys alone.
    let read = |signers: &[String]| manifest_signed_by(&file, signers, own.cluster(), Some(&name("one")));
    assert_eq!(read(&[own.signer(), key.signer()]).unwrap(), manifest);
    assert!(read(&[own.signer()]).is_err() && read(&[]).is_err());
}
