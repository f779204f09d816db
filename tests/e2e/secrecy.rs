//! Where a cluster's own secrets may not be found: in no output, journal, plan, file in clear, or process argument.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use anyhow::ensure;

use crate::support::Cluster;
use crate::support::Ended;

/// A line of every private key, the key that encrypts at rest, and the keys in kubeconfigs: one a line.
const SECRETS: &str = r#"
    grep -rhA1 -e '-----BEGIN [A-Z ]*PRIVATE KEY-----' /etc/kubernetes /etc/etcd /var/lib/kubelet/pki | grep -v -e '^--'
    sed -n 's/^ *secret: *"*\([^"]*\)"*$/\1/p' /etc/kubernetes/enc/encryption.yaml
    sed -n 's/^ *client-key-data: *//p' /etc/kubernetes/*.conf"#;
/// Notes what processes are started with.
const WATCH: &str = r"
    while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n'; sleep 0.3; done > /run/arguments";

/// From now on every host notes what processes are started with.
pub(crate) fn watch_arguments(cluster: &Cluster) -> Result<()> {
    let script = cluster.add_file("watch", WATCH)?;
    for host in cluster.hosts() {
        host.put(&script, "/run/")?;
        host.ssh("systemd-run --quiet --unit arguments sh /run/watch")?;
    }
    Ok(())
}

/// After a run that told everything.
pub(crate) fn no_secret_is_shown(cluster: &Cluster, run: &Ended) -> Result<()> {
    let mut secrets = BTreeSet::new();
    for host in cluster.hosts() {
        host.ssh(&format!("systemctl stop arguments; ({SECRETS}) | sort -u > /run/secrets"))?;
        secrets.extend(host.ssh("cat /run/secrets")?.lines().map(str::to_owned));
        let found = |where_: &str| host.ssh(&format!("{where_} | grep -cFf /run/secrets || true"));
        // The search would have found them.
        ensure!(found("cat /etc/kubernetes/pki/*.key")?.trim() != "0", "{}: no key is known", host.name());
        ensure!(
            host.ssh("grep -c kubelet /run/arguments || true")?.trim() != "0",
            "{}: nothing was noted",
            host.name()
        );
        for place in ["cat /run/arguments", "journalctl -o cat"] {
            ensure!(found(place)?.trim() == "0", "{}: a secret in `{place}`", host.name());
        }
    }
    // Sixteen keys at least: etcd has three, the control plane its own, kubelet and kube-proxy theirs.
    ensure!(secrets.len() > 16 && secrets.iter().all(|secret| secret.len() >= 32), "{} secrets", secrets.len());

    let plan = cluster.bastide(&["plan", "--output", "json"])?;
    let status = cluster.bastide(&["-v", "status", "--output", "json"])?;
    let history = cluster.bastide(&["history", "--output", "json"])?;
    for ended in [run, &plan, &status, &history] {
        for output in [&ended.stdout, &ended.stderr] {
            is_free_of(&secrets, output.as_bytes(), "what was said")?;
        }
    }
    // The kubeconfig that was asked for is the one exception.
    let mut folders = vec![cluster.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.ends_with("kube_config_cluster.yml") => {}
                false => is_free_of(&secrets, &fs::read(&path)?, &path.display().to_string())?,
            }
        }
    }
    Ok(())
}

fn is_free_of(secrets: &BTreeSet<String>, bytes: &[u8], what: &str) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    ensure!(!text.contains("PRIVATE KEY-----"), "a key in {what}");
    ensure!(!secrets.iter().any(|secret| text.contains(secret.as_str())), "a secret in {what}");
    Ok(())
}
