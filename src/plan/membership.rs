//! Which hosts make the cluster, against which made it (design 11.7).

use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::HostName;
use crate::model::Observed;
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
    refusals.extend(blank(target, observed, previous, context));
    refusals.extend(lost(target, observed, previous, context));
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

/// A member without a record, while another host still has one, has lost its data: it would start an empty etcd beside
/// the living one. Where no host has a record, nothing is left to be hurt.
fn blank(target: &Desired, observed: &Observed, previous: &Desired, context: &Context<'_>) -> Vec<Refusal> {
    if observed.hosts.values().all(|seen| seen.record.is_none()) {
        return Vec::new();
    }
    target
        .hosts
        .iter()
        .filter(|(name, host)| {
            !only_worker(&host.roles)
                && previous.hosts.contains_key(*name)
                && !context.without.contains(*name)
                && observed.hosts.get(*name).is_some_and(|seen| seen.record.is_none())
        })
        .map(|(name, host)| Refusal::Blank { host: name.clone(), etcd: host.roles.etcd() })
        .collect()
}

/// A member whose data are gone while others have theirs: its etcd will never run again by itself, since the others know that it
/// has been there before. Where all have lost them nothing is left that one could join.
fn lost(target: &Desired, observed: &Observed, previous: &Desired, context: &Context<'_>) -> Vec<Refusal> {
    let was = |name: &HostName| previous.hosts.get(name).is_some_and(|host| host.roles.etcd());
    let members = target.hosts.iter().filter(|(name, host)| host.roles.etcd() && was(name));
    let members: Vec<_> = members.filter_map(|(name, _)| Some((name, observed.hosts.get(name)?))).collect();
    if members.iter().all(|(_, seen)| seen.etcd_gone || seen.record.is_none()) {
        return Vec::new();
    }
    members
        .into_iter()
        .filter(|(name, seen)| seen.etcd_gone && !context.without.contains(*name))
        .map(|(name, _)| Refusal::LostData { host: name.clone() })
        .collect()
}
