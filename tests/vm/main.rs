//! One host on a stock virtual machine: cgroup v2, its own kernel, and none of the options that test hosts need. Only in
//! `cargo xtask soak`: emulation makes it take the better part of an hour.
#![allow(clippy::print_stdout)]

use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use bed::Cache;
use bed::Machine;

const MINOR: &str = "1.37";

#[test]
fn a_stock_machine_becomes_a_hardened_node_without_any_option() -> Result<()> {
    let cache = Cache::from_environment();
    let machine = Machine::boot("soak", 2299)?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("known_hosts"), machine.known_hosts()?)?;
    let version = fs::read_to_string(cache.kubernetes(MINOR).join("version"))?;
    let file = format!(
        "\
cluster_name: machine
kubernetes_version: {version}
ssh_key_path: {key}
nodes:
  - address: 127.0.0.1
    port: {port}
    internal_address: {internal}
    hostname_override: vm1
    user: root
    role: [controlplane, etcd, worker]
network:
  plugin: flannel
ingress:
  provider: none
services:
  etcd: {{backup_config: {{enabled: false}}}}
bastide:
  pki: {{warn_days: 0}}
  artifacts:
    bundle: {bundle}
  ssh:
    known_hosts: {known_hosts}
  deadlines:
    transfer: 60m
    health: 60m
    ready: 60m
",
        version = version.trim(),
        key = machine.key().display(),
        port = machine.port(),
        internal = Machine::ADDRESS,
        bundle = fs::canonicalize(cache.bundle(MINOR))?.display(),
        known_hosts = folder.path().join("known_hosts").display(),
    );
    fs::write(folder.path().join("cluster.yml"), file)?;
    let bastide = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_bastide"))
            .args(arguments)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path().join("config"))
            .env("XDG_STATE_HOME", folder.path().join("state"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .status()
    };
    let start = Instant::now();
    ensure!(bastide(&["up", "--yes", "--no-identity-backup"])?.success(), "bastide up");
    println!("up took {:?}", start.elapsed());
    ensure!(bastide(&["plan"])?.code() == Some(0), "a plan after up has changes");

    ensure!(machine.ssh("stat -fc %T /sys/fs/cgroup")?.trim() == "cgroup2fs");
    send(&machine, &cache.kubernetes(MINOR).join("bin"), "kubectl", "/usr/local/bin")?;
    let ready = "kubectl --kubeconfig /etc/kubernetes/admin.conf wait --for=condition=Ready node/vm1 --timeout=30m";
    ensure!(machine.ssh(ready)?.contains("condition met"));
    machine.ssh("mkdir -p /opt/kube-bench")?;
    send(&machine, &cache.common().join("bin"), "kube-bench", "/opt/kube-bench")?;
    send(&machine, &cache.common().join("kube-bench"), "cfg", "/opt/kube-bench")?;
    let verdict = bed::judge_by(|script| machine.ssh(script))?;
    ensure!(verdict.fail == 0 && verdict.pass >= 90, "{verdict:#?}");
    Ok(())
}

fn send(machine: &Machine, folder: &std::path::Path, what: &str, target: &str) -> Result<()> {
    let mut packing =
        Command::new("tar").arg("-C").arg(folder).args(["-cf", "-", what]).stdout(Stdio::piped()).spawn()?;
    let unpacked = match packing.stdout.take() {
        Some(pipe) => machine.command(&format!("tar -C {target} -xf -")).stdin(pipe).status()?.success(),
        None => false,
    };
    ensure!(packing.wait()?.success() && unpacked, "sending {what}");
    Ok(())
}
