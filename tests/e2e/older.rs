//! A cluster that an older bastide made, and left to this one.

use std::process::Command;

use anyhow::Context as _;
use anyhow::Result;

use crate::support::Cluster;

/// What the three clients of a host's API server read, and what runs of them.
fn seen(cluster: &Cluster) -> Result<String> {
    let script = "cd /etc/kubernetes; cat *.conf pki/*/client.pem pki/*.crt manifests/*.yaml 2>/dev/null | sha256sum; ls pki; \
                  for name in kube-controller-manager kube-scheduler kube-proxy; do /opt/bastide/crictl-*/crictl ps -q --name \"^$name$\"; done";
    cluster.hosts().iter().map(|host| host.ssh(script)).collect()
}

/// The older program with the same surroundings.
fn older(cluster: &Cluster, arguments: &[&str]) -> Result<Command> {
    let program = std::env::var_os("BASTIDE_OLDER_PROGRAM").context("BASTIDE_OLDER_PROGRAM names no older bastide")?;
    let ours = cluster.command(arguments);
    let mut command = cluster.bed.command(program);
    command.args(arguments).current_dir(cluster.folder());
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command)
}

#[test]
#[ignore = "BASTIDE_OLDER_PROGRAM names the older bastide that makes the cluster"]
fn a_cluster_of_an_older_bastide_is_moved_on_rotated_and_taken_back() -> Result<()> {
    let cluster = Cluster::one_host()?;
    let made = older(&cluster, &["up", "--yes", "--no-identity-backup"])?.output()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let first = seen(&cluster)?;
    println!("{first}");
    // Certificates are renewed as they were laid out, and come back.
    let ends = |arguments: &[&str], code: i32| {
        let ended = cluster.bastide(arguments).unwrap();
        assert_eq!(ended.code, Some(code), "bastide {arguments:?}: {ended}");
        println!("bastide {}: {:.1} s", arguments.join(" "), ended.took.as_secs_f64());
        ended
    };
    ends(&["rotate-certs", "--yes"], 0);
    ends(&["rollback", "--yes"], 0);
    let plan = ends(&["plan"], 2);
    println!("{}", plan.stdout);
    cluster.up();
    cluster.assert_plans_nothing();
    ends(&["status"], 0);
    let second = seen(&cluster)?;
    println!("{second}");
    assert_ne!(second, first);
    ends(&["rollback", "--to", "1", "--yes"], 0);
    ends(&["diff", "--live"], 0);
    cluster.wait_nodes_ready(std::time::Duration::from_mins(1))?;
    // The older one has nothing to do there.
    let again = older(&cluster, &["plan"])?.output()?;
    println!("{}", String::from_utf8_lossy(&again.stdout));
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));
    cluster.up();
    cluster.assert_plans_nothing();
    let removed = ends(&["remove", "--cluster", "test", "--yes"], 0);
    println!("{}", removed.stderr);
    let left = cluster.host("h1").ssh("ls -A /etc/kubernetes 2>/dev/null; true")?;
    assert!(left.trim().is_empty(), "{left}");
    Ok(())
}
