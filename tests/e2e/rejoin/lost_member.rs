//! One member's disk is lost while the others have quorum: it is replaced, and nobody who writes notices.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;

use super::ETCD_WAS_TRIED;
use super::REJOIN;
use super::STEPS;
use super::all_hold_the_same;
use super::comes_back;
use super::members;
use super::up_with_a_snapshot;
use crate::losses::reinstalled;
use crate::restore::CONFIRM;
use crate::restore::ETCDCTL;
use crate::restore::is_as;
use crate::restore::killed;
use crate::restore::put_etcdctl;
use crate::restore::succeeds;
use crate::restore::when;
use crate::restore::written;
use crate::support::Cluster;
use crate::support::Ended;

const REPLACE: [&str; 3] = ["etcd", "rejoin", "h3"];
/// Its etcd dies with all that it held.
const LOSES_ITS_DATA: &str = "rm -rf /var/lib/etcd/member; pkill -9 -x etcd; rm -rf /var/lib/etcd/member";
/// Two writes a second, each of which says whether etcd acknowledged it. The first waits for a leader: the one that was lost may have been
/// it, which is no matter of its replacement.
const WRITES: &str = "until ETCDCTL --command-timeout 5s put /test/writes/0 0; do sleep 0.5; done; echo 0 >> /root/acknowledged; \
                      at=0; while [ ! -e /root/enough ]; do at=$((at + 1)); \
                      if why=$(ETCDCTL --command-timeout 5s put /test/writes/$at $at 2>&1); then echo $at >> /root/acknowledged; \
                      else echo \"$(date +%T) $at: $why\" >> /root/refused; fi; sleep 0.5; done";

fn replace(cluster: &Cluster) -> Result<Ended> {
    cluster.bastide(&[&REPLACE[..], &CONFIRM[..], &["--timings"]].concat())
}

/// Begins to write by the member on h1.
fn writes(cluster: &Cluster) -> Result<()> {
    put_etcdctl(cluster, "h1")?;
    let script = format!("#!/bin/sh\n{}\n", WRITES.replace("ETCDCTL", ETCDCTL));
    let file = cluster.add_file("writes.sh", &script)?;
    let host = cluster.host("h1");
    host.put(&file, "/root/writes.sh")?;
    host.ssh("systemd-run --quiet --unit writes sh /root/writes.sh")?;
    host.until("test -s /root/acknowledged", Duration::from_mins(1)).map(drop)
}

/// Ends it. Every write was acknowledged within its five seconds, and each of them is there, by the member that was replaced.
fn all_writes_are_there(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h1");
    host.ssh("touch /root/enough; while systemctl -q is-active writes; do sleep 0.2; done")?;
    assert_eq!(host.ssh("cat /root/refused 2>/dev/null || true")?, "", "writes that failed meanwhile");
    let acknowledged = host.ssh("sort -n /root/acknowledged")?;
    put_etcdctl(cluster, "h3")?;
    let there = cluster
        .host("h3")
        .ssh(&format!("{ETCDCTL} get /test/writes/ --prefix --print-value-only | sed '/^$/d' | sort -n"))?;
    assert_eq!(there.trim(), acknowledged.trim());
    println!("{} writes meanwhile", acknowledged.lines().count());
    host.ssh(&format!("{ETCDCTL} del --prefix /test/writes/")).map(drop)
}

/// `up`, `plan` and `status` name the host and the command, and nothing is changed.
fn is_told(cluster: &Cluster) -> Result<()> {
    for verb in [&["up", "--yes"][..], &["plan"], &["status"]] {
        let ended = cluster.bastide(verb)?;
        assert!(ended.to_string().contains("`bastide etcd rejoin h3`"), "{verb:?}: {ended}");
        assert_eq!(ended.code, Some(if verb[0] == "status" { 4 } else { 1 }), "{verb:?}: {ended}");
    }
    Ok(())
}

