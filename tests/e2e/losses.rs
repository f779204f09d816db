//! Disks, hosts and addresses are lost, and the cluster comes back on what is left.

use std::fs;

use anyhow::Result;
use bed::Node;

use crate::rejoin::all_hold_the_same;
use crate::rejoin::up_with_a_snapshot;
use crate::restore::CONFIRM;
use crate::restore::ETCDCTL;
use crate::restore::FOREIGN;
use crate::restore::MINUTE;
use crate::restore::is_as;
use crate::restore::put_etcdctl;
use crate::restore::restore;
use crate::restore::snapshot;
use crate::restore::succeeds;
use crate::restore::write;
use crate::restore::written;
use crate::support::Cluster;

/// All that is left is a snapshot, the identity and cluster.yml; the host is another one, at another address.
#[test]
#[ignore = "a part of the soak"]
fn a_snapshot_and_the_identity_give_the_cluster_back_on_a_new_host_at_a_new_address() -> Result<()> {
    let mut cluster = Cluster::of(vec![Node::all_roles("h1"), Node::all_roles("h2")])?;
    cluster.file.nodes = vec![Node::all_roles("h1")];
    cluster.write()?;
    let before = up_with_a_snapshot(&cluster, &["--local", "."])?;
    cluster.host("h1").power_cut()?;
    fs::remove_dir_all(cluster.folder().join("cluster.bastide"))?;
    cluster.file.nodes = vec![Node::all_roles("h2")];
    cluster.write()?;
    let restored = restore(&cluster, cluster.folder().join("kept.snapshot"), &["--timings"])?;
    succeeds(&restored, "on a new host at a new address, from snapshot and identity");
    is_as(&cluster, &before)?;
    assert_eq!(cluster.kubectl(&["get", "nodes", "-o", "name"])?.trim(), "node/h2");
    succeeds(&cluster.bastide(&["state", "check"])?, "the state is whole");

    // Back at the other address, under the same name, with the state folder.
    reinstalled(&cluster, &["h1"])?;
    cluster.host("h2").power_cut()?;
    cluster.file.nodes = vec![Node { name: "h2".to_owned(), ..Node::all_roles("h1") }];
    cluster.write()?;
    let restored = restore(&cluster, cluster.folder().join("kept.snapshot"), &[])?;
    succeeds(&restored, "the same name at a new address");
    let ready = "jsonpath={.status.nodeInfo.bootID}{.status.conditions[?(@.type==\"Ready\")].status}";
    let want = format!("{}True", cluster.host("h1").boot_id()?);
    cluster.kubectl_until(&["get", "node", "h2", "-o", ready], 3 * MINUTE, |text| text == want)?;
    assert_eq!(written(&cluster)?, before);
    cluster.wait_pods_ready(5 * MINUTE)?;
    cluster.assert_plans_nothing();
    Ok(())
}

/// Quorum is lost for good right after a write was acknowledged, and there is no snapshot.
#[test]
#[ignore = "a part of the soak"]
fn three_hosts_come_back_from_the_one_that_survived() -> Result<()> {
    let mut cluster = Cluster::three_all_roles()?;
    cluster.up();
    cluster.wait_nodes_ready(3 * MINUTE)?;
    write(&cluster, "before")?;
    let before = written(&cluster)?;
    // The one that survives may lead, and know what is committed, or not.
    for survivor in ["h3", "h1"] {
        let lost: Vec<_> = ["h1", "h2", "h3"].into_iter().filter(|name| *name != survivor).collect();
        put_etcdctl(&cluster, survivor)?;
        let acknowledged = format!("{ETCDCTL} put /test/acknowledged {survivor}");
        cluster.host(survivor).ssh(&acknowledged)?;
        for name in &lost {
            cluster.host(name).power_cut()?;
        }
        reinstalled(&cluster, &lost)?;
        let recover = ["etcd", "recover", "--from", survivor];
        let recovered = cluster.bastide(&[&recover, &CONFIRM[..], &["--timings"]].concat())?;
        succeeds(&recovered, &format!("recovered from {survivor} alone, {lost:?} installed anew"));
        let seen = cluster.host(survivor).ssh(&format!("{ETCDCTL} get /test/acknowledged --print-value-only"))?;
        assert_eq!(seen.trim(), survivor);
        is_as(&cluster, &before)?;
    }

    // Two hosts are gone for good, and no longer in the file.
    for name in ["h1", "h3"] {
        cluster.host(name).power_cut()?;
    }
    cluster.file.nodes = vec![Node::all_roles("h2")];
    cluster.write()?;
    let recover = ["etcd", "recover", "--from", "h2"];
    succeeds(&cluster.bastide(&[&recover, &CONFIRM[..]].concat())?, "recovered from h2 alone, which stays alone");
    assert_eq!(cluster.kubectl(&["get", "nodes", "-o", "name"])?.trim(), "node/h2");
    is_as(&cluster, &before)
}

