//! From cluster.yml's logins to open connections, all hosts at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::config;
use crate::config::Cluster;
use crate::config::Node;
use crate::config::PasswordSource;
use crate::host::HostError;
use crate::host::Machine;
use crate::host::ssh;
use crate::host::ssh::SshResources;
use crate::host::ssh::SshTarget;
use crate::host::ssh::SshWire;
use crate::model::Content;
use crate::model::HostName;
use crate::ops::OpsError;

/// A host as the commands see it.
pub(super) type RealHost = Machine<SshWire>;

/// Hosts that answered, and why the others did not.
pub(super) struct Connected {
    /// By node name.
    pub hosts: BTreeMap<HostName, RealHost>,
    /// In words.
    pub unreachable: BTreeMap<HostName, HostError>,
}

/// Connects to every node of the file.
///
/// A host that does not answer is reported as unreachable; one that answers wrongly (an unknown or another host key, a
/// refused login) is an error, and so is what stands in the way on this side, because no later run would fare better.
pub(super) async fn connect(cluster: &Cluster, resources: &Arc<SshResources>) -> Result<Connected, OpsError> {
    let password = password(cluster.ssh.sudo_password.as_ref())?;
    let attempts = cluster.nodes.iter().map(|node| {
        let target = target(cluster, node, password.clone());
        let resources = Arc::clone(resources);
        async move { (node.name.clone(), ssh::connect(target, &resources).await) }
    });
    let mut connected = Connected { hosts: BTreeMap::new(), unreachable: BTreeMap::new() };
    let mut wrong = Vec::new();
    for (name, outcome) in join_all(attempts).await {
        match outcome {
            Ok(wire) => {
                connected.hosts.insert(name.clone(), Machine::new(name, wire, cluster.options.deadlines.transfer));
            }
            Err(error) if error.is_silence() => {
                connected.unreachable.insert(name, error);
            }
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() { Ok(connected) } else { Err(OpsError::Hosts(wrong)) }
}

/// How `node` is reached.
pub(super) fn target(cluster: &Cluster, node: &Node, sudo_password: Option<Content>) -> SshTarget {
    let mut target = SshTarget::new(node.name.clone(), node.address.clone(), node.login.clone());
    target.jumps.clone_from(&cluster.ssh.jumps);
    target.known_hosts = known_hosts(cluster);
    target.sudo_password = sudo_password;
    target.relay = cluster.options.dial_direct;
    target.connect_timeout = cluster.ssh.connect_timeout;
    target.keepalive = Duration::from_secs(5);
    target
}

/// The files that host keys are looked up in; the first is where new ones are recorded.
pub(super) fn known_hosts(cluster: &Cluster) -> Vec<PathBuf> {
    if cluster.ssh.known_hosts.is_empty() { ssh::default_known_hosts() } else { cluster.ssh.known_hosts.clone() }
}

/// What stands in the file or the variable that cluster.yml names.
pub(super) fn password(source: Option<&PasswordSource>) -> Result<Option<Content>, OpsError> {
    match source {
        None => Ok(None),
        Some(PasswordSource::File(path)) => {
            let bytes = config::read_bytes(path).map_err(|source| OpsError::local(path, source))?;
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            Ok(Some(Content::new(line.strip_suffix(b"\r").unwrap_or(line))))
        }
        Some(PasswordSource::Environment(name)) => match std::env::var(name) {
            Ok(value) => Ok(Some(Content::new(value))),
            Err(_) => Err(OpsError::NoVariable { name: name.clone() }),
        },
    }
}
