//! Snapshots of a real etcd: taken, listed, proven by a restore, damaged, removed; what its members tell; and, since the
//! cluster is there, a sample of what `restore.rs` does at length.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;

use crate::checks;
use crate::identity;
use crate::recurring;
use crate::restore;
use crate::restore::ETCDCTL;
use crate::support::Cluster;
use crate::support::Ended;

const NEEDLE: &str = "s3cr3t-n33dl3";
const FOLDER: &str = "/var/lib/bastide/snapshots";

#[test]
fn snapshots_hold_what_etcd_held_and_a_restore_brings_it_back() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.recurring()?;
    let up = cluster.bastide(&["up", "--yes", "--no-identity-backup", "--timings"])?;
    anyhow::ensure!(up.code == Some(0), "{up}");
    // Also with what runs beside the cluster, which comes by itself.
    assert!(checks::sessions(&up).into_iter().all(|(_, sessions)| sessions <= 10), "{up}");
    recurring::hosts_take_snapshots_by_themselves(&cluster)?;
    recurring::hosts_watch_their_certificates(&cluster)?;
    state_goes_elsewhere_and_is_sealed_to_others(&mut cluster)?;
    let cluster = cluster;
    snapshots_are_believed_only_as_they_were_taken(&cluster)?;
    restore::comes_back_from_a_sealed_snapshot(&cluster)?;
    restore::comes_back_from_what_a_member_holds(&cluster)?;
    identity::is_taken_over_only_when_nothing_opens(&cluster)
}

/// The state in one file; and sealed to a recipient, who then brings it and the identity back.
fn state_goes_elsewhere_and_is_sealed_to_others(cluster: &mut Cluster) -> Result<()> {
    let folder = cluster.folder().join("cluster.bastide");
    state(cluster, &["export", "whole.state"], 0)?;
    state(cluster, &["export", "whole.state"], 1)?;
    fs::remove_dir_all(&folder)?;
    state(cluster, &["recover", "--file", "whole.state"], 0)?;
    cluster.assert_plans_nothing();

    let key = cluster.bed.key();
    let public = fs::read_to_string(key.with_extension("pub"))?;
    _ = write!(cluster.file.more_options, "  state:\n    recipients: [\"{}\"]\n", public.trim());
    cluster.write()?;
    let sealed = || -> Result<Vec<_>> {
        let files = fs::read_dir(folder.join("sealed"))?.map(|entry| Ok(entry?.file_name()));
        files.collect::<Result<_>>()
    };
    let copy = || cluster.host("h1").ssh("sha256sum < /var/lib/bastide/state.age");
    let (before, copied) = (sealed()?, copy()?);
    state(cluster, &["rekey"], 0)?;
    assert!(sealed()?.iter().all(|file| !before.contains(file)), "something is still sealed as it was");
    assert_ne!(copy()?, copied, "the host's copy is the old one");
    state(cluster, &["check"], 0)?;
    // Neither the folder nor the identity is there any more: the recipient has both from the host.
    fs::remove_dir_all(&folder)?;
    fs::remove_dir_all(cluster.folder().join("config/bastide/identities"))?;
    let key = key.display().to_string();
    state(cluster, &["recover", "--host", "h1", "--recipient-key", &key], 0)?;
    cluster.assert_plans_nothing();
    Ok(())
}

fn state(cluster: &Cluster, arguments: &[&str], code: i32) -> Result<()> {
    let ended = cluster.bastide(&[&["state"], arguments].concat())?;
    anyhow::ensure!(ended.code == Some(code), "state {arguments:?} did not end with {code}: {ended}");
    Ok(())
}