/// Fresh disks at the same addresses.
pub(crate) fn reinstalled(cluster: &Cluster, hosts: &[&str]) -> Result<()> {
    for name in hosts {
        let host = cluster.host(name);
        host.wipe()?;
        host.power_on()?;
    }
    for name in hosts {
        cluster.host(name).wait()?;
    }
    cluster.write()
}

#[test]
#[ignore = "a part of the soak"]
fn three_hosts_survive_the_loss_of_one_two_or_all_disks() -> Result<()> {
    let losses: &[&[&str]] = &[&["h2"], &["h1", "h3"], &["h1", "h2", "h3"]];
    let cluster = Cluster::three_all_roles()?;
    cluster.up();
    cluster.wait_nodes_ready(3 * MINUTE)?;
    write(&cluster, "before")?;
    let before = written(&cluster)?;
    let file = snapshot(&cluster, "snapshot.db")?;
    for lost in losses {
        write(&cluster, "after")?;
        reinstalled(&cluster, lost)?;
        succeeds(&restore(&cluster, &file, &[FOREIGN])?, &format!("the disks of {lost:?} lost"));
        is_as(&cluster, &before)?;
    }
    Ok(())
}

/// One command, whatever the number of members: all five hold what the snapshot knows, although two disks are new.
#[test]
#[ignore = "a part of the soak"]
fn five_members_get_back_what_a_snapshot_knows_by_one_command() -> Result<()> {
    let planes = ["h2", "h3"].map(|host| Node::with(host, &["controlplane", "etcd"]));
    let members_only = ["h4", "h5"].map(|host| Node::with(host, &["etcd"]));
    let cluster = Cluster::of([Node::all_roles("h1")].into_iter().chain(planes).chain(members_only).collect())?;
    let before = up_with_a_snapshot(&cluster, &[])?;
    succeeds(&restore(&cluster, "kept", &["--timings"])?, "five members that live");
    all_hold_the_same(&cluster)?;
    is_as(&cluster, &before)?;
    write(&cluster, "after")?;
    reinstalled(&cluster, &["h2", "h4"])?;
    succeeds(&restore(&cluster, "kept", &["--timings"])?, "five members, two of them on new disks");
    all_hold_the_same(&cluster)?;
    is_as(&cluster, &before)
}

/// All three are gone, and three others stand at other addresses, under other names.
#[test]
#[ignore = "a part of the soak"]
fn three_hosts_come_back_as_three_others_at_other_addresses() -> Result<()> {
    let nodes = |names: [&str; 3]| names.map(Node::all_roles).to_vec();
    let mut cluster = Cluster::of([nodes(["h1", "h2", "h3"]), nodes(["h4", "h5", "h6"])].concat())?;
    cluster.file.nodes = nodes(["h1", "h2", "h3"]);
    cluster.file.metrics = false;
    cluster.write()?;
    let before = up_with_a_snapshot(&cluster, &["--local", "."])?;
    for name in ["h1", "h2", "h3"] {
        cluster.host(name).power_cut()?;
    }
    cluster.file.nodes = nodes(["h4", "h5", "h6"]);
    cluster.write()?;
    let restored = restore(&cluster, cluster.folder().join("kept.snapshot"), &["--timings"])?;
    succeeds(&restored, "three new hosts at three new addresses");
    all_hold_the_same(&cluster)?;
    is_as(&cluster, &before)?;
    assert_eq!(cluster.kubectl(&["get", "nodes", "-o", "name"])?.lines().count(), 3);
    Ok(())
}

/// Hosts and state are lost, and cluster.yml asks for a newer minor by now.
#[test]
#[ignore = "a part of the soak"]
fn a_snapshot_of_an_older_minor_restores_with_the_programs_of_its_release() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    let newer = std::mem::replace(&mut cluster.file.minor, "1.36".to_owned());
    cluster.write()?;
    let before = up_with_a_snapshot(&cluster, &["--local", "."])?;
    let kubelet = ["get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}"];
    let version = cluster.kubectl(&kubelet)?;

    fs::remove_dir_all(cluster.folder().join("cluster.bastide"))?;
    cluster.file.minor = newer;
    reinstalled(&cluster, &["h1"])?;
    let file = cluster.folder().join("kept.snapshot");
    let refused = restore(&cluster, &file, &[])?;
    assert!(refused.code == Some(1) && refused.stderr.contains(&format!("kubernetes_version: {version}")), "{refused}");
    let there = cluster.host("h1").ssh("ls /etc/kubernetes/manifests 2>/dev/null | wc -l")?;
    assert_eq!(there.trim(), "0", "something was written: {refused}");

    cluster.file.minor = "1.36".to_owned();
    cluster.write()?;
    succeeds(&restore(&cluster, &file, &[])?, "with the release of its time");
    assert_eq!(cluster.kubectl(&kubelet)?, version);
    is_as(&cluster, &before)
}
