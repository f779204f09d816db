//! Three hosts: the next patch version of Kubernetes, and back; also from a run that died halfway, either way.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bed::Cache;
use serde_json::Value;

use crate::soak::Place;
use crate::soak::Record;
use crate::support::Cluster;
use crate::support::network;

const PATIENCE: Duration = Duration::from_mins(5);
const NEXT: &str = "1.37-next";

/// What every node's kubelet, and every API server by itself, says that it is.
fn versions(cluster: &Cluster) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.status.nodeInfo.kubeletVersion}{\"\\n\"}{end}";
    let mut all: Vec<String> = cluster.kubectl(&["get", "nodes", "-o", path])?.lines().map(str::to_owned).collect();
    for host in cluster.hosts() {
        let server = format!("https://{}:6443", host.address());
        let said: Value = serde_json::from_str(&cluster.kubectl(&["--server", &server, "get", "--raw", "/version"])?)?;
        all.push(said["gitVersion"].as_str().context("no version")?.to_owned());
    }
    all.sort();
    Ok(all)
}

fn built(minor: &str) -> Result<String> {
    Ok(fs::read_to_string(Cache::from_environment().kubernetes(minor).join("version"))?.trim().to_owned())
}

/// Containers of the pods that are not bastide's own, with when they were started.
fn containers(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].containerID} \
                {.status.containerStatuses[*].state.running.startedAt}{\"\\n\"}{end}";
    cluster.kubectl(&["get", "pods", "-n", "default", "-o", path])
}

fn runs(cluster: &Cluster, arguments: &[&str], version: &str) -> Result<()> {
    let before = containers(cluster)?;
    let ended = cluster.bastide(arguments)?;
    ensure!(ended.code == Some(0), "{ended}");
    println!("bastide {} to {version}: {:.1} s", arguments.join(" "), ended.took.as_secs_f64());
    let seen = versions(cluster)?;
    ensure!(seen.len() == 2 * cluster.hosts().len() && seen.iter().all(|seen| seen == version), "{seen:?}");
    ensure!(containers(cluster)? == before, "{before} became {}", containers(cluster)?);
    cluster.wait_nodes_ready(PATIENCE)?;
    cluster.wait_pods_ready(PATIENCE)
}

/// Kills an `up` once one of the API servers runs the other version and another does not yet.
fn dies_between(cluster: &Cluster, version: &str) -> Result<()> {
    let mut child = cluster.command(&["up", "--yes"]).stderr(std::process::Stdio::null()).spawn()?;
    let start = Instant::now();
    loop {
        // Whoever is being restarted does not answer.
        let moved = versions(cluster).is_ok_and(|seen| seen.iter().any(|seen| seen == version));
        if moved {
            child.kill()?;
            child.wait()?;
            let seen = versions(cluster).unwrap_or_default();
            println!("killed after {:.1} s at {seen:?}", start.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(child.try_wait()?.is_none(), "the run ended before");
        ensure!(start.elapsed() < PATIENCE, "the version never came");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
#[ignore = "a part of the soak"]
fn the_next_patch_and_back() -> Result<()> {
    let mut cluster = Cluster::three_all_roles()?;
    let first = cluster.file.minor.clone();
    let (old, new) = (built(&first)?, built(NEXT)?);
    ensure!(old != new, "{old}");
    cluster.up();
    cluster.wait_nodes_ready(PATIENCE)?;
    network::runs_a_web_server_on_each(&cluster)?;
    cluster.wait_pods_ready(PATIENCE)?;
    let mut record = Record::open()?;
    record.exist(5, &format!("{old} and {new}, three hosts with all roles"))?;
    let place = |kind: &str| Place { kind: kind.to_owned(), host: "all three".to_owned() };
    let set = |cluster: &mut Cluster, minor: &str| {
        minor.clone_into(&mut cluster.file.minor);
        cluster.write()
    };

    set(&mut cluster, NEXT)?;
    record.case(&place("up"), "the next patch", || runs(&cluster, &["up", "--yes"], &new))?;
    ensure!(cluster.snapshots_before("before-up")? == 1, "no snapshot was taken before the version changed");
    record.case(&place("rollback"), "back", || runs(&cluster, &["rollback", "--yes"], &old))?;
    record.case(&place("up that died"), "and on to the next patch", || {
        dies_between(&cluster, &new)?;
        runs(&cluster, &["up", "--yes"], &new)
    })?;
    record.case(&place("rollback"), "back, the second time", || runs(&cluster, &["rollback", "--yes"], &old))?;
    record.case(&place("up that died"), "and back", || {
        dies_between(&cluster, &new)?;
        runs(&cluster, &["rollback", "--yes"], &old)
    })?;
    set(&mut cluster, &first)?;
    cluster.assert_plans_nothing();
    record.end()
}
