//! A control plane and a worker that does not answer: what is changed meanwhile, and what brings the worker there afterwards.

use anyhow::Result;
use bed::Node;

use crate::support::Cluster;
use crate::support::Ended;

const PATIENCE: std::time::Duration = std::time::Duration::from_mins(5);
const CA: [&str; 5] = ["rotate-certs", "--ca", "--authority", "front-proxy", "--yes"];

/// Does something while the worker is off, which must end with 3, and switches it on again.
#[track_caller]
fn without_the_worker(cluster: &Cluster, arguments: &[&str]) -> Result<Ended> {
    let worker = cluster.host("h2");
    worker.power_cut()?;
    let ended = cluster.ends(arguments, 3);
    worker.power_on()?;
    worker.wait()?;
    cluster.wait_nodes_ready(PATIENCE)?;
    Ok(ended)
}

fn most_pods(cluster: &Cluster) -> Result<String> {
    let script = "tr '\\0' '\\n' < /proc/$(pgrep -x kubelet)/cmdline | sed -n 's/^--max-pods=//p'";
    cluster.hosts().iter().map(|host| Ok(format!("{} ", host.ssh(script)?.trim()))).collect()
}

fn newest(cluster: &Cluster) -> Result<u64> {
    Ok(cluster.newest()?["id"]["number"].as_u64().unwrap_or_default())
}

#[test]
#[ignore = "long: soak alone"]
fn a_worker_that_was_away_is_brought_there_by_what_the_command_said() -> Result<()> {
    let mut cluster = Cluster::of(vec![Node::all_roles("h1"), Node::with("h2", &["worker"])])?;
    cluster.file.metrics = false;
    cluster.write()?;
    let pods = |cluster: &mut Cluster, most: &str| {
        cluster.file.more = format!("services: {{kubelet: {{extra_args: {{max-pods: {most}}}}}}}\n");
        cluster.write()
    };
    pods(&mut cluster, "101")?;
    cluster.up();
    pods(&mut cluster, "102")?;
    cluster.up();
    pods(&mut cluster, "103")?;
    cluster.up();
    assert_eq!(most_pods(&cluster)?, "103 103 ");

    // The same command would go on to revision 1.
    let back = without_the_worker(&cluster, &["rollback", "--yes"])?;
    assert!(back.stderr.contains("`bastide rollback --to 2` brings them there"), "{back}");
    assert_eq!(most_pods(&cluster)?, "102 103 ");
    cluster.ends(&["rollback", "--to", "2", "--yes"], 0);
    assert_eq!(most_pods(&cluster)?, "102 102 ");
    pods(&mut cluster, "102")?;
    cluster.assert_plans_nothing();

    // The same command would renew everything once more.
    let rotated = without_the_worker(&cluster, &["rotate-certs", "--yes"])?;
    assert!(rotated.stderr.contains("`bastide up` brings them there"), "{rotated}");
    cluster.ends(&["certs", "check"], 8);
    cluster.up();
    cluster.ends(&["certs", "check"], 0);
    cluster.assert_plans_nothing();

    // Two legs go without a worker, the last one waits for it.
    cluster.host("h2").power_cut()?;
    let waits = cluster.ends(&CA, 1);
    assert!(waits.stderr.contains("this needs h2") && waits.stderr.contains("bastide up"), "{waits}");
    let legs = newest(&cluster)?;
    cluster.host("h2").power_on()?;
    cluster.host("h2").wait()?;
    cluster.wait_nodes_ready(PATIENCE)?;
    cluster.ends(&CA, 1);
    assert_eq!(newest(&cluster)?, legs, "a leg was begun that a host had missed the one before of");
    cluster.up();
    cluster.ends(&CA, 0);
    cluster.assert_plans_nothing();
    Ok(())
}
