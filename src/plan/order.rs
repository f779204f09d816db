//! Differences in a safe order.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::model::Component;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::ObjectAction;
use crate::model::ObjectSet;
use crate::model::Observed;
use crate::model::Stage;
use crate::model::Step;
use crate::plan::Context;
use crate::plan::batch;
use crate::plan::diff::HostDiff;
use crate::plan::diff::only_worker;
use crate::plan::lint::gate_of;

/// Pods whose number decides what may be interrupted.
const ETCD_POD: &str = "etcd";
const API_POD: &str = "kube-apiserver";

/// One line of the order in which a living cluster changes: a server before those who call it, one at a time where the
/// others feel it.
struct Move {
    title: &'static str,
    components: &'static [Component],
    hosts: Hosts,
    width: Width,
}

#[derive(Clone, Copy)]
enum Hosts {
    All,
    Members,
    Workers,
}

#[derive(Clone, Copy)]
enum Width {
    /// One, as long as there is something to protect.
    One,
    /// `max_unavailable_worker`.
    Unavailable,
}

/// THE ORDER. Going to older versions would read it backwards.
const ORDER: [Move; 6] = [
    Move { title: "etcd, one member at a time", components: &[Component::Etcd], hosts: Hosts::All, width: Width::One },
    Move {
        title: "API servers, one at a time",
        components: &[Component::ApiServer],
        hosts: Hosts::All,
        width: Width::One,
    },
    Move {
        title: "controller managers and schedulers, one host at a time",
        components: &[Component::ControllerManager, Component::Scheduler],
        hosts: Hosts::All,
        width: Width::One,
    },
    Move {
        title: "containerd and kubelet of control planes and etcd members, one host at a time",
        components: &[Component::Containerd, Component::Kubelet],
        hosts: Hosts::Members,
        width: Width::One,
    },
    Move {
        title: "containerd and kubelet of workers",
        components: &[Component::Containerd, Component::Kubelet],
        hosts: Hosts::Workers,
        width: Width::Unavailable,
    },
    Move {
        title: "balancers, proxies and the rest",
        components: &[Component::Balancer, Component::Proxy, Component::Operator],
        hosts: Hosts::All,
        width: Width::Unavailable,
    },
];

/// What the order depends on beside the differences.
pub(super) struct Situation<'a> {
    target: &'a Desired,
    observed: &'a Observed,
    fresh: bool,
    unprotected: Vec<Component>,
    unavailable: usize,
    ready_expected: bool,
}

type Diffs = BTreeMap<HostName, HostDiff>;

