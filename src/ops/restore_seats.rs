//! Who takes part in a restore.

use std::collections::BTreeSet;

use crate::model::Desired;
use crate::model::HostName;
use crate::model::Observed;
use crate::ops::OpsError;
use crate::plan::Refusal;

/// Hosts that a restore goes without, or why it can't.
pub(super) fn left_out(
    target: &Desired,
    observed: &Observed,
    without: &BTreeSet<HostName>,
) -> Result<BTreeSet<HostName>, OpsError> {
    let mut refusals: Vec<_> = without
        .iter()
        .filter(|name| !target.hosts.contains_key(*name))
        .map(|name| Refusal::UnknownHost { host: name.clone() })
        .collect();
    let silent = |name: &HostName| !observed.hosts.contains_key(name) && !without.contains(name);
    let is_member =
        |name: &HostName| target.hosts.get(name).is_some_and(|host| host.roles.etcd() || host.roles.control_plane());
    for name in target.hosts.keys().filter(|name| silent(name) && is_member(name)) {
        refusals.push(Refusal::Unreachable {
            host: name.clone(),
            reason: observed.unreachable.get(name).cloned().unwrap_or_else(|| "it was not looked at".to_owned()),
            role: if target.hosts[name].roles.control_plane() { "a control-plane host" } else { "an etcd host" },
        });
    }
    let members: Vec<_> = target.hosts.iter().filter(|(_, host)| host.roles.etcd()).collect();
    let running = members.iter().filter(|(name, _)| !without.contains(*name)).count();
    let quorum = members.len() / 2 + 1;
    if refusals.is_empty() && running < quorum {
        refusals.push(Refusal::NoQuorum { running, members: members.len(), quorum });
    }
    let serves =
        |(name, host): (&HostName, &crate::model::DesiredHost)| host.roles.control_plane() && !without.contains(name);
    if refusals.is_empty() && !target.hosts.iter().any(serves) {
        refusals.push(Refusal::NoControlPlane);
    }
    if !refusals.is_empty() {
        return Err(OpsError::Refused(refusals));
    }
    Ok(target.hosts.keys().filter(|name| without.contains(*name) || silent(name)).cloned().collect())
}
