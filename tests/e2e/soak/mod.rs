//! The parts of `cargo xtask soak` that no other test has: too long for every day, hence ignored unless they are named.

mod changes;
mod journey;
mod matrix;
mod record;
mod rest;
mod snapshots;

use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;
use bed::Node;

use self::matrix::By;
pub(crate) use self::record::Place;
pub(crate) use self::record::Record;
use crate::support::Cluster;
use crate::support::network;

const OLDER_MINOR: &str = "1.36";
const PATIENCE: Duration = Duration::from_mins(10);

fn three() -> Vec<Node> {
    ["h1", "h2", "h3"].map(Node::all_roles).to_vec()
}

#[test]
#[ignore = "a part of the soak"]
fn kills_of_three_hosts() -> Result<()> {
    matrix::run(three(), None, By::Journeys)
}

#[test]
#[ignore = "a part of the soak"]
fn kills_of_three_hosts_each_alone() -> Result<()> {
    matrix::run(three(), None, By::Alone)
}

#[test]
#[ignore = "a part of the soak"]
fn kills_of_three_hosts_on_the_older_minor() -> Result<()> {
    matrix::run(three(), Some(OLDER_MINOR), By::Journeys)
}

#[test]
#[ignore = "a part of the soak"]
fn kills_with_roles_apart() -> Result<()> {
    let nodes =
        [("h1", "controlplane"), ("h2", "etcd"), ("h3", "worker")].map(|(host, role)| Node::with(host, &[role]));
    matrix::run(nodes.to_vec(), None, By::Journeys)
}

#[test]
#[ignore = "a part of the soak"]
fn kills_of_changes() -> Result<()> {
    changes::run()
}

#[test]
#[ignore = "a part of the soak"]
fn snapshots_of_one_host() -> Result<()> {
    snapshots::run(vec![Node::all_roles("h1")])
}

#[test]
#[ignore = "a part of the soak"]
fn snapshots_of_three_hosts() -> Result<()> {
    snapshots::run(three())
}

#[test]
#[ignore = "a part of the soak"]
fn three_hosts_on_the_older_minor() -> Result<()> {
    let mut cluster = Cluster::of(three())?;
    OLDER_MINOR.clone_into(&mut cluster.file.minor);
    cluster.write()?;
    let mut record = Record::open()?;
    record.exist(4, &format!("Kubernetes {OLDER_MINOR}"))?;
    let place = |kind: &str| Place { kind: kind.to_owned(), host: "all three".to_owned() };
    record.case(&place("up"), "a fresh up until all nodes and pods are ready", || stands(&cluster))?;
    record.case(&place("version"), "every node runs this minor", || {
        let versions =
            cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}"])?;
        let right = versions.split(' ').filter(|version| version.starts_with(&format!("v{OLDER_MINOR}."))).count();
        ensure!(right == 3, "{versions}");
        Ok(())
    })?;
    record.case(&place("network"), "pods, services and names over hosts", || {
        network::works_between_all_hosts(&cluster)
    })?;
    record.case(&place("kube-bench"), "no FAIL, at least 90 PASS", || judged(&cluster, 90))?;
    record.end()
}

#[test]
#[ignore = "a part of the soak"]
fn strict_profile() -> Result<()> {
    const STRICT: &str = "  hardening:\n    profile: strict\n";
    let mut cluster = Cluster::of(three())?;
    STRICT.clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    let mut record = Record::open()?;
    record.exist(6, "default and strict, on three hosts with all roles")?;
    let place = |kind: &str| Place { kind: kind.to_owned(), host: "all three".to_owned() };
    record.case(&place("up"), "a fresh up until all nodes and pods are ready, then a plan of nothing", || {
        stands(&cluster)
    })?;
    record.case(&place("kube-bench"), "strict: no FAIL, 92 PASS", || judged(&cluster, 92))?;
    for (from, to, options, least) in [("strict", "default", "", 90), ("default", "strict", STRICT, 92)] {
        options.clone_into(&mut cluster.file.more_options);
        cluster.write()?;
        record.case(&place("up"), &format!("from {from} to {to}, then a plan of nothing"), || stands(&cluster))?;
        record.case(&place("kube-bench"), &format!("{to}: no FAIL, {least} PASS"), || judged(&cluster, least))?;
    }
    record.end()
}

/// Brings it up; all is ready, and nothing is left to do.
fn stands(cluster: &Cluster) -> Result<()> {
    let up = cluster.bastide(&["up", "--yes", "--no-identity-backup"])?;
    ensure!(up.code == Some(0), "{up}");
    cluster.wait_nodes_ready(PATIENCE)?;
    cluster.wait_pods_ready(PATIENCE)?;
    let again = cluster.bastide(&["up", "--yes"])?;
    ensure!(again.code == Some(0) && again.stderr.contains("Nothing to do"), "{again}");
    Ok(())
}

fn judged(cluster: &Cluster, least: u64) -> Result<()> {
    for host in cluster.hosts() {
        let verdict = bed::judge(&host)?;
        println!("{}: {} PASS, {} FAIL, {} WARN", host.name(), verdict.pass, verdict.fail, verdict.warn);
        ensure!(verdict.fail == 0 && verdict.pass >= least, "{}: {verdict:#?}", host.name());
    }
    Ok(())
}
