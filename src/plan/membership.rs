//! Which hosts make the cluster, against which made it (design 11.7).

use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::ObservedHost;
use crate::plan::Context;
use crate::plan::Refusal;
use crate::plan::diff::only_worker;

/// Changes of the set of hosts that bastide does not make. Adding a worker is none.
pub(super) fn check(target: &Desired, observed: &Observed, context: &Context<'_>) -> Vec<Refusal> {
    let Some(previous) = context.previous else {
        return Vec::new();
    };
    let mut refusals = Vec::new();
    if previous.kubernetes.minor != target.kubernetes.minor {
        refusals.push(Refusal::Minor { old: previous.kubernetes, new: target.kubernetes });
    }
    let renamed = |host: &DesiredHost| {
        previous
            .hosts
            .iter()
            .find(|(name, old)| !target.hosts.contains_key(*name) && old.internal_address == host.internal_address)
            .map(|(name, _)| name.clone())
    };
    let mut old_names = Vec::new();
    for (name, host) in &target.hosts {
        match previous.hosts.get(name) {
            Some(old) => refusals.extend(changed(name, old, host)),
            None => {
                if let Some(old) = renamed(host) {
                    old_names.push(old.clone());
                    refusals.push(Refusal::Renamed { old, new: name.clone() });
                } else if !only_worker(&host.roles) {
                    refusals.push(membership(name, "would be new"));
                }
            }
        }
    }
    for (name, old) in &previous.hosts {
        if target.hosts.contains_key(name) || old_names.contains(name) {
            continue;
        }
        refusals.push(if only_worker(&old.roles) {
            Refusal::RemovedWorker { host: name.clone() }
        } else {
            membership(name, "is no longer in cluster.yml")
        });
    }
    refusals.extend(emptied(target, observed, previous, context));
    refusals
}

fn changed(name: &HostName, old: &DesiredHost, new: &DesiredHost) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if old.internal_address != new.internal_address {
        refusals.push(Refusal::Moved { host: name.clone(), old: old.internal_address, new: new.internal_address });
    }
    for (was, is, what) in [
        (old.roles.etcd(), new.roles.etcd(), "an etcd member"),
        (old.roles.control_plane(), new.roles.control_plane(), "a control plane"),
    ] {
        match (was, is) {
            (false, true) => refusals.push(membership(name, &format!("would become {what}"))),
            (true, false) => refusals.push(membership(name, &format!("would no longer be {what}"))),
            _ => {}
        }
    }
    refusals
}

fn membership(host: &HostName, change: &str) -> Refusal {
    Refusal::Membership { host: host.clone(), change: change.to_owned() }
}

/// A host that belonged to the cluster, still does, and was looked at.
struct Stayed<'a> {
    name: &'a HostName,
    was: &'a DesiredHost,
    host: &'a DesiredHost,
    seen: &'a ObservedHost,
}

impl Stayed<'_> {
    fn is_member(&self) -> bool {
        self.was.roles.etcd() && self.host.roles.etcd()
    }
}

/// Hosts whose disks were lost while others live.
fn emptied(target: &Desired, observed: &Observed, previous: &Desired, context: &Context<'_>) -> Vec<Refusal> {
    let stayed = target.hosts.iter().filter_map(|(name, host)| {
        Some(Stayed { name, was: previous.hosts.get(name)?, host, seen: observed.hosts.get(name)? })
    });
    let stayed: Vec<_> = stayed.collect();
    let taking_part = || stayed.iter().filter(|host| !context.without.contains(host.name));
    let mut refusals = Vec::new();
    // A member without a record would start an empty etcd beside the living one. Where no host has a record, nothing is left to be hurt.
    if observed.hosts.values().any(|seen| seen.record.is_some()) {
        let blank = taking_part().filter(|host| !only_worker(&host.host.roles) && host.seen.record.is_none());
        refusals.extend(blank.map(|host| Refusal::Blank { host: host.name.clone(), etcd: host.host.roles.etcd() }));
    }
    // Without its data a member's etcd will never run again by itself, since the others know that it has been there before. Where all
    // have lost them nothing is left that one could join.
    if stayed.iter().any(|host| host.is_member() && !host.seen.etcd_gone && host.seen.record.is_some()) {
        let lost = taking_part().filter(|host| host.is_member() && host.seen.etcd_gone);
        refusals.extend(lost.map(|host| Refusal::LostData { host: host.name.clone() }));
    }
    refusals
}
