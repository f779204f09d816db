//! A member that was away while etcd was restored comes back with the old data, harms nobody, and joins as a learner.

mod lost_member;

use anyhow::Context as _;
use anyhow::Result;
use bed::Node;
use serde_json::Value;

use crate::losses::reinstalled;
use crate::restore::CONFIRM;
use crate::restore::ETCDCTL;
use crate::restore::MINUTE;
use crate::restore::is_as;
use crate::restore::killed;
use crate::restore::put_etcdctl;
use crate::restore::restore;
use crate::restore::succeeds;
use crate::restore::write;
use crate::restore::written;
use crate::support::Cluster;

const REJOIN: [&str; 4] = ["etcd", "snapshot", "restore", "--rejoin"];
/// What it says at the beginning of each kind of step, in order. The last one begins when the member has its vote.
const STEPS: [&str; 4] = [
    "takes etcd's old data away",
    "joins etcd as a learner",
    "waits for etcd",
    "writes /etc/kubernetes/manifests/kube-apiserver",
];

fn rejoin(cluster: &Cluster) -> Result<crate::support::Ended> {
    cluster.bastide(&[&REJOIN[..], &CONFIRM[..], &["--timings"]].concat())
}

/// How many members etcd has by its own account, with a vote and without.
fn members(cluster: &Cluster) -> Result<(usize, usize)> {
    put_etcdctl(cluster, "h1")?;
    let listed = cluster.host("h1").ssh(&format!("{ETCDCTL} member list -w json"))?;
    let listed: Value = serde_json::from_str(&listed)?;
    let members = listed["members"].as_array().context("no members")?;
    let learners = members.iter().filter(|member| member["isLearner"] == true).count();
    Ok((members.len() - learners, learners))
}

/// Every member answers, has a vote, and holds the same.
pub(crate) fn all_hold_the_same(cluster: &Cluster) -> Result<()> {
    let all = cluster.hosts().len();
    assert_eq!(members(cluster)?, (all, 0));
    let status = cluster.bastide(&["etcd", "status", "--output", "json"])?;
    assert_eq!(status.code, Some(0), "{status}");
    let status: Value = serde_json::from_str(&status.stdout)?;
    let hashes: Vec<_> =
        status["members"].as_object().context("no members")?.values().map(|member| &member["hash"]).collect();
    assert!(hashes.len() == all && hashes.iter().all(|hash| **hash == *hashes[0] && hash.is_u64()), "{status}");
    Ok(())
}

/// With the old data of `host` back on the network, every write is taken at once.
fn is_not_disturbed(cluster: &Cluster, round: &str) -> Result<()> {
    for at in 0..20 {
        let name = format!("undisturbed-{round}-{at}");
        cluster.kubectl(&["create", "configmap", &name, "--request-timeout=5s"])?;
        cluster.kubectl(&["delete", "configmap", &name, "--request-timeout=5s"])?;
    }
    Ok(())
}

/// `up`, `plan` and `status` name the host and the command.
fn is_told(cluster: &Cluster) -> Result<()> {
    for verb in [&["up", "--yes"][..], &["plan"], &["status"]] {
        let ended = cluster.bastide(verb)?;
        let told = ended.to_string();
        assert!(told.contains("h3") && told.contains("bastide etcd snapshot restore --rejoin"), "{verb:?}: {ended}");
        assert_eq!(ended.code, Some(if verb[0] == "status" { 4 } else { 1 }), "{verb:?}: {ended}");
    }
    Ok(())
}

/// Switches it on, and waits until `ready` there; `what` says which of the returns it is.
fn comes_back(cluster: &Cluster, name: &str, what: &str, ready: &str) -> Result<()> {
    let host = cluster.host(name);
    host.power_on()?;
    host.wait()?;
    host.until(ready, 2 * MINUTE).with_context(|| format!("{name} {what}")).map(drop)
}

/// A member whose data are its own runs on by itself.
const ETCD_RUNS: &str = "pgrep -x etcd";
/// A learner that was taken out while it was away ends whenever it starts: the others do not list it any more.
const ETCD_WAS_TRIED: &str = "journalctl -b -u kubelet | grep -q 'restarting failed container=etcd' || pgrep -x etcd";

/// Brings it up with a snapshot `kept`, in these places besides the hosts, that lacks what was written last; what it holds.
pub(crate) fn up_with_a_snapshot(cluster: &Cluster, places: &[&str]) -> Result<String> {
    cluster.up();
    cluster.wait_nodes_ready(3 * MINUTE)?;
    write(cluster, "before")?;
    let before = written(cluster)?;
    let save = ["etcd", "snapshot", "save", "--name", "kept"];
    succeeds(&cluster.bastide(&[&save[..], places].concat())?, "saved");
    write(cluster, "lost")?;
    Ok(before)
}

