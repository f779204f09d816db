//! A cluster to make secrets for.

use crate::config::Cluster;
use crate::config::Node;
use crate::config::ParseOptions;
use crate::config::parse;
use crate::model::HostName;
use crate::model::Role;
use crate::secrets::Issued;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;
use crate::secrets::complete;

/// 2026-01-01T00:00:00Z.
pub(super) const NOW: i64 = 1_767_225_600;
pub(super) const DAY: i64 = 86_400;

/// `cp1` (control plane, etcd), `etcd1` (etcd; reached by name), `192.0.2.21` (worker, named by its address).
const CLUSTER: &str = "
cluster_name: demo
kubernetes_version: v1.37.1
nodes:
- {address: 192.0.2.11, internal_address: 10.0.0.11, hostname_override: cp1, user: root, role: [controlplane, etcd]}
- {address: etcd1.example.com, internal_address: 10.0.0.12, hostname_override: etcd1, user: root, role: [etcd]}
- {address: 192.0.2.21, user: root, role: [worker]}
network: {plugin: none}
monitoring: {provider: none}
ingress: {provider: none}
authentication: {sans: [API.example.com, 203.0.113.5]}
bastide: {api: {endpoint: k8s.example.com}}
";

pub(super) fn cluster() -> Cluster {
    let mut cluster = read(CLUSTER);
    // Certificates can carry what the other rooms do not serve yet.
    cluster.nodes[1].internal_address = "fd00::12".parse().unwrap();
    cluster
}

pub(super) fn read(text: &str) -> Cluster {
    let options = ParseOptions {
        file_name: "cluster.yml".to_owned(),
        supported: vec!["v1.37.1".parse().unwrap()],
        ..Default::default()
    };
    match parse(text, &options) {
        Ok(parsed) => parsed.cluster,
        Err(errors) => panic!("{errors:?}"),
    }
}

pub(super) fn node(name: &str, address: &str, internal: &str, roles: &[Role]) -> Node {
    let mut node = cluster().nodes.remove(2);
    node.name = HostName::new(name).unwrap();
    address.clone_into(&mut node.address);
    node.internal_address = internal.parse().unwrap();
    node.roles = roles.iter().copied().collect();
    node
}

pub(super) fn born(cluster: &Cluster) -> Secrets {
    complete(cluster, None, NOW, &mut SeededEntropy::new(1)).unwrap().0
}

pub(super) fn again(cluster: &Cluster, kept: &Secrets, now: i64) -> (Secrets, Vec<Issued>) {
    complete(cluster, Some(kept), now, &mut SeededEntropy::new(2)).unwrap()
}

/// `leaf of host: why` for each.
pub(super) fn shown(issued: &[Issued]) -> Vec<String> {
    issued.iter().map(|one| format!("{}: {}", one.id.describe(), one.why)).collect()
}