#[test]
#[ignore = "a part of the soak"]
fn a_member_that_lost_its_data_is_replaced_while_the_others_go_on() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    up_with_a_snapshot(&cluster, &[])?;
    let before = written(&cluster)?;
    let well = replace(&cluster)?;
    assert!(well.code == Some(1) && well.stderr.contains("nothing is to be replaced"), "{well}");

    cluster.host("h3").ssh(LOSES_ITS_DATA)?;
    writes(&cluster)?;
    is_told(&cluster)?;
    let up = cluster.bastide(&["up", "--yes", "--without", "h3"])?;
    assert_eq!(up.code, Some(3), "{up}");
    for step in STEPS {
        println!("killed at {step:?}");
        killed(&cluster, &REPLACE, step)?;
        let refused = cluster.bastide(&["up", "--yes"])?;
        assert!(refused.code == Some(1) && refused.to_string().contains("--rejoin"), "{refused}");
        assert_eq!(written(&cluster)?, before);
    }
    let replaced = replace(&cluster)?;
    println!("{replaced}");
    succeeds(&replaced, "replaced, from the fourth try on");
    all_hold_the_same(&cluster)?;
    all_writes_are_there(&cluster)?;
    let snapshots = cluster.bastide(&["etcd", "snapshot", "list"])?;
    assert_eq!(snapshots.stdout.matches("before-rejoin_").count(), 1, "{snapshots}");
    is_as(&cluster, &before)
}

#[test]
#[ignore = "a part of the soak"]
fn a_member_whose_host_is_installed_anew_is_replaced_or_given_up() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    up_with_a_snapshot(&cluster, &[])?;
    let before = written(&cluster)?;
    reinstalled(&cluster, &["h3"])?;
    is_told(&cluster)?;
    succeeds(&replace(&cluster)?, "replaced on an empty disk");
    all_hold_the_same(&cluster)?;
    is_as(&cluster, &before)?;

    // Once more, and it is gone while it joins.
    reinstalled(&cluster, &["h3"])?;
    killed(&cluster, &REPLACE, "waits for etcd")?;
    cluster.host("h3").power_cut()?;
    let given_up = replace(&cluster)?;
    assert_eq!(given_up.code, Some(3), "{given_up}");
    assert_eq!(members(&cluster)?, (2, 0), "the learner is left behind");
    comes_back(&cluster, "h3", "after it was given up", ETCD_WAS_TRIED)?;
    let refused = cluster.bastide(&["up", "--yes"])?;
    assert!(refused.code == Some(1) && refused.to_string().contains("--rejoin"), "{refused}");
    succeeds(&cluster.bastide(&[&REJOIN[..], &CONFIRM[..]].concat())?, "joined another time");
    all_hold_the_same(&cluster)?;
    is_as(&cluster, &before)
}

/// The others are out of the learner's reach from the moment on in which it was announced. Once it has started, it has all of a small
/// database within a second, too soon to be cut off.
#[test]
#[ignore = "a part of the soak"]
fn a_learner_that_gets_no_further_is_taken_out_again() -> Result<()> {
    let mut cluster = Cluster::three_all_roles()?;
    up_with_a_snapshot(&cluster, &[])?;
    let before = written(&cluster)?;
    "  deadlines: {health: 60s}\n".clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    cluster.host("h3").ssh(LOSES_ITS_DATA)?;
    writes(&cluster)?;
    let (status, told) = when(&cluster, &REPLACE, "joins etcd as a learner", |_| {
        cluster.bed.partition("h1", "h3")?;
        cluster.bed.partition("h2", "h3")
    })?;
    assert_eq!(status.code(), Some(1), "{told}");
    let why = told.lines().find(|line| line.contains("got no further")).context(told.clone())?;
    println!("{why}");
    assert!(told.contains("h3 is taken out of etcd again") && why.contains("for 60 s"), "{told}");
    assert_eq!(members(&cluster)?, (2, 0));
    let runs = cluster.host("h3").ssh("pgrep -x etcd || ls /etc/kubernetes/manifests/etcd.yaml 2>/dev/null || true")?;
    assert_eq!(runs, "", "a member that was taken out is not started again and again");
    cluster.bed.unite()?;
    succeeds(&replace(&cluster)?, "joined once the others are in reach");
    all_hold_the_same(&cluster)?;
    all_writes_are_there(&cluster)?;
    is_as(&cluster, &before)
}
