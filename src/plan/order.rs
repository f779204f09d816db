//! Differences in a safe order.

use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Component;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::ObjectAction;
use crate::model::ObjectSet;
use crate::model::Stage;
use crate::model::Step;
use crate::plan::batch;
use crate::plan::diff::HostDiff;
use crate::plan::lint::gate_of;
use crate::plan::situation::API_POD;
use crate::plan::situation::Diffs;
use crate::plan::situation::ETCD_POD;
use crate::plan::situation::Situation;

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
    // Before the kubelets: a manifest that changes in the second in which a kubelet starts is taken up, but its pod's volumes
    // are mounted only after the kubelet's own deadline of two minutes (seen with Kubernetes 1.37.1).
    Move {
        title: "balancers and proxies",
        components: &[Component::Balancer, Component::Proxy, Component::Operator],
        hosts: Hosts::All,
        width: Width::Unavailable,
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
];

/// The gates of a host's part of the control plane and of its kubelet.
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

/// The gates of what lives off an API server: the way to one, where the host has none itself, and the rules for services.
fn caller_gates(host: &HostName, diff: &HostDiff) -> Vec<Gate> {
    let balancer = (!diff.roles.control_plane()).then_some(Component::Balancer);
    let components = balancer.into_iter().chain([Component::Proxy]);
    components.filter_map(|component| gate_of(component, host)).collect()
}

/// Orders everything.
pub(super) fn stages(situation: &Situation<'_>, diffs: &Diffs, objects: Vec<ObjectAction>) -> Vec<Stage> {
    if situation.fresh {
        // A program of many megabytes need not come before the nodes are ready.
        let (rest, later): (Vec<_>, Vec<_>) = diffs
            .iter()
            .map(|(host, diff)| {
                let (rest, later) = diff.split();
                ((host.clone(), rest), (host.clone(), later))
            })
            .unzip();
        let mut stages = made(situation, &rest.into_iter().collect(), objects);
        stages.extend(beside(&later.into_iter().collect()));
        return stages;
    }
    let mut stages = Vec::new();
    stages.push(harmless(diffs));
    let ended = diffs.values().any(|diff| diff.ended && !diff.only_worker());
    let title = if ended {
        "control planes and etcd members whose certificates have ended"
    } else {
        "control planes and etcd members that are down, one at a time"
    };
    stages.push(revived(title, situation, diffs, |diff| !diff.only_worker()));
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
    // Objects need not wait for these: kube-proxy starts again ten seconds later where it found no API server yet.
    let mut gates: Vec<_> = diffs.iter().flat_map(|(host, diff)| caller_gates(host, diff)).collect();
    gates.extend(diffs.keys().filter_map(|host| situation.ready(host)));
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

/// What runs beside a cluster that has just been made.
fn beside(diffs: &Diffs) -> Option<Stage> {
    let busy = diffs.iter().filter(|(_, diff)| !diff.is_empty());
    let steps: Vec<_> = busy.map(|(host, diff)| whole(host, diff, Vec::new())).collect();
    (!steps.is_empty()).then(|| Stage {
        title: "what runs beside the cluster".to_owned(),
        width: steps.len(),
        steps,
        objects: Vec::new(),
        gates: Vec::new(),
    })
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
            gates.extend(caller_gates(host, diff));
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
        (runs && serves && !situation.away.contains(*host), leader == Some(*host))
    });
    let protected = order.components.iter().all(|component| !situation.unprotected.contains(component));
    let width = match order.width {
        Width::One if protected => 1,
        Width::One => changing.len().max(1),
        Width::Unavailable => situation.at_once(changing.iter().map(|(host, ..)| *host)),
    };
    // Whoever leads by then: the leader that was seen may have lost an election since.
    let yields = order.components.contains(&Component::Etcd) && protected && situation.etcd_members() > 1;
    let steps = changing
        .into_iter()
        .map(|(host, diff, mut batch)| {
            if yields && diff.running.contains(ETCD_POD) {
                batch.0.insert(0, Action::YieldLeadership);
            }
            let components: BTreeSet<_> =
                diff.disruptive().into_iter().filter(|component| order.components.contains(component)).collect();
            let gates = move_gates(situation, host, diff, &components);
            Step { host: host.clone(), components, batch, gates }
        })
        .collect();
    Stage { title: order.title.to_owned(), width, steps, objects: Vec::new(), gates: Vec::new() }
}

/// A component is judged by itself; what carries the node is judged by everything on it and by the node.
pub(super) fn move_gates(
    situation: &Situation<'_>,
    host: &HostName,
    diff: &HostDiff,
    components: &BTreeSet<Component>,
) -> Vec<Gate> {
    let mut own: Vec<_> = components.iter().filter_map(|component| gate_of(*component, host)).collect();
    let carries_node = components.iter().any(|component| {
        matches!(component, Component::Containerd | Component::Kubelet | Component::Balancer | Component::Proxy)
    });
    if !carries_node {
        return own;
    }
    let mut gates = all_gates(host, diff);
    own.retain(|gate| !gates.contains(gate));
    gates.extend(own);
    gates.extend(situation.ready(host));
    gates
}

fn cluster(situation: &Situation<'_>, diffs: &Diffs, objects: Vec<ObjectAction>) -> Vec<Stage> {
    if objects.is_empty() {
        return Vec::new();
    }
    let system = objects.iter().any(|action| match action {
        ObjectAction::Apply { set, .. } => *set == ObjectSet::System,
        ObjectAction::Delete { .. } | ObjectAction::Forget { .. } => true,
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
