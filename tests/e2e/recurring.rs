//! Snapshots that etcd hosts take by themselves: taken when due, by one host, believed like any other, kept in number, and heard
//! of when they fail.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bed::Host;
use serde_json::Value;

use crate::checks;
use crate::support::Cluster;

const NEEDLE: &str = "s3cr3t-n33dl3";
const FOLDER: &str = "/var/lib/bastide/snapshots";
const SETTINGS: &str = "/etc/bastide/snapshots.json";
const SERVICE: &str = "bastide-snapshots.service";
const TIMER: &str = "bastide-snapshots.timer";
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The sample that runs on a cluster which another test made, and leaves nothing of its own there.
pub(crate) fn hosts_take_snapshots_by_themselves(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h1");
    cluster.create_secret("early", NEEDLE)?;
    assert_eq!(host.ssh(&format!("systemctl is-active {TIMER}; systemctl is-enabled {TIMER}"))?, "active\nenabled\n");
    cluster.assert_plans_nothing();
    let modes = host.ssh("stat -c '%a %U %n' /etc/bastide /etc/bastide/*")?;
    assert!(
        modes.lines().all(|line| line.starts_with("700 root /etc/bastide") || line.starts_with("600 root ")),
        "{modes}"
    );

    // One is due, and then none.
    let begun = Instant::now();
    host.ssh(&format!("systemctl start {SERVICE}"))?;
    println!("a host took a snapshot by itself in {:.1} s", begun.elapsed().as_secs_f64());
    host.ssh(&format!("systemctl start {SERVICE}"))?;
    let [first] = &names(&host)?[..] else { anyhow::bail!("{:?}", names(&host)?) };
    assert_eq!(host.ssh(&format!("stat -c '%a %U' {FOLDER} {FOLDER}/*"))?, "700 root\n600 root\n");
    let journal = host.ssh(&format!("journalctl --no-pager -o cat -u {SERVICE}"))?;
    assert!(journal.contains("none is due"), "{journal}");

    // It is sealed, believed, proven; and nothing that is nobody's business stands where others read.
    let row = row(cluster, first)?;
    assert_eq!((&row["manifest"]["why"], &row["manifest"]["member"]), (&"recurring".into(), &"h1".into()), "{row}");
    let bytes = fs::read(fetched(cluster, first)?)?;
    assert!(!bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()), "it lies in clear");
    let verified = cluster.bastide(&["etcd", "snapshot", "verify", first, "--output", "json"])?;
    let proof: Value = serde_json::from_str(&verified.stdout).with_context(|| verified.to_string())?;
    assert!(proof["keys"] == proof["manifest"]["keys"] && proof["hash_equal"] != false, "{proof}");
    let settings: Value = serde_json::from_str(&host.ssh(&format!("cat {SETTINGS}"))?)?;
    let key = settings["signing_key"].as_str().context("no key")?.to_owned();
    let shown = host.ssh(&format!(
        "journalctl --no-pager -o cat; systemctl cat {SERVICE} {TIMER}; cat /var/lib/bastide/recurring.json"
    ))?;
    assert!(!shown.contains(&key) && !shown.contains(NEEDLE), "a secret is shown");
    let status = status(cluster, 0)?;
    assert_eq!(status["hosts"]["h1"]["recurring"]["last"]["name"], Value::from(first.as_str()), "{status}");

    // Whoever signs with another key is not believed.
    let program = program(&host)?;
    // The first letter of a key in base64, which is never padded away.
    let other = if key.starts_with('A') { "B" } else { "A" };
    host.ssh(&format!(
        "sed 's|\"signing_key\": \".|\"signing_key\": \"{other}|' {SETTINGS} > /root/foreign.json && {program} host snapshot --now /root/foreign.json"
    ))?;
    let forged = names(&host)?.into_iter().find(|name| name != first).context("no other one")?;
    let refused = cluster.bastide(&["etcd", "snapshot", "verify", &forged])?;
    assert!(refused.code == Some(1) && refused.stderr.contains("not signed by this cluster's identity"), "{refused}");
    assert!(self::row(cluster, &forged)?["manifest"].is_null());

    // As many stay as the settings say, of those that hosts of this cluster took.
    let saved = cluster.bastide(&["etcd", "snapshot", "save", "--name", "by-hand"])?;
    assert_eq!(saved.code, Some(0), "{saved}");
    host.ssh(&format!(
        "sed 's|\"retention\": .*,|\"retention\": 1,|' {SETTINGS} > /root/one.json && sleep 1 && {program} host snapshot --now /root/one.json"
    ))?;
    let left = names(&host)?;
    assert!(!left.contains(first) && left.contains(&forged) && left.len() == 2, "{left:?}");
    assert_eq!(host.ssh(&format!("ls {FOLDER} | grep -c by-hand"))?.trim(), "1");

    // A failure is seen: by systemd, by `status`, until the next one is taken.
    refused_by(&host, "mv /var/lib/bastide/state.age /root/", "mv /root/state.age /var/lib/bastide/", "state.age")?;
    let failed = self::status(cluster, 4)?;
    let words = failed["hosts"]["h1"]["recurring_troubles"][0].as_str().unwrap_or_default();
    assert!(words.contains("state.age"), "{failed}");
    taken_by_its_host(cluster)?;
    self::status(cluster, 0)?;
    host.ssh(&format!("rm -f {FOLDER}/* /root/foreign.json /root/one.json")).map(drop)
}

