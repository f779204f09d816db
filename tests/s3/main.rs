//! The bucket room against a real S3 server, which checks signatures, certificates, parts and space by itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod server;

use std::sync::Arc;
use std::time::Duration;

use bastide::bucket::Bucket;
use bastide::bucket::BucketError;
use bastide::bucket::Role;
use bastide::bucket::Upload;
use bastide::model::BucketAddress;
use bastide::model::BucketKeys;
use bastide::model::Content;
use bastide::model::Digest;
use bastide::model::SnapshotName;
use bed::S3;

use crate::server::Disk;
use crate::server::Line;
use crate::server::Metadata;
use crate::server::Server;
use crate::server::keys;
use crate::server::open;

const ENDING: &str = ".snapshot";
const MIB: usize = 1 << 20;

fn name(text: &str) -> SnapshotName {
    SnapshotName::new(text).unwrap()
}

/// Bytes of which no two stretches are alike.
fn bytes(size: usize) -> Vec<u8> {
    let mut block = Digest::of(b"begin");
    let mut bytes = Vec::with_capacity(size + 32);
    while bytes.len() < size {
        bytes.extend_from_slice(&block.0);
        block = Digest::of(&block.0);
    }
    bytes.truncate(size);
    bytes
}

/// Sends everything, and lists nothing yet.
async fn sent(bucket: &Arc<Bucket>, called: &str, bytes: &[u8]) -> Result<Upload, BucketError> {
    let mut upload = bucket.begin(&name(called)).await?;
    let written = async {
        // In odd pieces, so that no part is one.
        for piece in bytes.chunks(99_991) {
            upload.write(piece).await?;
        }
        upload.finish().await
    };
    match written.await {
        Ok(digest) => {
            assert_eq!(digest, Digest::of(bytes));
            Ok(upload)
        }
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

async fn put(bucket: &Arc<Bucket>, called: &str, bytes: &[u8]) -> Result<(), BucketError> {
    sent(bucket, called, bytes).await?.commit().await
}

async fn listed(bucket: &Bucket) -> Vec<(String, u64)> {
    let objects = bucket.list().await.unwrap();
    objects.into_iter().map(|object| (object.name.to_string(), object.size)).collect()
}

async fn whole(bucket: &Bucket, called: &str, bytes: &[u8]) {
    let mut found = Vec::new();
    for at in (0..bytes.len()).step_by(4 * MIB) {
        let length = (bytes.len() - at).min(4 * MIB);
        found.extend(bucket.read(&name(called), at as u64, length as u64).await.unwrap());
    }
    assert!(found == bytes, "{called} is not what was sent");
}

/// What an error says, in which no key may stand.
fn said(error: &BucketError) -> String {
    let text = format!("{error}\n{error:?}");
    for key in [S3::ACCESS, S3::SECRET] {
        assert!(!text.contains(key), "a key in {text}");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_listed_only_when_it_is_whole_and_is_what_was_sent() {
    let server = Server::start("whole");
    let bucket = server.bucket();
    assert_eq!(listed(&bucket).await, []);
    // Two whole parts and some; exactly one part; less than the least part; nothing.
    for (called, size) in [("a", 20 * MIB + 7), ("b", 8 * MIB), ("c", 5), ("d", 0)] {
        let (called, bytes) = (format!("{called}{ENDING}"), bytes(size));
        let upload = sent(&bucket, &called, &bytes).await.unwrap();
        assert!(!listed(&bucket).await.iter().any(|(found, _)| *found == called), "it is listed before its time");
        upload.commit().await.unwrap();
        assert!(listed(&bucket).await.contains(&(called.clone(), size as u64)));
        whole(&bucket, &called, &bytes).await;
    }
    let called = format!("a{ENDING}");
    let again = put(&bucket, &called, b"another").await.unwrap_err();
    assert!(matches!(again, BucketError::Exists { .. }), "{again}");
    let late = bucket.read(&name(&called), 20 * MIB as u64, 4 * MIB as u64).await.unwrap_err();
    assert!(late.to_string().contains("7 bytes came"), "{late}");

    // Another folder of the same bucket is another place, and neither sees the other's.
    let outside = open(BucketAddress { folder: String::new(), ..server.address() }, keys());
    assert_eq!(listed(&outside).await, []);
    put(&outside, "e", b"outside").await.unwrap();
    assert_eq!(listed(&outside).await, [("e".to_owned(), 7)]);
    assert_eq!(listed(&bucket).await.len(), 4);

    bucket.delete(&name(&called)).await.unwrap();
    bucket.delete(&name(&called)).await.unwrap();
    assert_eq!(listed(&bucket).await.len(), 3);
    let gone = bucket.read(&name(&called), 0, 1).await.unwrap_err();
    assert!(matches!(gone, BucketError::NoObject { .. }), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_where_one_answer_ends() {
    let server = Server::start("many");
    let bucket = server.bucket();
    put(&bucket, "n0", b"x").await.unwrap();
    for at in 1..1003 {
        server.copy("n0", &format!("n{at}"));
    }
    assert_eq!(listed(&bucket).await.len(), 1003);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_its_region_where_the_file_does_not() {
    let server = Server::start("region");
    put(&server.bucket(), "guessed", b"x").await.unwrap();
    let right = BucketAddress { region: Some(S3::REGION.to_owned()), ..server.address() };
    assert_eq!(listed(&open(right, keys())).await.len(), 1);
    let wrong = BucketAddress { region: Some("elsewhere-1".to_owned()), ..server.address() };
    let error = open(wrong, keys()).list().await.unwrap_err();
    assert!(said(&error).contains(&format!("write `region: {}`", S3::REGION)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_a_wrong_authority_and_a_missing_bucket_are_told_apart() {
    let server = Server::start("wrong");
    let secret = BucketKeys { secret: Content::new("another-secret"), ..keys() };
    let error = open(server.address(), secret).list().await.unwrap_err();
    assert!(said(&error).contains("SignatureDoesNotMatch"), "{error}");
    let access = BucketKeys { access: Content::new("somebody-else"), ..keys() };
    let error = open(server.address(), access).begin(&name("a")).await.map(drop).unwrap_err();
    assert!(matches!(error, BucketError::Denied { .. } | BucketError::Keys { .. }), "{error}");
    let error = open(server.address(), BucketKeys { token: Some(Content::new("t0ken")), ..keys() }).list().await;
    assert!(matches!(error, Err(BucketError::Keys { .. })), "{error:?}");

    for authorities in [Some(server::authority()), None] {
        let address = BucketAddress { authorities, ..server.address() };
        let error = open(address, keys()).begin(&name("a")).await.map(drop).unwrap_err();
        assert!(matches!(error, BucketError::Untrusted { .. }), "{error}");
    }

    let missing = open(BucketAddress { bucket: "nowhere".to_owned(), ..server.address() }, keys());
    for error in [missing.list().await.map(drop).unwrap_err(), put(&missing, "a", b"x").await.unwrap_err()] {
        assert!(matches!(error, BucketError::NoBucket { .. }), "{error}");
    }
    let silent = open(BucketAddress { port: Some(server::free_port()), ..server.address() }, keys());
    let error = silent.list().await.unwrap_err();
    assert!(matches!(error, BucketError::Unreachable { .. }), "{error}");
    assert_eq!(listed(&server.bucket()).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_for_a_while_work_with_their_token_and_as_far_as_they_may() {
    let server = Server::start("token");
    put(&server.bucket(), "a", b"x").await.unwrap();
    let policy = |actions: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":[{actions}],"Resource":["arn:aws:s3:::*"]}}]}}"#
        )
    };
    let reader = server.passing_keys(&policy(r#""s3:GetObject","s3:ListBucket""#));
    let reading = open(server.address(), reader.clone());
    assert_eq!(listed(&reading).await.len(), 1);
    whole(&reading, "a", b"x").await;
    let refused = [put(&reading, "b", b"x").await.unwrap_err(), reading.delete(&name("a")).await.unwrap_err()];
    for error in refused {
        assert!(matches!(error, BucketError::Denied { .. }), "{error}");
    }
    put(&open(server.address(), server.passing_keys(&policy(r#""s3:*""#))), "b", b"x").await.unwrap();
    let without = open(server.address(), BucketKeys { token: None, ..reader });
    assert!(without.list().await.is_err(), "the token was not needed");
    assert_eq!(listed(&server.bucket()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_machine_gives_keys_where_there_are_no_others() {
    let server = Server::start("role");
    let all =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}"#;
    let by = |url: &str| Arc::new(Bucket::open_by_role(server.address(), Role::told_by(url)).unwrap());
    let machine = Metadata::of(Some(server.passing_keys(all)));
    assert!(Role::told_by(&machine.url).is_anybody_there().await);
    let bucket = by(&machine.url);
    put(&bucket, "a", b"x").await.unwrap();
    assert_eq!(listed(&bucket).await.len(), 1);
    assert_eq!(machine.asked(), 1, "keys are asked for again and again");

    // Keys that the server does not know, no role, and no cloud.
    let strange = Metadata::of(Some(BucketKeys { token: Some(Content::new("t0ken")), ..keys() }));
    let error = by(&strange.url).list().await.unwrap_err();
    assert!(matches!(error, BucketError::Keys { .. }), "{}", said(&error));
    let none = Metadata::of(None);
    let error = by(&none.url).begin(&name("b")).await.map(drop).unwrap_err();
    assert!(said(&error).contains("AWS_ACCESS_KEY_ID") && said(&error).contains("HTTP 404"), "{error}");
    let nowhere = format!("http://127.0.0.1:{}", server::free_port());
    assert!(!Role::told_by(&nowhere).is_anybody_there().await);
    let error = by(&nowhere).list().await.unwrap_err();
    assert!(said(&error).contains("no metadata service answers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_whose_line_is_cut_is_sent_again() {
    let server = Server::start("cut");
    let bytes = bytes(20 * MIB);
    // In the first part, and in each other that goes over a new connection.
    let line = Line::cut_after(&server, 3 * MIB, 3);
    put(&server.bucket_through(&line), "a", &bytes).await.unwrap();
    assert_eq!(line.left(), 0, "nothing was cut");
    whole(&server.bucket(), "a", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_answer_was_lost_is_there_all_the_same() {
    let server = Server::start("answer");
    let line = Line::losing_the_answer(&server, "a");
    put(&server.bucket_through(&line), "a", b"x").await.unwrap();
    assert_eq!(line.left(), 0, "no answer was lost");
    whole(&server.bucket(), "a", b"x").await;
    assert_eq!(listed(&server.bucket()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_stays_cut_lists_nothing_and_the_next_run_goes_on() {
    let server = Server::start("dead");
    let bytes = bytes(20 * MIB);
    let line = Line::cut_after(&server, 3 * MIB, usize::MAX);
    let error = put(&server.bucket_through(&line), "a", &bytes).await.unwrap_err();
    assert!(matches!(error, BucketError::Unreachable { .. }), "{error}");
    let bucket = server.bucket();
    assert_eq!(listed(&bucket).await, []);
    put(&bucket, "a", &bytes).await.unwrap();
    whole(&bucket, "a", &bytes).await;
    assert_eq!(bucket.sweep("", Duration::ZERO).await.unwrap(), [], "the upload that failed was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_is_swept_when_nothing_came_for_long_enough() {
    let server = Server::start("swept");
    let bucket = server.bucket();
    let ours = format!("a{ENDING}");
    // Dropped, as a process that is killed drops it.
    drop(sent(&bucket, &ours, &bytes(9 * MIB)).await.unwrap());
    drop(sent(&bucket, "somebody-elses", b"x").await.unwrap());
    let living = sent(&bucket, &format!("b{ENDING}"), b"x").await.unwrap();
    assert_eq!(listed(&bucket).await, []);
    assert_eq!(bucket.sweep(ENDING, Duration::from_hours(1)).await.unwrap(), [], "it was too young");
    living.commit().await.unwrap();
    let swept = bucket.sweep(ENDING, Duration::ZERO).await.unwrap();
    assert_eq!(swept, [name(&ours)]);
    assert_eq!(bucket.sweep(ENDING, Duration::ZERO).await.unwrap(), []);
    put(&bucket, &ours, b"x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_swept_under_its_run_does_not_become_an_object() {
    let server = Server::start("lost");
    let bucket = server.bucket();
    let upload = sent(&bucket, "a", b"x").await.unwrap();
    assert_eq!(bucket.sweep("", Duration::ZERO).await.unwrap(), [name("a")]);
    assert!(upload.commit().await.is_err());
    assert_eq!(listed(&bucket).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so_and_keeps_nothing_half() {
    let server = Server::on("full", Disk::Small);
    let bucket = server.bucket();
    put(&bucket, "small", &bytes(9 * MIB)).await.unwrap();
    let error = put(&bucket, "large", &bytes(60 * MIB)).await.unwrap_err();
    assert!(matches!(error, BucketError::Full { .. }), "{error}");
    assert_eq!(listed(&bucket).await, [("small".to_owned(), 9 * MIB as u64)]);
    whole(&bucket, "small", &bytes(9 * MIB)).await;
    put(&bucket, "again", &bytes(MIB)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_takes_little_memory_whatever_its_size() {
    let server = Server::start("memory");
    let bucket = server.bucket();
    let piece = bytes(MIB);
    let mut upload = bucket.begin(&name("large")).await.unwrap();
    // Afterwards the peak is counted from here.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    for _ in 0..192 {
        upload.write(&piece).await.unwrap();
    }
    upload.finish().await.unwrap();
    let taken = memory("VmHWM:").saturating_sub(before);
    upload.commit().await.unwrap();
    assert_eq!(listed(&bucket).await, [("large".to_owned(), 192 * MIB as u64)]);
    println!("{} MiB more at most", taken >> 10);
    assert!(taken < 40 << 10, "{} MiB were in memory", taken >> 10);
}

/// In KiB, as the kernel counts.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
