//! Snapshots in a bucket of a real S3 server, beside the hosts' and alone.

use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bed::S3;
use serde_json::Value;

use crate::recurring;
use crate::restore;
use crate::support::Cluster;
use crate::support::Ended;

const FOLDER: &str = "/var/lib/bastide/snapshots";
const NEEDLE: &str = "s3cr3t-n33dl3";
const PORT: u16 = 9000;

/// The bucket, and where its server keeps its files.
struct Shelf<'c> {
    cluster: &'c Cluster,
    folder: PathBuf,
}

impl<'c> Shelf<'c> {
    fn of(cluster: &'c Cluster) -> Self {
        Self { cluster, folder: cluster.folder().join("s3") }
    }

    fn start(&self) -> Result<S3> {
        let host = format!("{}.1", self.cluster.bed.net());
        S3::start(&self.folder, &host, PORT, &|program| self.cluster.bed.command(program))
    }

    /// What cluster.yml says, with `more` beside the bucket.
    fn section(server: &S3, more: &str) -> Result<String> {
        let authority = std::fs::read_to_string(server.authority())?.replace('\n', "\n          ");
        Ok(format!(
            "services:\n  etcd:\n    backup_config:\n      enabled: false\n      retention: 2\n      s3backupconfig:\n        \
             endpoint: {}\n        bucket_name: {}\n        folder: clusters/test\n        custom_ca: |\n          {}\n{more}",
            server.address(),
            S3::BUCKET,
            authority.trim_end()
        ))
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("data").join(S3::BUCKET).join("clusters/test")
    }
}

#[test]
fn a_bucket_is_one_more_place_for_snapshots_and_enough_for_a_restore() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    let server = Shelf::of(&cluster).start()?;
    let keys = |secret: &str| format!("        access_key: {}\n        secret_key: {secret}\n", S3::ACCESS);
    let [without, wrong, right] =
        ["", &keys("another-secret"), &keys(S3::SECRET)].map(|more| Shelf::section(&server, more));
    cluster.file.more = without?;
    cluster.write()?;
    cluster.up();
    cluster.create_secret("kept", NEEDLE)?;

    // Without keys, and with wrong ones: the hosts have it all the same, and that the bucket has not is said.
    let words = ended(&cluster, &["save", "--name", "1-without"], 3)?;
    anyhow::ensure!(words.stderr.contains("AWS_ACCESS_KEY_ID"), "{words}");
    cluster.file.more = wrong?;
    cluster.write()?;
    let words = ended(&cluster, &["save", "--name", "2-wrong"], 3)?;
    anyhow::ensure!(words.stderr.contains("SignatureDoesNotMatch"), "{words}");
    assert_eq!(places(&cluster, 3)?, [("1-without".to_owned(), 1), ("2-wrong".to_owned(), 1)]);

    // With the right ones, from the environment or the file, it is in both places, sealed.
    cluster.file.more = Shelf::section(&server, "")?;
    cluster.write()?;
    let mut save = cluster.command(&["etcd", "snapshot", "save", "--name", "3-first"]);
    let saved = save.env("AWS_ACCESS_KEY_ID", S3::ACCESS).env("AWS_SECRET_ACCESS_KEY", S3::SECRET).output()?;
    assert!(saved.status.success(), "{saved:?}");
    cluster.file.more = right?;
    cluster.write()?;
    cluster.assert_plans_nothing();
    let second = ended(&cluster, &["save", "--name", "4-second"], 0)?;
    println!("a snapshot was taken onto a host and into a bucket in {:.1} s", second.took.as_secs_f64());
    let all = places(&cluster, 0)?;
    assert_eq!(all[2..], [("3-first".to_owned(), 2), ("4-second".to_owned(), 2)], "{all:?}");
    let shelf = Shelf::of(&cluster);
    let clear = Command::new("grep").args(["-rlaF", NEEDLE]).arg(shelf.kept()).output()?;
    assert_eq!(String::from_utf8(clear.stdout)?, "", "it lies in clear");
    refused(&cluster, &["save", "--name", "4-second"], "is there already")?;

    // The server hangs. What somebody interrupts then is nowhere, and no place keeps a part of it.
    let host = cluster.host("h1");
    server.freeze()?;
    let (child, begun) = hanging(&cluster, "interrupted")?;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    let words = String::from_utf8(child.wait_with_output()?.stderr)?;
    assert!(words.contains("no snapshot was made") && begun.elapsed() < Duration::from_mins(1), "{words}");
    assert_eq!(host.ssh(&format!("ls -A {FOLDER} | grep -c interrupted || :"))?.trim(), "0");
    // What is killed is listed nowhere.
    let (mut child, _) = hanging(&cluster, "killed")?;
    child.kill()?;
    child.wait()?;
    server.thaw()?;
    assert_eq!(places(&cluster, 0)?, all);

    // As many stay as the file says; and a copy in the bucket alone is as good as one on a host.
    ended(&cluster, &["prune", "--yes"], 0)?;
    assert_eq!(places(&cluster, 0)?, [("3-first".to_owned(), 2), ("4-second".to_owned(), 2)]);
    ended(&cluster, &["verify", "4-second", "--s3"], 0)?;
    host.ssh(&format!("rm {FOLDER}/*"))?;
    assert_eq!(places(&cluster, 0)?, [("3-first".to_owned(), 1), ("4-second".to_owned(), 1)]);
    let proof: Value = serde_json::from_str(&ended(&cluster, &["verify", "4-second", "--output", "json"], 0)?.stdout)?;
    assert_eq!(proof["keys"], proof["manifest"]["keys"]);
    ended(&cluster, &["delete", "3-first", "--yes"], 0)?;
    assert_eq!(places(&cluster, 0)?, [("4-second".to_owned(), 1)]);

    // A bucket that is away stops nobody from what hosts have.
    drop(server);
    let away = ended(&cluster, &["save", "--name", "away"], 3)?;
    anyhow::ensure!(away.stderr.contains("s3://snapshots/clusters/test"), "{away}");
    assert_eq!(places(&cluster, 3)?, [("away".to_owned(), 1)]);
    let server = shelf.start()?;
    assert_eq!(places(&cluster, 0)?, [("4-second".to_owned(), 1), ("away".to_owned(), 1)]);

    restore::write(&cluster, "before")?;
    let before = restore::written(&cluster)?;
    ended(&cluster, &["save", "--name", "kept"], 0)?;
    host.ssh(&format!("rm {FOLDER}/*"))?;
    restore::write(&cluster, "after")?;
    let restored = restore::restore(&cluster, "kept", &["--no-last-snapshot"])?;
    restore::succeeds(&restored, "restored from the bucket alone");
    anyhow::ensure!(!restored.stderr.contains(S3::SECRET) && !restored.stderr.contains(S3::ACCESS), "{restored}");
    restore::is_as(&cluster, &before)?;
    its_host_puts_snapshots_there_too(&mut cluster, server)
}

