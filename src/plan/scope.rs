//! Which paths and names a run looks at.

use crate::model::DesiredHost;
use crate::model::Keep;
use crate::model::Scope;
use crate::model::UnitName;

/// Port of the API server and of the balancer that stands in for it.
const API_PORT: u16 = 6443;
/// Ports of etcd for clients and for peers.
const ETCD_PORTS: [u16; 2] = [2379, 2380];
/// What etcd members and API servers show each other: without these nothing answers any more.
const LIFELINES: [&str; 4] = [
    "/etc/etcd/pki/server.crt",
    "/etc/etcd/pki/peer.crt",
    "/etc/kubernetes/pki/apiserver.crt",
    "/etc/kubernetes/pki/apiserver-etcd-client.crt",
];
/// Port of the kubelet.
const KUBELET_PORT: u16 = 10250;

/// What must be looked at to compare a host with `desired`. On the host its own record extends it by the paths that
/// earlier revisions wrote.
pub fn scope(desired: &DesiredHost) -> Scope {
    let mut scope = Scope {
        directories: desired.directories.iter().map(|directory| directory.path.clone()).collect(),
        units: desired
            .units
            .iter()
            .flat_map(|unit| [Some(unit.name.clone()), triggered(&unit.name)])
            .flatten()
            .collect(),
        users: desired.users.iter().map(|user| user.name.clone()).collect(),
        uids: desired.users.iter().map(|user| user.uid).collect(),
        // 6443 on every host: those without an API server bind it for the node-local balancer.
        ports: [API_PORT, KUBELET_PORT].into(),
        ..Scope::default()
    };
    if desired.roles.etcd() {
        scope.ports.extend(ETCD_PORTS);
    }
    for (path, file) in &desired.files {
        match file.keep {
            Keep::Managed if LIFELINES.contains(&path.as_str()) => scope.seeded.insert(path.clone()),
            Keep::Managed => scope.files.insert(path.clone()),
            Keep::Seeded { .. } => scope.seeded.insert(path.clone()),
        };
    }
    scope
}

/// The service that a timer starts: nobody restarts it for its inputs, and yet it can fail.
fn triggered(name: &UnitName) -> Option<UnitName> {
    UnitName::new(format!("{}.service", name.as_str().strip_suffix(".timer")?)).ok()
}