#[test]
#[ignore = "a part of the soak"]
fn a_member_that_comes_back_with_the_old_clusters_data_joins_as_a_learner() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    let before = up_with_a_snapshot(&cluster, &[])?;
    cluster.host("h3").power_cut()?;
    let without = restore(&cluster, "kept", &["--without", "h3"])?;
    assert_eq!(without.code, Some(3), "{without}");
    assert_eq!(written(&cluster)?, before);
    assert_eq!(members(&cluster)?, (2, 0), "whom the restore went without is no member");
    let still = rejoin(&cluster)?;
    assert!(still.code == Some(1) && still.stderr.contains("h3: still away"), "{still}");
    write(&cluster, "after")?;
    let after = written(&cluster)?;

    comes_back(&cluster, "h3", "with the old cluster's data", ETCD_RUNS)?;
    is_not_disturbed(&cluster, "old-data")?;
    is_told(&cluster)?;
    let up = cluster.bastide(&["up", "--yes", "--without", "h3"])?;
    assert_eq!(up.code, Some(3), "{up}");
    is_told(&cluster)?;
    assert_eq!((members(&cluster)?, written(&cluster)?), ((2, 0), after.clone()));

    for step in STEPS {
        println!("killed at {step:?}");
        killed(&cluster, &REJOIN, step)?;
        let refused = cluster.bastide(&["up", "--yes"])?;
        assert!(refused.code == Some(1) && refused.to_string().contains("--rejoin"), "{refused}");
        assert_eq!(written(&cluster)?, after);
    }
    let joined = rejoin(&cluster)?;
    succeeds(&joined, "joined, from the fourth try on");
    all_hold_the_same(&cluster)?;
    let aside = cluster.host("h3").ssh("ls -d /var/lib/etcd.before-*/member && stat -c '%a %U' /var/lib/etcd")?;
    assert!(aside.lines().count() == 2 && aside.ends_with("700 etcd\n"), "{aside}");
    is_as(&cluster, &after)?;
    let again = rejoin(&cluster)?;
    assert!(again.code == Some(1) && again.stderr.contains("have joined since"), "{again}");
    Ok(())
}

/// The host goes away once more while it joins; the cluster goes on without it, and it joins when it is back.
#[test]
#[ignore = "a part of the soak"]
fn a_member_that_is_gone_again_while_it_joins_is_given_up_and_joins_another_time() -> Result<()> {
    let cluster = &Cluster::three_all_roles()?;
    let before = up_with_a_snapshot(cluster, &[])?;
    cluster.host("h3").power_cut()?;
    assert_eq!(restore(cluster, "kept", &["--without", "h3"])?.code, Some(3));
    comes_back(cluster, "h3", "with the old cluster's data", ETCD_RUNS)?;
    killed(cluster, &REJOIN, "waits for etcd")?;
    cluster.host("h3").power_cut()?;
    let refused = cluster.bastide(&["up", "--yes", "--without", "h3"])?;
    assert_eq!(refused.code, Some(1), "in the middle of it: {refused}");
    let given_up = rejoin(cluster)?;
    assert_eq!(given_up.code, Some(3), "{given_up}");
    assert_eq!(members(cluster)?, (2, 0), "the learner is left behind");
    let up = cluster.bastide(&["up", "--yes", "--without", "h3"])?;
    assert_eq!(up.code, Some(3), "{up}");

    comes_back(cluster, "h3", "after its learner was taken out", ETCD_WAS_TRIED)?;
    is_not_disturbed(cluster, "learner")?;
    is_told(cluster)?;
    let joined = rejoin(cluster)?;
    succeeds(&joined, "joined at one go");
    all_hold_the_same(cluster)?;
    is_as(cluster, &before)
}

/// Two of five are away; the three others make an etcd that would survive the loss of one more, and both come back at one go, one of
/// them with an empty disk.
#[test]
#[ignore = "a part of the soak"]
fn two_of_five_members_come_back_one_after_the_other() -> Result<()> {
    let members_only = ["h2", "h3", "h4", "h5"].map(|host| Node::with(host, &["etcd"]));
    let cluster = Cluster::of([Node::all_roles("h1")].into_iter().chain(members_only).collect())?;
    let before = up_with_a_snapshot(&cluster, &[])?;
    for host in ["h4", "h5"] {
        cluster.host(host).power_cut()?;
    }
    let without = restore(&cluster, "kept", &["--without", "h4", "--without", "h5", "--timings"])?;
    assert_eq!(without.code, Some(3), "{without}");
    println!("five members, two of them dead: {:.1} s", without.took.as_secs_f64());
    assert_eq!((members(&cluster)?, written(&cluster)?), ((3, 0), before));
    cluster.host("h2").power_cut()?;
    write(&cluster, "after")?;
    let after = written(&cluster)?;
    cluster.host("h2").power_on()?;
    cluster.host("h2").wait()?;
    cluster.host("h2").until("curl -sf 127.0.0.1:2381/readyz", MINUTE)?;

    comes_back(&cluster, "h4", "with the old cluster's data", ETCD_RUNS)?;
    reinstalled(&cluster, &["h5"])?;
    let joined = rejoin(&cluster)?;
    println!("{joined}");
    succeeds(&joined, "two members joined");
    all_hold_the_same(&cluster)?;
    is_as(&cluster, &after)
}
