//! etcd's data come back from a snapshot: everything up to it, nothing after, whatever was destroyed in between.

use std::fmt::Write as _;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use bed::Cache;
use serde_json::Value;

use crate::recurring;
use crate::support::Cluster;
use crate::support::Ended;
use crate::support::seed;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const CONFIRM: [&str; 3] = ["--yes", "--cluster", "test"];
/// For what etcdctl saved.
pub(crate) const FOREIGN: &str = "--accept-foreign";

/// What the API shows of the objects that a test wrote: names with their contents, in order.
pub(crate) fn written(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}={.data}{\"\\n\"}{end}";
    cluster.kubectl(&["get", "configmaps,secrets", "-A", "-l", "written=yes", "--sort-by=.metadata.name", "-o", path])
}

/// Writes config maps and a Secret of their own into a new namespace.
pub(crate) fn write(cluster: &Cluster, namespace: &str) -> Result<()> {
    let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    for at in 0..20 {
        _ = write!(
            text,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {namespace}-{at}, namespace: {namespace}, labels: {{written: \"yes\"}}}}\n\
             data: {{content: \"{namespace} {at} {}\"}}\n",
            "x".repeat(at * 50)
        );
    }
    _ = write!(
        text,
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {namespace}-secret, namespace: {namespace}, labels: {{written: \"yes\"}}}}\n\
         stringData: {{word: \"secret of {namespace}\"}}\n"
    );
    let file = cluster.add_file(&format!("{namespace}.yaml"), &text)?;
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]).map(drop)
}

/// A snapshot as etcdctl saves it.
pub(crate) fn snapshot(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let host = cluster.host("h1");
    put_etcdctl(cluster, "h1")?;
    host.ssh(&format!("{ETCDCTL} snapshot save /root/snapshot.db 2>&1"))?;
    let output = host.command("cat /root/snapshot.db; rm /root/snapshot.db").output()?;
    anyhow::ensure!(output.status.success(), "the snapshot was not read");
    let path = cluster.folder().join(name);
    fs::write(&path, output.stdout)?;
    Ok(path)
}

/// A zip of this database, as RKE makes them.
fn packed(cluster: &Cluster, database: &Path) -> Result<PathBuf> {
    let zip = database.with_extension("zip");
    let made = cluster.bed.command("python3").args(["-m", "zipfile", "-c"]).arg(&zip).arg(database).status()?;
    anyhow::ensure!(made.success(), "the zip was not made");
    Ok(zip)
}

/// What RKE would have left here: a zip of what etcd holds.
pub(crate) fn saved_as_rke_does(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    packed(cluster, &snapshot(cluster, name)?)
}

/// `snapshot` is a path or a name.
pub(crate) fn restore(cluster: &Cluster, snapshot: impl AsRef<Path>, more: &[&str]) -> Result<Ended> {
    let snapshot = snapshot.as_ref().display().to_string();
    cluster.bastide(&[&["etcd", "snapshot", "restore", &snapshot], &CONFIRM[..], more].concat())
}

#[track_caller]
pub(crate) fn succeeds(ended: &Ended, what: &str) {
    assert_eq!(ended.code, Some(0), "{what}: {ended}");
    println!("{what}: {:.1} s", ended.took.as_secs_f64());
}

/// Everything of `before` is there by content, nothing else that a test wrote is, and the cluster is well.
pub(crate) fn is_as(cluster: &Cluster, before: &str) -> Result<()> {
    cluster.wait_nodes_ready(3 * MINUTE)?;
    assert_eq!(written(cluster)?, before);
    let owners = cluster.hosts();
    for host in &owners {
        let strange = host.ssh("find /var/lib/etcd ! -user etcd -o ! -group etcd")?;
        assert_eq!(strange, "", "{}: not etcd's", host.name());
    }
    cluster.wait_pods_ready(5 * MINUTE)?;
    cluster.assert_plans_nothing();
    Ok(())
}

/// A restore that is killed where it says this for the first time.
fn killed_at(cluster: &Cluster, snapshot: impl AsRef<Path>, more: &[&str], words: &str) -> Result<()> {
    let snapshot = snapshot.as_ref().display().to_string();
    killed(cluster, &[&["etcd", "snapshot", "restore", &snapshot], more].concat(), words)
}

pub(crate) fn killed(cluster: &Cluster, verb: &[&str], words: &str) -> Result<()> {
    let (status, told) = when(cluster, verb, words, |child| Ok(child.kill()?))?;
    assert!(status.code().is_none(), "{words:?} was not reached: {status}\n{told}");
    Ok(())
}

/// Runs it, and does this whenever it says these words; how it ended, and what it told.
pub(crate) fn when(
    cluster: &Cluster,
    verb: &[&str],
    words: &str,
    act: impl Fn(&mut Child) -> Result<()>,
) -> Result<(ExitStatus, String)> {
    let arguments = [&["-v", "--log-format", "json"], verb, &CONFIRM[..]].concat();
    let mut child = cluster.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut told = String::new();
    for line in BufReader::new(child.stderr.take().context("stderr")?).lines() {
        let line = line?;
        let said =
            serde_json::from_str::<Value>(&line).ok().and_then(|line| Some(line["message"].as_str()?.to_owned()));
        told.push_str(&line);
        told.push('\n');
        if said.is_some_and(|said| said.starts_with(words)) {
            act(&mut child)?;
        }
    }
    Ok((child.wait()?, told))
}

/// What a restore says at the beginning of each kind of step.
const STEPS: [&str; 6] = [
    "removes /etc/kubernetes/manifests/kube-apiserver.yaml",
    "waits until kube-apiserver",
    "waits until etcd",
    "restores etcd's data",
    "writes /etc/kubernetes/manifests/etcd.yaml",
    "waits for etcd",
];

/// Which of so many cases the seed draws, by its digit at `place`.
fn drawn(cases: usize, place: u64) -> usize {
    usize::try_from(seed() / place).unwrap_or_default() % cases
}

/// The sample that runs on a cluster which another test made: a sealed snapshot, a restore cut off at a drawn step, and on
/// from there, or back.
pub(crate) fn comes_back_from_a_sealed_snapshot(cluster: &Cluster) -> Result<()> {
    cluster.wait_nodes_ready(3 * MINUTE)?;
    write(cluster, "before")?;
    let before = written(cluster)?;
    let node = cluster.add_file("node.yaml", "{apiVersion: v1, kind: Node, metadata: {name: left-since}}")?;
    cluster.kubectl(&["create", "-f", &node.display().to_string()])?;
    leases(cluster, "left-since")?;
    cluster.kubectl(&["create", "clusterrolebinding", "leaked-binding", "--clusterrole=view", "--user=eve"])?;
    cluster.kubectl(&["create", "secret", "generic", "leaked-secret"])?;
    // Taken by the host itself, which is as good as any.
    let kept = recurring::taken_by_its_host(cluster)?;
    let file = recurring::fetched(cluster, &kept)?;
    cluster.kubectl(&["delete", "node", "left-since", "--wait=false"])?;
    cluster.kubectl(&["delete", "clusterrolebinding/leaked-binding", "secret/leaked-secret"])?;
    write(cluster, "after")?;
    let after = written(cluster)?;
    assert_ne!(before, after);

    let running = cluster.host("h1").ssh("pgrep -x etcd")?;
    let asked = cluster.bastide(&["etcd", "snapshot", "restore", &kept])?;
    assert_eq!(asked.code, Some(1), "nobody can be asked: {asked}");
    for words in
        ["come back: default/leaked-secret", "come back: leaked-binding", "a last snapshot of what lives is taken"]
    {
        assert!(asked.to_string().contains(words), "the plan does not say {words:?}: {asked}");
    }
    let bytes = fs::read(&file)?;
    let mut flipped = bytes.clone();
    flipped[bytes.len() * (1 + drawn(8, 1)) / 10] ^= 1;
    fs::create_dir(cluster.folder().join("broken"))?;
    for (name, bytes) in [
        (&*format!("broken/{kept}.snapshot"), &flipped[..]),
        ("newest.snapshot", &bytes),
        ("kept.db", &bytes[..bytes.len() - 1]),
    ] {
        let path = cluster.folder().join(name);
        fs::write(&path, bytes)?;
        let refused = restore(cluster, &path, &[FOREIGN])?;
        assert_eq!(refused.code, Some(1), "{name}: {refused}");
    }
    assert_eq!(cluster.host("h1").ssh("pgrep -x etcd")?, running, "etcd was touched");

    let (step, back) = (STEPS[drawn(STEPS.len(), 1)], drawn(2, STEPS.len() as u64) == 1);
    println!("killed at {step:?}, and {}", if back { "back" } else { "on" });
    // By its name, from the host; or by its file here: it is the same snapshot.
    if back {
        killed_at(cluster, &kept, &[], step)?;
        let listed = cluster.bastide(&["etcd", "snapshot", "list"])?;
        assert!(listed.stdout.contains("before-restore_"), "no last snapshot was taken: {listed}");
        succeeds(&abort(cluster)?, "taken back");
        is_as(cluster, &after)?;
    }
    began_anew_on_an_empty_disk(cluster)?;
    let (refused, told) = (cluster.bastide(&["etcd", "snapshot", "restore", &kept])?, "is not this cluster's");
    assert!(refused.code == Some(1) && refused.to_string().contains(told), "an empty etcd counts as alive: {refused}");
    let refused = cluster.bastide(&["etcd", "snapshot", "save", "--name", "empty"])?;
    assert!(refused.code == Some(1) && refused.stderr.contains("began anew"), "an empty etcd is kept: {refused}");
    recurring::refused_by_its_host(cluster, "began anew")?;
    killed_at(cluster, &file, &[], step)?;
    succeeds(&restore(cluster, &kept, &["--timings"])?, "one host, its etcd disk lost");
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"])?;
    assert!(!nodes.contains("left-since"), "a node that came back and is in no file: {nodes}");
    let leases = ["-n", "kube-node-lease", "get", "leases", "-o", "name"];
    cluster.kubectl_until(&leases, 2 * MINUTE, |names| names.contains("h1") && !names.contains("left-since"))?;
    is_as(cluster, &before)?;
    let barred = cluster.bastide(&["rollback", "--yes"])?;
    let told = ["(etcd-restore)", "`bastide etcd snapshot restore ", "` leads past it"];
    assert!(barred.code == Some(1) && told.iter().all(|words| barred.stderr.contains(words)), "{barred}");
    Ok(())
}

/// As a kubelet leaves word that it lives.
fn leases(cluster: &Cluster, node: &str) -> Result<()> {
    let uid = cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.metadata.uid}"])?;
    let owner = format!("{{apiVersion: v1, kind: Node, name: {node}, uid: {uid}}}");
    let metadata = format!("{{name: {node}, namespace: kube-node-lease, ownerReferences: [{owner}]}}");
    let lease = format!("{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {metadata}}}");
    let file = cluster.add_file("lease.yaml", &lease)?;
    cluster.kubectl(&["create", "-f", &file.display().to_string()]).map(drop)
}

/// Its only member's disk is lost while its manifest lies there.
fn began_anew_on_an_empty_disk(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h1");
    host.ssh("rm -rf /var/lib/etcd/member; pkill -9 -x etcd || true")?;
    host.until("test -e /var/lib/etcd/member/snap/db && curl -sf 127.0.0.1:2381/readyz", MINUTE).map(drop)
}

/// The sample that runs on a cluster which another test made: its only etcd is killed right after it acknowledged a write, does
/// not come back, and there is no snapshot.
pub(crate) fn comes_back_from_what_a_member_holds(cluster: &Cluster) -> Result<()> {
    let recover = ["etcd", "recover", "--from", "h1"];
    let refused = cluster.bastide(&[&recover, &CONFIRM[..]].concat())?;
    assert!(refused.code == Some(1) && refused.stderr.contains("quorum"), "etcd serves: {refused}");
    write(cluster, "unsaved")?;
    let before = written(cluster)?;
    let host = cluster.host("h1");
    put_etcdctl(cluster, "h1")?;
    // Nobody starts it again: its manifest goes while the kubelet does not look.
    host.ssh(&format!(
        "systemctl stop kubelet; {ETCDCTL} put /test/acknowledged yes && pkill -9 -x etcd; \
         rm /etc/kubernetes/manifests/etcd.yaml; systemctl start kubelet"
    ))?;
    let step = [STEPS[0], STEPS[2], "makes a database", STEPS[3], STEPS[4], STEPS[5]][drawn(6, 1)];
    println!("killed at {step:?}");
    killed(cluster, &recover, step)?;
    let refused = cluster.bastide(&["up", "--yes"])?;
    assert_eq!(refused.code, Some(1), "`up` in the middle of a recovery: {refused}");
    succeeds(&cluster.bastide(&[&recover, &CONFIRM[..], &["--timings"]].concat())?, "recovered from one member");
    assert_eq!(host.ssh(&format!("{ETCDCTL} get /test/acknowledged --print-value-only"))?.trim(), "yes");
    host.ssh(&format!("{ETCDCTL} del /test/acknowledged"))?;
    assert_eq!(host.ssh("ls -A /var/lib/bastide/recovered 2>/dev/null || :")?, "", "the database was left behind");
    is_as(cluster, &before)
}

/// etcdctl as a client of the member on the same host.
pub(crate) const ETCDCTL: &str = "/root/etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/etcd/pki/ca.crt \
                       --cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key";

pub(crate) fn put_etcdctl(cluster: &Cluster, host: &str) -> Result<()> {
    let series = if cluster.file.minor == "1.36" { "3.6" } else { "3.7" };
    let program = Cache::from_environment().folder().join(format!("artifacts/etcd-{series}/etcdctl"));
    let host = cluster.host(host);
    host.put(&program, "/root/etcdctl.new")?;
    // Somebody may be running the one that is there: it is not written over, but gives its name away.
    host.ssh("mv /root/etcdctl.new /root/etcdctl").map(drop)
}

fn abort(cluster: &Cluster) -> Result<Ended> {
    cluster.bastide(&[&["etcd", "snapshot", "restore", "--abort"], &CONFIRM[..]].concat())
}

#[test]
#[ignore = "a part of the soak"]
fn one_host_gets_back_what_its_snapshot_knows_and_a_restore_that_was_cut_off_goes_on_or_back() -> Result<()> {
    let cluster = Cluster::one_host()?;
    cluster.up();
    cluster.wait_nodes_ready(3 * MINUTE)?;
    write(&cluster, "before")?;
    let before = written(&cluster)?;
    let file = snapshot(&cluster, "snapshot.db")?;
    write(&cluster, "after")?;
    let after = written(&cluster)?;
    assert_ne!(before, after);

    refused_before_anything_stops(&cluster, &file)?;
    assert_eq!(written(&cluster)?, after);

    // The disk of the only member is lost. Nothing tells how far etcd was, but what is missing in it.
    began_anew_on_an_empty_disk(&cluster)?;
    let lost = restore(&cluster, &file, &[FOREIGN, "--timings"])?;
    succeeds(&lost, "one host, its etcd disk lost");
    assert!(lost.to_string().contains("is not this cluster's"), "an empty etcd counts as alive: {lost}");
    is_as(&cluster, &before)?;

    // RKE's zip of the same database.
    write(&cluster, "later")?;
    let zip = packed(&cluster, &file)?;
    succeeds(&restore(&cluster, &zip, &[FOREIGN])?, "a zip of RKE's");
    is_as(&cluster, &before)?;

    // The disk is lost once more, after the data were exchanged and before the restore came to its end.
    killed_at(&cluster, &file, &[FOREIGN], STEPS[5])?;
    began_anew_on_an_empty_disk(&cluster)?;
    succeeds(&restore(&cluster, &file, &[FOREIGN])?, "gone on with on a disk that was lost meanwhile");
    is_as(&cluster, &before)?;

    for step in STEPS {
        println!("killed at {step:?}");
        write(&cluster, "later")?;
        let later = written(&cluster)?;
        killed_at(&cluster, &file, &[FOREIGN], step)?;
        let refused = cluster.bastide(&["up", "--yes"])?;
        assert_eq!(refused.code, Some(1), "`up` in the middle of a restore: {refused}");
        assert!(refused.stderr.contains("--abort"), "{refused}");
        succeeds(&abort(&cluster)?, "taken back");
        is_as(&cluster, &later)?;
        killed_at(&cluster, &file, &[FOREIGN], step)?;
        succeeds(&restore(&cluster, &file, &[FOREIGN])?, "gone on with");
        is_as(&cluster, &before)?;
    }
    Ok(())
}

/// Damaged and unproven files are refused while everything still runs.
fn refused_before_anything_stops(cluster: &Cluster, file: &Path) -> Result<()> {
    let whole = fs::read(file)?;
    let broken = cluster.folder().join("broken.db");
    let etcd = || cluster.host("h1").ssh("pgrep -x etcd");
    let running = etcd()?;
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() - 100], &whole[..whole.len() - 4096], b"nothing"] {
        fs::write(&broken, bytes)?;
        let refused = restore(cluster, &broken, &[FOREIGN])?;
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("broken.db"), "{refused}");
    }
    let path = file.display().to_string();
    let unproven = cluster.bastide(&["etcd", "snapshot", "restore", &path, "--yes", "--cluster", "test"])?;
    assert_eq!(unproven.code, Some(1), "a plain database without --accept-foreign: {unproven}");
    let other = cluster.bastide(&["etcd", "snapshot", "restore", &path, FOREIGN, "--yes", "--cluster", "x"])?;
    assert_eq!(other.code, Some(1), "another cluster's name: {other}");
    assert_eq!(etcd()?, running, "etcd was touched");
    Ok(())
}

#[test]
#[ignore = "a part of the soak: API servers look for keys once a minute"]
fn a_snapshot_from_before_an_encryption_key_was_exchanged_restores_readable() -> Result<()> {
    let cluster = Cluster::one_host()?;
    cluster.up();
    cluster.wait_nodes_ready(3 * MINUTE)?;
    write(&cluster, "before")?;
    let before = written(&cluster)?;
    succeeds(&cluster.bastide(&["etcd", "snapshot", "save", "--name", "old-key"])?, "saved");
    succeeds(&cluster.bastide(&["encrypt", "rotate-key", "--yes"])?, "the key exchanged");
    write(&cluster, "after")?;
    let restored = restore(&cluster, "old-key", &[])?;
    succeeds(&restored, "restored from before the exchange");
    assert!(restored.to_string().contains("only reads"), "{restored}");
    is_as(&cluster, &before)?;
    assert_eq!(cluster.bastide(&["encrypt", "status"])?.code, Some(4), "two keys are in use");
    succeeds(&cluster.bastide(&["encrypt", "rotate-key", "--yes"])?, "the old key dropped");
    assert_eq!(cluster.bastide(&["encrypt", "status"])?.code, Some(0), "one key is in use");
    is_as(&cluster, &before)
}