fn snapshots_are_believed_only_as_they_were_taken(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h1");
    cluster.create_secret("kept", NEEDLE)?;

    // Taken: on the host and here, sealed, nothing left beside it; while somebody writes all the time.
    let written = || host.ssh("cat /root/written 2>/dev/null || echo 0").map(|text| text.trim().parse::<u64>());
    restore::put_etcdctl(cluster, "h1")?;
    let write = format!(
        "at=0; while :; do at=$((at + 1)); {ETCDCTL} put /test/busy $at >/dev/null && echo $at > /root/written; done"
    );
    host.put(&cluster.add_file("busy.sh", &write)?, "/root/busy.sh")?;
    host.ssh("systemd-run --quiet --unit busy sh /root/busy.sh")?;
    host.until("test -s /root/written", Duration::from_mins(1))?;
    let before = written()??;
    let (first, took) = save(cluster, &["--name", "first", "--local", "here"])?;
    assert!(written()?? > before, "nobody wrote meanwhile");
    host.ssh(&format!("systemctl stop busy; {ETCDCTL} del /test/busy"))?;
    println!("a snapshot was taken in {took:.1} s");
    assert_eq!(first, "first");
    assert_eq!(host.ssh(&format!("ls -A {FOLDER}"))?.trim(), "first.snapshot");
    let modes = host.ssh(&format!("stat -c '%a %U' {FOLDER} {FOLDER}/first.snapshot"))?;
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["700", "root", "600", "root"]);
    let local = cluster.folder().join("here/first.snapshot");
    let bytes = fs::read(&local)?;
    assert!(!bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()), "it lies in clear");
    let digest = host.ssh(&format!("sha256sum < {FOLDER}/first.snapshot"))?;
    let here = cluster.bed.command("sha256sum").arg(&local).output()?;
    assert_eq!(digest[..64], String::from_utf8(here.stdout)?[..64], "the two copies differ");
    refused(cluster, &["save", "--name", "first"], "is there already")?;

    // Listed, the same in both places; and RKE's own files are told apart.
    host.ssh(&format!("printf 'PK\\003\\004' > {FOLDER}/rke_etcd_snapshot_2024-10-04T12:00:00+02:00.zip"))?;
    let listed = list(cluster)?;
    let rows: Vec<_> =
        listed.iter().map(|row| (row["name"].as_str(), row["places"].as_array().map(Vec::len))).collect();
    assert_eq!(
        rows,
        [(Some("rke_etcd_snapshot_2024-10-04T12:00:00+02:00.zip"), Some(1)), (Some("first"), Some(2))],
        "{listed:?}"
    );
    assert_eq!(listed[0]["foreign"], "rke");

    // Proven: an etcd of its own comes up with it, with the keys and the hash of that time.
    let proof: Value = serde_json::from_str(&well(cluster, &["verify", "first", "--output", "json"])?.stdout)?;
    println!("proven in {} s", proof["seconds"]);
    assert_eq!(proof["keys"], proof["manifest"]["keys"]);
    assert!(
        proof["revision"].as_u64() > proof["manifest"]["etcd_revision"].as_u64(),
        "nothing came while it streamed: {proof}"
    );
    assert!(proof["keys"].as_u64().is_some_and(|keys| keys > 50), "{proof}");
    assert!(proof["manifest"]["hash"].is_null() || proof["hash_equal"] == true, "{proof}");
    well(cluster, &["verify", "first", "--local", "here"])?;
    a_drill_tells_time_and_loss(cluster)?;
    let zip = restore::saved_as_rke_does(cluster, "rke_etcd_snapshot")?;
    host.put(&zip, &format!("{FOLDER}/rke_etcd_snapshot.zip"))?;
    refused(cluster, &["verify", "rke_etcd_snapshot"], "--accept-foreign")?;
    well(cluster, &["verify", "rke_etcd_snapshot", "--accept-foreign"])?;
    host.ssh(&format!("rm {FOLDER}/rke_etcd_snapshot.zip"))?;
    let left = host
        .ssh("ls -d /var/lib/bastide/scratch.* 2>/dev/null; mount | grep -c bastide/scratch; pgrep -c etcdutl || :")?;
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["0", "0"], "the proof left something: {left}");

    // A killed save leaves nothing that is listed, and nothing at all once its hosts noticed.
    let mut child = cluster.command(&["etcd", "snapshot", "save", "--name", "killed"]).spawn()?;
    host.until(&format!("ls -A {FOLDER} | grep -q killed"), Duration::from_secs(30))?;
    child.kill()?;
    child.wait()?;
    host.until(&format!("! ls -A {FOLDER} | grep -qE '^\\.'"), Duration::from_mins(1))?;

    // What was changed is not believed, and no word of it reaches a restore.
    for (name, change) in [
        ("flipped", "printf x | dd of=FILE bs=1 seek=40000 conv=notrunc status=none"),
        ("short", "truncate -s -1 FILE"),
        ("renamed", ":"),
    ] {
        let file = format!("{FOLDER}/{name}.snapshot");
        host.ssh(&format!("cp {FOLDER}/first.snapshot {file}; {}", change.replace("FILE", &file)))?;
        refused(cluster, &["verify", name], "snapshot")?;
        assert!(list(cluster)?.iter().any(|row| row["name"] == name && row["manifest"].is_null()));
        host.ssh(&format!("rm {file}"))?;
    }

    // Retention touches what is ours alone.
    let (second, _) = save(cluster, &[])?;
    well(cluster, &["prune", "--keep", "1", "--yes"])?;
    let names: Vec<_> = list(cluster)?.iter().map(|row| row["name"].clone()).collect();
    assert!(names.iter().any(|name| name.as_str() == Some(second.as_str())), "{names:?}");
    assert!(names.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("rke_"))), "{names:?}");
    assert_eq!(host.ssh(&format!("ls {FOLDER} | grep -c first || :"))?.trim(), "0");
    well(cluster, &["delete", &second, "--yes"])?;
    refused(cluster, &["verify", &second], "there is no snapshot")?;

    // Members.
    let status = cluster.bastide(&["etcd", "status", "--output", "json"])?;
    assert_eq!(status.code, Some(0), "{status}");
    let seen: Value = serde_json::from_str(&status.stdout)?;
    let member = &seen["members"]["h1"];
    assert_eq!((&member["leader"], &seen["healthy"]), (&Value::Bool(true), &Value::Bool(true)), "{seen}");
    assert!(member["hash"].is_u64() && member["db_size"].as_u64() >= member["db_in_use"].as_u64(), "{seen}");
    alarm(cluster, member["id"].as_str().context("no id")?)?;
    let alarmed = cluster.bastide(&["etcd", "status"])?;
    assert!(alarmed.code == Some(4) && alarmed.stdout.contains("alarm NOSPACE"), "{alarmed}");
    let defragmented = cluster.bastide(&["etcd", "defrag"])?;
    let told = defragmented.stderr.contains("took back alarm NOSPACE") && defragmented.stderr.contains("its quota");
    assert!(defragmented.code == Some(0) && told, "{defragmented}");
    let well = cluster.bastide(&["etcd", "status"])?;
    assert_eq!(well.code, Some(0), "{well}");
    cluster.assert_plans_nothing();
    Ok(())
}