/// Makes one due and starts the service, which must take it. Returns its name.
pub(crate) fn taken_by_its_host(cluster: &Cluster) -> Result<String> {
    let host = cluster.host("h1");
    let before = names(&host)?;
    due(&host)?;
    host.ssh(&format!("sleep 1; systemctl start {SERVICE}"))?;
    names(&host)?.into_iter().find(|name| !before.contains(name)).context("the host took none")
}

/// Makes one due and starts the service, which must fail with these words in the journal.
pub(crate) fn refused_by_its_host(cluster: &Cluster, words: &str) -> Result<()> {
    refused_by(&cluster.host("h1"), ":", ":", words)
}

/// A copy of a host's snapshot among the cluster's files.
pub(crate) fn fetched(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let output = cluster.host("h1").command(&format!("cat {FOLDER}/{name}.snapshot")).output()?;
    let path = cluster.folder().join(format!("{name}.snapshot"));
    fs::write(&path, output.stdout)?;
    Ok(path)
}

/// A certificate that ends in nineteen days is told of: in the journal, once a day as a warning; and on the Node.
pub(crate) fn hosts_watch_their_certificates(cluster: &Cluster) -> Result<()> {
    const UNIT: &str = "bastide-certificates.service";
    const FILE: &str = "/etc/bastide/certificates.json";
    let host = cluster.host("h1");
    let warned = || host.ssh(&format!("journalctl --no-pager -o cat -p warning -u {UNIT}"));
    host.ssh(&format!("systemctl is-active bastide-certificates.timer && systemctl start {UNIT}"))?;
    assert_eq!(warned()?, "", "new certificates are warned of");

    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let today = rcgen::date_time_ymd(1970, 1, 1) + since;
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "old");
    parameters.not_before = today - 300 * 24 * HOUR;
    // Whatever the second in which the host looks: less than twenty days.
    parameters.not_after = today + (20 * 24 - 1) * HOUR;
    let pem = parameters.self_signed(&rcgen::KeyPair::generate()?)?.pem();
    let old = cluster.add_file("old.crt", &pem)?;
    host.put(&old, "/etc/kubernetes/pki/old.crt")?;
    host.ssh(&format!(
        "cp -p {FILE} /root/watch.json && sed -i 's|\"files\": \\[|&\"/etc/kubernetes/pki/old.crt\",|' {FILE} && systemctl start {UNIT}"
    ))?;
    let told = warned()?;
    assert!(
        told.contains("certificate /etc/kubernetes/pki/old.crt (old) ends in 19 days") && told.lines().count() == 1,
        "{told}"
    );
    let described = cluster.kubectl(&["describe", "node", "h1"])?;
    assert!(
        described.contains("CertificateEndsSoon") && described.contains("/etc/kubernetes/pki/old.crt"),
        "{described}"
    );
    host.ssh(&format!("sleep 1; systemctl start {UNIT}"))?;
    assert_eq!(warned()?, told, "it is a warning again on the same day");
    host.ssh(&format!("mv /root/watch.json {FILE} && rm /etc/kubernetes/pki/old.crt"))?;
    cluster.assert_plans_nothing();
    Ok(())
}

fn refused_by(host: &Host<'_>, before: &str, after: &str, words: &str) -> Result<()> {
    due(host)?;
    host.ssh(before)?;
    let started = host.ssh(&format!("systemctl start {SERVICE}"));
    let failed = host.ssh("systemctl --failed --no-legend --plain")?;
    let journal = host.ssh(&format!("journalctl --no-pager -o cat -n 20 -u {SERVICE}"))?;
    host.ssh(after)?;
    anyhow::ensure!(
        started.is_err() && failed.contains(SERVICE) && journal.contains(words),
        "{started:?} {failed} {journal}"
    );
    Ok(())
}

/// Whatever was taken is forgotten.
fn due(host: &Host<'_>) -> Result<()> {
    etcdctl(host, "del /bastide/snapshots/last").map(drop)
}

/// Where a leader was lost, an election takes its time.
fn etcdctl(host: &Host<'_>, arguments: &str) -> Result<String> {
    let script = format!(
        "crictl=$(ls /opt/bastide/crictl-*/crictl | head -n 1); $crictl exec $($crictl ps -q --name '^etcd$' | head -n 1) etcdctl \
         --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/pki/ca.crt --cert=/etc/etcd/pki/healthcheck-client.crt \
         --key=/etc/etcd/pki/healthcheck-client.key {arguments}"
    );
    host.until(&script, MINUTE)
}

