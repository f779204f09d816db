//! Members that a restore went without, and one that joins.

use std::collections::BTreeMap;

use crate::model::HostName;
use crate::render;
use crate::render::Rendered;
use crate::render::tests::support;
use crate::secrets::Secrets;

/// Three hosts without these members, and with this one joining.
fn rendered(secrets: &Secrets, away: &[&str], joining: Option<&str>) -> Rendered {
    let cluster = support::cluster(support::THREE_HOSTS);
    let mut secrets = secrets.clone();
    secrets.etcd.away = away.iter().map(|name| HostName::new(*name).unwrap()).collect();
    secrets.etcd.joining = joining.map(|name| HostName::new(name).unwrap());
    let signers = support::signers(&cluster);
    render::desired(&cluster, &secrets, &support::release(), &[], &BTreeMap::new(), Some(&signers)).unwrap()
}

#[test]
fn api_servers_know_no_member_that_a_restore_went_without_and_etcds_manifests_stay_as_they_are() {
    let secrets = support::secrets(&support::cluster(support::THREE_HOSTS));
    let (all, without) = (rendered(&secrets, &[], None), rendered(&secrets, &["h3"], None));
    let servers = |rendered: &Rendered, host: &str| rendered.flags(host, "kube-apiserver")["etcd-servers"].clone();
    assert_eq!(servers(&all, "h2"), "https://192.0.2.12:2379,https://192.0.2.11:2379,https://192.0.2.13:2379");
    assert_eq!(servers(&without, "h2"), "https://192.0.2.12:2379,https://192.0.2.11:2379");
    for host in ["h1", "h2", "h3"] {
        let manifest = "/etc/kubernetes/manifests/etcd.yaml";
        assert_eq!(all.text(host, manifest), without.text(host, manifest), "{host}: a member's birth data changed");
    }
}

#[test]
fn only_the_member_that_joins_expects_a_cluster_that_exists() {
    let secrets = support::secrets(&support::cluster(support::THREE_HOSTS));
    let (joining, joined) = (rendered(&secrets, &[], Some("h3")), rendered(&secrets, &[], None));
    let state = |host: &str| joining.flags(host, "etcd")["initial-cluster-state"].clone();
    assert_eq!(["h1", "h2", "h3"].map(state), ["new", "new", "existing"]);
    let inputs = |rendered: &Rendered| rendered.host("h3").pods["etcd"];
    assert_ne!(inputs(&joining), inputs(&joined), "nobody would wait for the one to take the other's place");
}