/// The member believes that it has no space left, and takes no more writes.
fn alarm(cluster: &Cluster, id: &str) -> Result<()> {
    let id = u64::from_str_radix(id, 16)?;
    let body = format!(r#"{{"action":"ACTIVATE","memberID":"{id}","alarm":"NOSPACE"}}"#);
    let ask = "curl -sf --cacert /etc/etcd/pki/ca.crt --cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key";
    cluster.host("h1").ssh(&format!("{ask} https://127.0.0.1:2379/v3/maintenance/alarm -d '{body}'")).map(drop)
}

/// Beside the running cluster, which has written since.
fn a_drill_tells_time_and_loss(cluster: &Cluster) -> Result<()> {
    let drill = |more: &[&str], code: i32| -> Result<Ended> {
        let ended = cluster.bastide(&[&["drill"], more].concat())?;
        anyhow::ensure!(ended.code == Some(code), "drill {more:?} did not end with {code}: {ended}");
        Ok(ended)
    };
    cluster.kubectl(&["create", "namespace", "written-since"])?;
    let limits = ["--max-age", "1h", "--max-lost", "100000", "--max-seconds", "600", "--output", "json"];
    let seen: Value = serde_json::from_str(&drill(&limits, 0)?.stdout)?;
    println!("drilled in {} s: {}", seen["seconds"], seen["steps"]);
    assert_eq!((&seen["name"], &seen["host"]), (&Value::from("first"), &Value::from("h1")), "{seen}");
    let (then, now) = (seen["revision"].as_u64(), seen["live_revision"].as_u64());
    assert!(then.is_some() && then < now && seen["lost_revisions"].as_u64().is_some_and(|lost| lost > 0), "{seen}");
    assert!(seen["keys"].as_u64().is_some_and(|keys| keys > 50) && seen["states"].as_u64() > Some(0), "{seen}");
    let beyond = drill(&["--max-lost", "0"], 4)?;
    assert!(beyond.stderr.contains("revisions were written since") && beyond.stdout.contains("loss: "), "{beyond}");
    drill(&["--name", "second"], 1)?;
    Ok(())
}

fn snapshot(cluster: &Cluster, arguments: &[&str]) -> Result<Ended> {
    cluster.bastide(&[&["etcd", "snapshot"], arguments].concat())
}

/// Must succeed.
fn well(cluster: &Cluster, arguments: &[&str]) -> Result<Ended> {
    let ended = snapshot(cluster, arguments)?;
    anyhow::ensure!(ended.code == Some(0), "etcd snapshot {arguments:?}: {ended}");
    Ok(ended)
}

/// Must fail with these words.
fn refused(cluster: &Cluster, arguments: &[&str], words: &str) -> Result<()> {
    let ended = snapshot(cluster, arguments)?;
    anyhow::ensure!(
        ended.code == Some(1) && ended.stderr.contains(words),
        "etcd snapshot {arguments:?} was not refused with {words:?}: {ended}"
    );
    Ok(())
}

/// The new snapshot's name, and how long it took in seconds.
fn save(cluster: &Cluster, arguments: &[&str]) -> Result<(String, f64)> {
    fs::create_dir_all(cluster.folder().join("here"))?;
    let ended = well(cluster, &[&["save"], arguments].concat())?;
    Ok((ended.stdout.trim().to_owned(), ended.took.as_secs_f64()))
}

/// The rows of the list, by time.
fn list(cluster: &Cluster) -> Result<Vec<Value>> {
    let ended = well(cluster, &["list", "--local", "here", "--output", "json"])?;
    let listed: Value = serde_json::from_str(&ended.stdout)?;
    let mut rows = listed["snapshots"].as_array().context("no list")?.clone();
    // The foreign one first, whose time is the one at which this test made it.
    rows.sort_by_key(|row| row["foreign"].is_null());
    Ok(rows)
}