fn program(host: &Host<'_>) -> Result<String> {
    let line = host.ssh(&format!("systemctl show -p ExecStart --value {SERVICE}"))?;
    let path = line.split("path=").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(path.with_context(|| line.clone())?.to_owned())
}

/// Names of the host's recurring snapshots, oldest first.
fn names(host: &Host<'_>) -> Result<Vec<String>> {
    let listed = host.ssh(&format!("ls {FOLDER} 2>/dev/null | grep '^recurring_' || :"))?;
    Ok(listed.lines().map(|line| line.trim_end_matches(".snapshot").to_owned()).collect())
}

fn row(cluster: &Cluster, name: &str) -> Result<Value> {
    let listed = cluster.bastide(&["etcd", "snapshot", "list", "--output", "json"])?;
    let rows: Value = serde_json::from_str(&listed.stdout).with_context(|| listed.to_string())?;
    let mut rows = rows["snapshots"].as_array().cloned().unwrap_or_default().into_iter();
    rows.find(|row| row["name"] == name).with_context(|| listed.to_string())
}

fn status(cluster: &Cluster, code: i32) -> Result<Value> {
    let ended = cluster.bastide(&["status", "--output", "json"])?;
    anyhow::ensure!(ended.code == Some(code), "status did not end with {code}: {ended}");
    Ok(serde_json::from_str(&ended.stdout)?)
}

/// Of three hosts one takes it and the others leave it at that; when it is down another steps in.
#[test]
#[ignore = "five minutes; `cargo xtask soak` runs it"]
fn of_three_hosts_one_takes_it_and_another_steps_in() -> Result<()> {
    let mut cluster = Cluster::three_all_roles()?;
    cluster.file.metrics = false;
    cluster.recurring()?;
    let before = checks::traces(&cluster)?;
    let up = cluster.bastide(&["up", "--yes", "--no-identity-backup", "--timings"])?;
    anyhow::ensure!(up.code == Some(0), "{up}");
    println!("{}", up.stderr);
    cluster.assert_plans_nothing();
    let hosts = cluster.hosts();
    let start = |host: &Host<'_>| host.ssh(&format!("systemctl start {SERVICE}"));
    let count = |host: &Host<'_>| Ok::<_, anyhow::Error>(names(host)?.len());

    // All at once: one snapshot.
    std::thread::scope(|scope| {
        let all: Vec<_> = hosts.iter().map(|host| scope.spawn(move || start(host))).collect();
        all.into_iter().try_for_each(|one| one.join().expect("the thread ended").map(drop))
    })?;
    let counts = hosts.iter().map(count).collect::<Result<Vec<_>>>()?;
    assert_eq!(counts.iter().sum::<usize>(), 1, "{counts:?}");
    let first = counts.iter().position(|count| *count == 1).context("nobody took one")?;
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);

    // Whoever is taking one holds the turn; where it died, its claim ends by itself.
    etcdctl(&hosts[first], "del /bastide/snapshots/last")?;
    let lease = etcdctl(&hosts[first], "lease grant 20")?;
    let lease = lease.split_whitespace().nth(1).context("no lease")?.to_owned();
    etcdctl(&hosts[first], &format!("put --lease={lease} /bastide/snapshots/claim 'dead 1'"))?;
    start(&hosts[second])?;
    assert_eq!(count(&hosts[second])?, 0, "it took one out of turn");
    hosts[second].until(&format!("systemctl start {SERVICE}; ls {FOLDER} | grep -q recurring_"), MINUTE)?;

    // The first is off; one is due again: another takes it.
    hosts[first].power_cut()?;
    etcdctl(&hosts[second], "del /bastide/snapshots/last")?;
    start(&hosts[third])?;
    assert_eq!(count(&hosts[third])?, 1);
    hosts[first].power_on()?;
    hosts[first].wait()?;
    cluster.wait_nodes_ready(3 * MINUTE)?;
    cluster.wait_pods_ready(3 * MINUTE)?;
    let listed = cluster.bastide(&["etcd", "snapshot", "list", "--output", "json"])?;
    let rows: Value = serde_json::from_str(&listed.stdout)?;
    let rows = rows["snapshots"].as_array().context("no rows")?;
    assert!(rows.len() == 3 && rows.iter().all(|row| row["manifest"]["why"] == "recurring"), "{listed}");
    status(&cluster, 0)?;

    // And off they go.
    let removed = cluster.bastide(&["remove", "--yes", "--cluster", "test", "--purge"])?;
    anyhow::ensure!(removed.code == Some(0), "{removed}");
    let after = checks::traces(&cluster)?;
    for (host, traces) in &before {
        checks::assert_same(host, traces, &after[host]);
    }
    Ok(())
}