impl<'a> Situation<'a> {
    pub(super) fn new(target: &'a Desired, observed: &'a Observed, context: &Context<'_>, diffs: &Diffs) -> Self {
        let blank = observed.hosts.values().all(|seen| seen.record.is_none());
        let fresh = context.previous.is_none() || blank;
        let mut unprotected = Vec::new();
        let away = |is_member: fn(&HostDiff) -> bool, pod: &str| {
            let members = diffs.values().filter(|diff| is_member(diff));
            members.filter(|diff| !diff.running.contains(pod)).count()
        };
        let members = target.hosts.values().filter(|host| host.roles.etcd()).count();
        let servers = target.hosts.values().filter(|host| host.roles.control_plane()).count();
        // A host that does not answer may well serve: it counts as running.
        if fresh || members - away(|diff| diff.roles.etcd(), ETCD_POD) < quorum(members) {
            unprotected.push(Component::Etcd);
        }
        if fresh || servers == away(|diff| diff.roles.control_plane(), API_POD) {
            unprotected.push(Component::ApiServer);
        }
        let workers = target.hosts.iter().filter(|(_, host)| only_worker(&host.roles));
        let (here, gone): (Vec<_>, Vec<_>) = workers.partition(|(name, _)| diffs.contains_key(*name));
        let allowed = context.max_unavailable_worker.map_or((here.len() + gone.len()) / 10, std::num::NonZero::get);
        let nodes = observed.objects.iter().flat_map(|objects| objects.nodes.values());
        Self {
            target,
            observed,
            fresh,
            unprotected,
            unavailable: allowed.saturating_sub(gone.len()).max(1),
            // Without a pod network of the file's own, nodes become Ready when somebody else brings one.
            ready_expected: pod_network(target) || nodes.into_iter().any(|node| node.ready),
        }
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

    fn ready(&self, host: &HostName) -> Option<Gate> {
        self.ready_expected.then(|| Gate::NodeReady { host: host.clone() })
    }

    /// Whether the API answers and shows every node as Ready: an earlier run that died while it waited has come to its end.
    fn seen_well(&self, diffs: &Diffs) -> bool {
        self.observed.objects.as_ref().is_some_and(|objects| {
            let ready = |host| objects.nodes.get(host).is_some_and(|node| node.ready);
            !self.ready_expected || diffs.keys().all(ready)
        })
    }

    fn may_go_together(&self, diffs: &Diffs, names: &[&HostName]) -> bool {
        let touches = |member: fn(&HostDiff) -> bool| names.iter().any(|name| member(&diffs[*name]));
        (!touches(|diff| diff.roles.etcd()) || self.unprotected.contains(&Component::Etcd))
            && (!touches(|diff| diff.roles.control_plane()) || self.unprotected.contains(&Component::ApiServer))
    }
}

/// The gates of everything on a host.
fn all_gates(host: &HostName, diff: &HostDiff) -> Vec<Gate> {
    let mut components = Vec::new();
    if diff.roles.etcd() {
        components.push(Component::Etcd);
    }
    if diff.roles.control_plane() {
        components.extend([Component::ApiServer, Component::ControllerManager, Component::Scheduler]);
    }
    components.push(Component::Kubelet);
    components.into_iter().filter_map(|component| gate_of(component, host)).collect()
}

/// The smallest number of `members` that can decide.
pub(super) fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Whether the target brings a pod network: every one that exists is a `DaemonSet`, and nothing else of bastide's is.
pub(super) fn pod_network(target: &Desired) -> bool {
    target.objects.iter().any(|object| object.id.kind == "DaemonSet")
}

/// Orders everything.
pub(super) fn stages(situation: &Situation<'_>, diffs: &Diffs, objects: Vec<ObjectAction>) -> Vec<Stage> {
    if situation.fresh {
        return made(situation, diffs, objects);
    }
    let mut stages = Vec::new();
    stages.push(harmless(diffs));
    stages.push(revived("control planes and etcd members that are down, one at a time", situation, diffs, |diff| {
        !diff.only_worker()
    }));
    for step in &ORDER {
        stages.push(moved(step, situation, diffs));
    }
    stages.push(revived("workers that are new or down", situation, diffs, HostDiff::only_worker));
    stages.extend(cluster(situation, diffs, objects));
    stages.push(removed(diffs));
    stages.retain(|stage| !stage.steps.is_empty() || !stage.objects.is_empty() || !stage.gates.is_empty());
    stages
}

/// A new cluster: every host at once, because etcd's initial members are known; then objects, then nodes.
fn made(situation: &Situation<'_>, diffs: &Diffs, objects: Vec<ObjectAction>) -> Vec<Stage> {
    let (busy, idle): (Vec<_>, Vec<_>) = diffs.iter().partition(|(_, diff)| !diff.is_empty());
    let steps = busy.into_iter().map(|(host, diff)| whole(host, diff, all_gates(host, diff))).collect();
    if objects.is_empty() && diffs.values().all(HostDiff::is_empty) && situation.seen_well(diffs) {
        return Vec::new();
    }
    let mut gates: Vec<_> = diffs.keys().filter_map(|host| situation.ready(host)).collect();
    if situation.ready_expected {
        gates.push(Gate::SystemWorkloads);
    }
    vec![
        Stage {
            title: "all hosts at once".to_owned(),
            width: diffs.len().max(1),
            steps,
            objects: Vec::new(),
            // Hosts that an earlier run finished must be well too before objects are written.
            gates: idle.into_iter().flat_map(|(host, diff)| all_gates(host, diff)).collect(),
        },
        Stage { title: "cluster objects and nodes".to_owned(), width: 1, steps: Vec::new(), objects, gates },
    ]
}

fn whole(host: &HostName, diff: &HostDiff, gates: Vec<Gate>) -> Step {
    Step { host: host.clone(), components: touched(diff), batch: batch::whole(diff), gates }
}

fn touched(diff: &HostDiff) -> BTreeSet<Component> {
    let parts = diff.units.iter().chain(&diff.pods).map(|part| part.component);
    let mut touched: BTreeSet<_> = parts.chain(diff.files.iter().map(|file| file.component)).collect();
    if !diff.users.is_empty() || !diff.directories.is_empty() {
        touched.insert(Component::System);
    }
    if !diff.images.is_empty() {
        touched.insert(Component::Containerd);
    }
    touched
}

fn harmless(diffs: &Diffs) -> Stage {
    let steps: Vec<_> = diffs
        .iter()
        .filter(|(_, diff)| !diff.down)
        .map(|(host, diff)| {
            let disruptive = diff.disruptive();
            let components = touched(diff).into_iter().filter(|component| !disruptive.contains(component)).collect();
            Step { host: host.clone(), components, batch: batch::harmless(diff), gates: Vec::new() }
        })
        .filter(|step| !step.batch.0.is_empty())
        .collect();
    Stage {
        title: "what interrupts nothing".to_owned(),
        width: steps.len().max(1),
        steps,
        objects: Vec::new(),
        gates: Vec::new(),
    }
}

/// Hosts whose kubelet or containerd does not run, as a whole.
fn revived(title: &str, situation: &Situation<'_>, diffs: &Diffs, which: fn(&HostDiff) -> bool) -> Stage {
    let down: Vec<_> = diffs.iter().filter(|(_, diff)| diff.down && which(diff)).collect();
    let names: Vec<_> = down.iter().map(|(host, _)| *host).collect();
    let width = if situation.may_go_together(diffs, &names) { down.len().max(1) } else { 1 };
    let steps = down
        .into_iter()
        .map(|(host, diff)| {
            let mut gates = all_gates(host, diff);
            gates.extend(situation.ready(host));
            whole(host, diff, gates)
        })
        .collect();
    Stage { title: title.to_owned(), width, steps, objects: Vec::new(), gates: Vec::new() }
}

fn moved(order: &Move, situation: &Situation<'_>, diffs: &Diffs) -> Stage {
    let mut changing: Vec<_> = diffs
        .iter()
        .filter(|(_, diff)| {
            !diff.down
                && match order.hosts {
                    Hosts::All => true,
                    Hosts::Members => !diff.only_worker(),
                    Hosts::Workers => diff.only_worker(),
                }
        })
        .map(|(host, diff)| (host, diff, batch::disruptive(diff, order.components)))
        .filter(|(_, _, batch)| !batch.0.is_empty())
        .filter(|(_, diff, _)| order.components.iter().any(|component| diff.disruptive().contains(component)))
        .collect();
    // What is away already goes first: its change may be its cure, and it is no loss. The leader goes last.
    let leader = situation.observed.etcd_leader.as_ref();
    changing.sort_by_key(|(host, diff, _)| {
        let runs = !order.components.contains(&Component::Etcd) || diff.running.contains(ETCD_POD);
        let serves = !order.components.contains(&Component::ApiServer) || diff.running.contains(API_POD);
        (runs && serves, leader == Some(*host))
    });
    let protected = order.components.iter().all(|component| !situation.unprotected.contains(component));
    let width = match order.width {
        Width::One if protected => 1,
        Width::One => changing.len().max(1),
        Width::Unavailable => situation.unavailable,
    };
    let steps = changing
        .into_iter()
        .map(|(host, diff, batch)| {
            let components: BTreeSet<_> =
                diff.disruptive().into_iter().filter(|component| order.components.contains(component)).collect();
            let gates = move_gates(situation, host, diff, &components);
            Step { host: host.clone(), components, batch, gates }
        })
        .collect();
    Stage { title: order.title.to_owned(), width, steps, objects: Vec::new(), gates: Vec::new() }
}

/// A component is judged by itself; what carries the node is judged by everything on it and by the node.
fn move_gates(
    situation: &Situation<'_>,
    host: &HostName,
    diff: &HostDiff,
    components: &BTreeSet<Component>,
) -> Vec<Gate> {
    let own: Vec<_> = components.iter().filter_map(|component| gate_of(*component, host)).collect();
    let carries_node = components.iter().any(|component| {
        matches!(component, Component::Containerd | Component::Kubelet | Component::Balancer | Component::Proxy)
    });
    if !carries_node {
        return own;
    }
    let mut gates = all_gates(host, diff);
    gates.extend(situation.ready(host));
    gates
}

fn cluster(situation: &Situation<'_>, diffs: &Diffs, objects: Vec<ObjectAction>) -> Vec<Stage> {
    if objects.is_empty() {
        return Vec::new();
    }
    let system = objects.iter().any(|action| match action {
        ObjectAction::Apply { set, .. } => *set == ObjectSet::System,
        ObjectAction::Delete { .. } => true,
        ObjectAction::Node { .. } => false,
    });
    let mut stages = Vec::new();
    if situation.observed.objects.is_none() {
        stages.push(Stage {
            title: "the API answers".to_owned(),
            width: 1,
            steps: Vec::new(),
            objects: Vec::new(),
            gates: diffs
                .iter()
                .filter(|(_, diff)| diff.roles.control_plane())
                .map(|(host, _)| Gate::ApiServer { host: host.clone() })
                .collect(),
        });
    }
    stages.push(Stage {
        title: "cluster objects".to_owned(),
        width: 1,
        steps: Vec::new(),
        objects,
        gates: if system && situation.ready_expected { vec![Gate::SystemWorkloads] } else { Vec::new() },
    });
    stages
}

/// Last, when nothing reads it any more. Down hosts had theirs removed with the rest.
fn removed(diffs: &Diffs) -> Stage {
    let steps: Vec<_> = diffs
        .iter()
        .filter(|(_, diff)| !diff.down && !diff.removals.is_empty())
        .map(|(host, diff)| Step {
            host: host.clone(),
            components: [Component::System].into(),
            batch: batch::removals(diff),
            gates: Vec::new(),
        })
        .collect();
    Stage {
        title: "what is no longer wanted".to_owned(),
        width: steps.len().max(1),
        steps,
        objects: Vec::new(),
        gates: Vec::new(),
    }
}
