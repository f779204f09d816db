//! A cluster of one host between two changes: kept as it is, brought back, and told from what it is later.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bed::Host;
use serde_json::Value;
use tempfile::TempDir;

use crate::kills::from;
use crate::support::Cluster;
use crate::support::Ended;

pub(super) const HOST: &str = "h1";
pub(super) const PATIENCE: Duration = Duration::from_mins(5);

/// A host at rest with everything that its operator had then.
pub(super) struct Rest {
    /// Of the host's file systems.
    snapshot: &'static str,
    pub(super) folder: TempDir,
    /// All that bastide manages there, but for programs and what the kubelet renews.
    pub(super) digests: String,
    pub(super) newest: Value,
}

impl Rest {
    /// Keeps the host as it is, and leaves it off.
    pub(super) fn of(cluster: &Cluster, snapshot: &'static str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy_folder(cluster.folder(), folder.path())?;
        let digests = digests(cluster)?;
        let newest = newest(cluster, cluster.folder())?;
        let host = cluster.host(HOST);
        host.shut_down()?;
        host.save(snapshot)?;
        Ok(Self { snapshot, folder, digests, newest })
    }

    pub(super) fn again(&self, cluster: &Cluster) -> Result<()> {
        let host = cluster.host(HOST);
        // It may be off, after the last case or because it was kept.
        _ = host.power_cut();
        host.restore(self.snapshot)?;
        taken_over(self.folder.path(), cluster.folder())?;
        started(cluster)
    }

    /// The state in `folder` says so, nothing differs from it, nothing is half done; `exactly`: every file has the digest of then.
    pub(super) fn is_reached(&self, cluster: &Cluster, folder: &Path, exactly: bool) -> Result<()> {
        let newest = newest(cluster, folder)?;
        ensure!(newest["state"]["state"] == "reached", "{newest}");
        if exactly {
            let digests = digests(cluster)?;
            let differ: Vec<_> = digests.lines().filter(|line| !self.digests.contains(*line)).collect();
            ensure!(digests == self.digests, "other files than then: {differ:?}");
        } else {
            ensure!(newest["why"] == self.newest["why"], "{newest} in the place of {}", self.newest);
        }
        let live = from(cluster, folder, &["diff", "--live"])?;
        ensure!(live.code == Some(0), "diff --live: {live}");
        // What was taken back is in cluster.yml still.
        let file = folder.join("cluster.yml");
        let text = fs::read_to_string(&file)?;
        fs::copy(self.folder.path().join("cluster.yml"), &file)?;
        let plan = from(cluster, folder, &["plan"])?;
        fs::write(&file, text)?;
        ensure!(plan.code == Some(0), "plan: {plan}");
        nothing_is_half_done(&cluster.host(HOST))
    }
}

pub(super) fn nothing_is_half_done(host: &Host<'_>) -> Result<()> {
    let left = host.ssh("find /etc /opt /var/lib/bastide -name '.*.bastide' -o -path /var/lib/bastide/staging -o -path /var/lib/bastide/pending")?;
    ensure!(left.is_empty(), "{}: half done: {left}", host.name());
    Ok(())
}

pub(super) fn started(cluster: &Cluster) -> Result<()> {
    let host = cluster.host(HOST);
    host.power_on()?;
    host.wait()?;
    cluster.wait_nodes_ready(PATIENCE)?;
    cluster.wait_pods_ready(PATIENCE)
}

fn digests(cluster: &Cluster) -> Result<String> {
    cluster.host(HOST).ssh(
        "find /etc/kubernetes /etc/etcd /etc/containerd /etc/systemd/system /var/lib/kube-proxy /var/lib/kubelet/config.yaml \
         -type f -exec sha256sum {} + 2>/dev/null | sort -k 2; ls /opt/bastide",
    )
}

fn newest(cluster: &Cluster, folder: &Path) -> Result<Value> {
    let ended: Ended = from(cluster, folder, &["history", "--output", "json"])?;
    let seen: Value = serde_json::from_str(&ended.stdout).with_context(|| ended.to_string())?;
    seen["revisions"].as_array().and_then(|all| all.last().cloned()).context("no revision")
}

/// The state in one folder takes the place of the one in another.
pub(super) fn taken_over(from: &Path, to: &Path) -> Result<()> {
    for name in ["cluster.bastide", "config", "state"] {
        let path = to.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    copy_folder(from, to)
}

/// All that lies in a folder into another one.
pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let everything: PathBuf = from.join(".");
    let status = Command::new("cp").arg("-a").arg(&everything).arg(to).status()?;
    ensure!(status.success(), "cp {}: {status}", from.display());
    Ok(())
}