/// What the host takes by itself: as many as the file says stay in both places, and a bucket that is away is heard of.
fn its_host_puts_snapshots_there_too(cluster: &mut Cluster, server: S3) -> Result<()> {
    cluster.file.more = cluster.file.more.replace("enabled: false", "enabled: true");
    cluster.recurring()?;
    cluster.up();
    cluster.assert_plans_nothing();
    let by_hand = places(cluster, 0)?;
    let taken: Vec<_> = (0..3).map(|_| recurring::taken_by_its_host(cluster)).collect::<Result<_>>()?;
    let newest: Vec<_> = taken[1..].iter().map(|name| (name.clone(), 2)).collect();
    assert_eq!(places(cluster, 0)?, [by_hand, newest].concat());
    drop(server);
    recurring::refused_by_its_host(cluster, "s3://snapshots/clusters/test")?;
    let host = cluster.host("h1");
    assert_eq!(
        host.ssh(&format!("ls {FOLDER} | grep -c '^recurring_'"))?.trim(),
        "2",
        "the host keeps what it could not send"
    );
    let status = cluster.bastide(&["status"])?;
    anyhow::ensure!(status.code == Some(4) && status.stdout.contains("s3://snapshots"), "{status}");
    let shown = host.ssh("journalctl --no-pager -o cat; cat /var/lib/bastide/recurring.json")?;
    assert!(!shown.contains(S3::SECRET) && !shown.contains(S3::ACCESS), "a key is shown");
    Ok(())
}

/// A save that has come to its host, and waits for a server that hangs.
fn hanging(cluster: &Cluster, name: &str) -> Result<(Child, Instant)> {
    let begun = Instant::now();
    let child = cluster.command(&["etcd", "snapshot", "save", "--name", name]).stderr(Stdio::piped()).spawn()?;
    cluster.host("h1").until(&format!("ls -A {FOLDER} | grep -q {name}"), Duration::from_secs(30))?;
    Ok((child, begun))
}

/// Must end with this code, and show no key.
fn ended(cluster: &Cluster, arguments: &[&str], code: i32) -> Result<Ended> {
    let ended = cluster.bastide(&[&["etcd", "snapshot"], arguments].concat())?;
    anyhow::ensure!(ended.code == Some(code), "etcd snapshot {arguments:?}, not {code}: {ended}");
    for key in [S3::ACCESS, S3::SECRET, "another-secret"] {
        anyhow::ensure!(!ended.stderr.contains(key) && !ended.stdout.contains(key), "a key is shown: {ended}");
    }
    Ok(ended)
}

fn refused(cluster: &Cluster, arguments: &[&str], words: &str) -> Result<()> {
    let ended = ended(cluster, arguments, 1)?;
    anyhow::ensure!(ended.stderr.contains(words), "{arguments:?} was not refused with {words:?}: {ended}");
    Ok(())
}

/// Every snapshot, oldest first, with the number of its places.
fn places(cluster: &Cluster, code: i32) -> Result<Vec<(String, usize)>> {
    let listed: Value = serde_json::from_str(&ended(cluster, &["list", "--output", "json"], code)?.stdout)?;
    let rows = listed["snapshots"].as_array().context("no list")?;
    let place = |row: &Value| {
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        (name, row["places"].as_array().map_or(0, Vec::len))
    };
    Ok(rows.iter().map(place).collect())
}
