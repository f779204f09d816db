//! What the order of a plan depends on beside the differences.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::model::Component;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::Observed;
use crate::plan::Context;
use crate::plan::diff::HostDiff;
use crate::plan::diff::only_worker;

/// Pods whose number decides what may be interrupted.
pub(super) const ETCD_POD: &str = "etcd";
pub(super) const API_POD: &str = "kube-apiserver";

/// What differs, by host; hosts that are left out are missing.
pub(super) type Diffs = BTreeMap<HostName, HostDiff>;

/// Target, sightings, and what follows from them.
pub(super) struct Situation<'a> {
    pub(super) target: &'a Desired,
    pub(super) observed: &'a Observed,
    pub(super) fresh: bool,
    pub(super) unprotected: Vec<Component>,
    /// How many workers may be away at once, and those that are.
    pub(super) unavailable: usize,
    pub(super) away: BTreeSet<HostName>,
    pub(super) ready_expected: bool,
}

impl<'a> Situation<'a> {
    pub(super) fn new(target: &'a Desired, observed: &'a Observed, context: &Context<'_>, diffs: &Diffs) -> Self {
        let blank = observed.hosts.values().all(|seen| seen.record.is_none());
        let fresh = context.previous.is_none() || blank;
        let mut unprotected = Vec::new();
        let away = |is_member: fn(&HostDiff) -> bool, pod: &str| {
            let members = diffs.values().filter(|diff| is_member(diff));
            members.filter(|diff| diff.ended || !diff.running.contains(pod)).count()
        };
        let members = target.hosts.values().filter(|host| host.roles.etcd()).count();
        let servers = target.hosts.values().filter(|host| host.roles.control_plane()).count();
        // A host that does not answer may well serve: it counts as running.
        if fresh || members - away(|diff| diff.roles.etcd(), ETCD_POD) < quorum(members) {
            unprotected.push(Component::Etcd);
        }
        // Where certificates have ended no API server answers at all.
        let ended = diffs.values().any(|diff| diff.ended);
        if fresh || ended || servers == away(|diff| diff.roles.control_plane(), API_POD) {
            unprotected.push(Component::ApiServer);
        }
        let workers: Vec<_> =
            target.hosts.iter().filter(|(_, host)| only_worker(&host.roles)).map(|(name, _)| name).collect();
        let nodes = observed.objects.as_ref().map(|objects| &objects.nodes);
        // Without a pod network of the file's own, nodes become Ready when somebody else brings one.
        let ready_expected = pod_network(target) || nodes.is_some_and(|nodes| nodes.values().any(|node| node.ready));
        let unready = |name: &HostName| nodes.and_then(|nodes| nodes.get(name)).is_some_and(|node| !node.ready);
        let away = |name: &&HostName| !diffs.contains_key(*name) || ready_expected && unready(name);
        Self {
            target,
            observed,
            fresh,
            unprotected,
            unavailable: context.max_unavailable_worker.map_or(workers.len() / 10, std::num::NonZero::get),
            away: workers.iter().copied().filter(away).cloned().collect(),
            ready_expected,
        }
    }

    /// How many of `changing` may be interrupted together. A worker that is away and waits for its turn counts as
    /// changing: it goes first, and its change may be its cure.
    pub(super) fn at_once<'n>(&self, changing: impl Iterator<Item = &'n HostName>) -> usize {
        let changing: BTreeSet<_> = changing.collect();
        let lost = self.away.iter().filter(|name| !changing.contains(name)).count();
        self.unavailable.saturating_sub(lost).max(1)
    }

    /// Parts of which nothing runs that could be lost.
    pub(super) fn unprotected(&self) -> &[Component] {
        &self.unprotected
    }

    /// Etcd members of the target.
    pub(super) fn etcd_members(&self) -> usize {
        self.target.hosts.values().filter(|host| host.roles.etcd()).count()
    }

    /// How many of them are left out.
    pub(super) fn etcd_left_out(&self, left_out: &BTreeSet<HostName>) -> usize {
        self.target.hosts.iter().filter(|(name, host)| host.roles.etcd() && left_out.contains(*name)).count()
    }

    /// Whether the cluster is being made.
    pub(super) fn fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn ready(&self, host: &HostName) -> Option<Gate> {
        self.ready_expected.then(|| Gate::NodeReady { host: host.clone() })
    }

    /// Whether the API answers and shows every node as Ready: an earlier run that died while it waited has come to its end.
    pub(super) fn seen_well(&self, diffs: &Diffs) -> bool {
        self.observed.objects.as_ref().is_some_and(|objects| {
            let ready = |host| objects.nodes.get(host).is_some_and(|node| node.ready);
            !self.ready_expected || diffs.keys().all(ready)
        })
    }

    pub(super) fn may_go_together(&self, diffs: &Diffs, names: &[&HostName]) -> bool {
        let touches = |member: fn(&HostDiff) -> bool| names.iter().any(|name| member(&diffs[*name]));
        (!touches(|diff| diff.roles.etcd()) || self.unprotected.contains(&Component::Etcd))
            && (!touches(|diff| diff.roles.control_plane()) || self.unprotected.contains(&Component::ApiServer))
    }
}

/// The smallest number of `members` that can decide.
pub(super) fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Whether the target brings a pod network: every one that exists is a `DaemonSet`, and nothing else of bastide's is.
pub(super) fn pod_network(target: &Desired) -> bool {
    target.objects.iter().any(|object| object.id.kind == "DaemonSet")
}
