//! All hosts of a cluster, and what they look like now.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use crate::host::Host;
use crate::host::HostError;
use crate::model::HostName;
use crate::model::ObservedHost;
use crate::model::Scope;

/// Observations in flight: design section 10 allows 64 SSH sessions over all.
const AT_ONCE: usize = 64;

/// Hosts by node name, and those that could not be connected to, with the reason.
#[derive(Debug)]
pub struct Fleet<H> {
    hosts: BTreeMap<HostName, Arc<H>>,
    silent: BTreeMap<HostName, String>,
}

impl<H> Clone for Fleet<H> {
    /// The same connections once more.
    fn clone(&self) -> Self {
        Self { hosts: self.hosts.clone(), silent: self.silent.clone() }
    }
}

impl<H: Host> Fleet<H> {
    /// `silent` are hosts that did not answer when they were connected to.
    pub fn new(hosts: impl IntoIterator<Item = H>, silent: BTreeMap<HostName, String>) -> Self {
        Self { hosts: hosts.into_iter().map(|host| (host.name().clone(), Arc::new(host))).collect(), silent }
    }
    /// The host of this name, where it is connected.
    pub fn get(&self, name: &HostName) -> Option<&Arc<H>> {
        self.hosts.get(name)
    }
    /// Connected hosts in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &Arc<H>)> {
        self.hosts.iter()
    }
}

/// What came back from looking at every host.
#[derive(Debug, Default)]
pub struct Sighting {
    /// Hosts that answered.
    pub hosts: BTreeMap<HostName, ObservedHost>,
    /// Hosts that did not, with the reason in words.
    pub unreachable: BTreeMap<HostName, String>,
    /// Hosts that answered with something that must stop the run: a wrong host key, a refused login.
    pub errors: Vec<HostError>,
}

/// Looks at every host in `scopes`, all at the same time.
pub async fn observe<H: Host>(fleet: &Fleet<H>, scopes: &BTreeMap<HostName, Scope>) -> Sighting {
    let mut sighting = Sighting::default();
    for name in scopes.keys().filter(|name| fleet.get(name).is_none()) {
        let reason = fleet.silent.get(name).cloned().unwrap_or_else(|| "it is not connected".to_owned());
        sighting.unreachable.insert(name.clone(), reason);
    }
    let looks = scopes.iter().filter_map(|(name, scope)| {
        let host = Arc::clone(fleet.get(name)?);
        Some(async move { (name.clone(), host.observe(scope).await) })
    });
    let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
    while let Some((name, seen)) = looks.next().await {
        match seen {
            Ok(seen) => {
                sighting.hosts.insert(name, seen);
            }
            Err(error) if error.is_silence() => {
                sighting.unreachable.insert(name, error.without_host());
            }
            Err(error) => sighting.errors.push(error),
        }
    }
    sighting
}
