//! A snapshot of any size is written and read in constant memory. Alone in its process, whose peak the kernel tells.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::BufWriter;
use std::io::Seek as _;
use std::io::Write as _;

use bastide::model::ClusterId;
use bastide::model::Content;
use bastide::model::HostName;
use bastide::model::SnapshotName;
use bastide::snapshot::Facts;
use bastide::snapshot::Snapshot;
use bastide::snapshot::Writer;
use bastide::store::Identity;
use bastide::store::Recipients;
use sha2::Digest as _;

/// Of the database. Far above what may be used.
const SIZE: usize = 192 << 20;
/// Program, test harness, buffers.
const MOST: u64 = 48 << 20;

/// The largest resident size so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_large_database_goes_through_in_little_memory() {
    let identity = Identity::generate(&ClusterId("a".to_owned())).unwrap();
    let recipients = Recipients::default().with(&identity).unwrap();
    let mut writer =
        Writer::begin(BufWriter::new(tempfile::tempfile().unwrap()), &Content::new("state"), &recipients).unwrap();
    let mut page: Vec<u8> = (0..1_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut hash = sha2::Sha256::new();
    for number in 0..SIZE >> 20 {
        page[..8].copy_from_slice(&(number as u64).to_be_bytes());
        hash.update(&page);
        writer.write_all(&page).unwrap();
    }
    writer.write_all(&hash.finalize()).unwrap();
    let facts = Facts {
        cluster: identity.cluster().clone(),
        cluster_name: "demo".to_owned(),
        name: SnapshotName::new("large").unwrap(),
        taken_at: 0,
        member: HostName::new("h1").unwrap(),
        why: "test".to_owned(),
        etcd_version: "3.7.2".to_owned(),
        kubernetes: "v1.37.1".parse().unwrap(),
        revision: None,
        etcd_revision: 1,
        keys: 1,
        hash: None,
    };
    let (manifest, file) = writer.finish(facts, &identity).unwrap();
    assert_eq!(manifest.database.size, SIZE as u64 + 32);
    let mut file: File = file.into_inner().unwrap();
    file.rewind().unwrap();
    Snapshot::open(file, &identity, None).unwrap().check(&identity).unwrap();
    assert!(peak() < MOST, "{} MiB were in memory", peak() >> 20);
}
