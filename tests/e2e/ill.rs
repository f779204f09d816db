//! One host: changes that make a component ill, each another one, which `up` takes back by itself.

use anyhow::Result;

use crate::support::Cluster;

/// A component, and a flag of it that no table knows to be wrong and that ends it at its start; its last words name it.
const CASES: [(&str, &str, &str); 5] = [
    ("etcd", "etcd:\n    extra_args: {snapshot-count: many}", "snapshot-count"),
    ("kube-controller-manager", "kube-controller: {extra_args: {node-monitor-period: soon}}", "node-monitor-period"),
    ("kube-scheduler", "scheduler: {extra_args: {v: loud}}", "loud"),
    ("kubelet", "kubelet: {extra_args: {max-pods: many}}", "max-pods"),
    ("kube-proxy", "kubeproxy: {extra_args: {v: loud}}", "loud"),
];

/// The digest of the host's configuration.
fn seen(cluster: &Cluster) -> Result<String> {
    cluster
        .host("h1")
        .ssh("find /etc/kubernetes /etc/etcd /etc/systemd/system /var/lib/kubelet/config.yaml -type f | sort | xargs sha256sum | sha256sum")
}

#[test]
#[ignore = "long: soak alone"]
fn whatever_component_a_change_makes_ill_it_is_taken_back() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    // What never becomes well is waited for this long; what comes back must be well as soon.
    "  deadlines: {health: 90s}\n".clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    cluster.up();
    cluster.kubectl(&["create", "configmap", "kept"])?;
    let before = seen(&cluster)?;
    let mut wrong = Vec::new();
    for (component, services, said) in CASES {
        cluster.file.more = format!("services:\n  {services}\n");
        cluster.write()?;
        let ended = cluster.bastide(&["up", "--yes"])?;
        println!("{component}: exit code {:?} after {:.1} s", ended.code, ended.took.as_secs_f64());
        let after = seen(&cluster)?;
        if ended.code != Some(7) || !ended.stderr.contains(said) || after != before {
            wrong.push(format!(
                "{component}: files are {}\n{ended}",
                if after == before { "back" } else { "other ones" }
            ));
        }
        cluster.file.more.clear();
        cluster.write()?;
        cluster.up();
        cluster.kubectl(&["get", "configmap", "kept"])?;
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.assert_plans_nothing();
    Ok(())
}

/// A full disk, a folder that nobody may write to: no component is ill, so that a way back would mend nothing.
#[test]
#[ignore = "long: soak alone"]
fn a_step_that_fails_where_every_component_is_well_takes_nothing_back() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.up();
    cluster.file.more = "services: {kube-api: {extra_args: {event-ttl: 2h}}}\n".to_owned();
    cluster.write()?;
    let host = cluster.host("h1");
    let manifests = "/etc/kubernetes/manifests";
    host.ssh(&format!("mount --bind {manifests} {manifests} && mount -o remount,ro,bind {manifests}"))?;
    let left = cluster.ends(&["up", "--yes"], 1);
    assert!(left.stderr.contains("every component of h1 is well"), "{left}");
    let history = cluster.ends(&["history", "--output", "json"], 0);
    anyhow::ensure!(!history.stdout.contains("taken back"), "{history}");
    host.ssh(&format!("umount {manifests}"))?;
    cluster.ends(&["up", "--yes"], 0);
    cluster.assert_plans_nothing();
    Ok(())
}
