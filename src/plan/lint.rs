//! What must hold for any plan, whoever made it.

use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Component;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::Plan;
use crate::model::Stage;
use crate::model::Step;
use crate::plan::diff::MANIFESTS;
use crate::plan::diff::pod_component;

/// Parts whose interruption the others feel, and of which so only one may be interrupted at once.
const SINGLE: [Component; 2] = [Component::Etcd, Component::ApiServer];

/// Rules that the plan breaks, in words; empty for a good one.
///
/// `unprotected` are parts of which nothing runs that could be lost: all of it on a cluster that is being made, etcd
/// where quorum is lost already.
pub fn lint(plan: &Plan, target: &Desired, unprotected: &[Component]) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        if stage.width == 0 && !stage.steps.is_empty() {
            broken.push(format!("{}: no step may run", stage.title));
        }
        for component in SINGLE {
            let touched = stage.steps.iter().filter(|step| interrupted(step, target).contains(&component)).count();
            if touched > 1 && stage.width > 1 && !unprotected.contains(&component) {
                broken.push(format!("{}: more than one {} at a time", stage.title, component.as_str()));
            }
        }
        for step in &stage.steps {
            if !target.hosts.contains_key(&step.host) {
                broken.push(format!("{}: {} is no host of this cluster", stage.title, step.host));
            }
            if plan.left_out.contains(&step.host) {
                broken.push(format!("{}: {} is left out", stage.title, step.host));
            }
            broken.extend(ungated(&plan.stages[at..], step, target));
        }
    }
    broken
}

/// Components that the step stops or starts.
fn interrupted(step: &Step, target: &Desired) -> BTreeSet<Component> {
    let Some(host) = target.hosts.get(&step.host) else {
        return BTreeSet::new();
    };
    step.batch
        .0
        .iter()
        .filter_map(|action| match action {
            Action::StartUnit { name, .. } => {
                host.units.iter().find(|unit| unit.name == *name).map(|unit| unit.component)
            }
            Action::AwaitPod { pod, .. } => Some(pod_component(host, pod)),
            Action::PutFile { path, .. } if path.parent() == MANIFESTS => {
                host.files.get(path).map(|file| file.component)
            }
            _ => None,
        })
        .collect()
}

/// `stages` begins with the one that the step is in. What lives off the API alone may be waited for with a later stage: on a new
/// cluster it is, with the nodes.
fn ungated(stages: &[Stage], step: &Step, target: &Desired) -> Vec<String> {
    let title = stages.first().map_or("", |stage| stage.title.as_str());
    let later = |component, gate: &Gate| {
        matches!(component, Component::Proxy | Component::Balancer)
            && stages.iter().any(|stage| stage.gates.contains(gate))
    };
    interrupted(step, target)
        .into_iter()
        .filter_map(|component| Some((component, gate_of(component, &step.host)?)))
        .filter(|(component, gate)| !step.gates.contains(gate) && !later(*component, gate))
        .map(|(component, _)| format!("{title}: {} on {} has no gate", component.as_str(), step.host))
        .collect()
}

/// The gate that judges a component on its own host, where it has one.
pub(super) fn gate_of(component: Component, host: &HostName) -> Option<Gate> {
    let host = host.clone();
    match component {
        Component::Etcd => Some(Gate::EtcdMember { host }),
        Component::ApiServer => Some(Gate::ApiServer { host }),
        Component::ControllerManager => Some(Gate::ControllerManager { host }),
        Component::Scheduler => Some(Gate::Scheduler { host }),
        Component::Kubelet => Some(Gate::Kubelet { host }),
        Component::Proxy => Some(Gate::Proxy { host }),
        Component::Balancer => Some(Gate::Balancer { host }),
        Component::System | Component::Containerd | Component::Operator | Component::Recurring => None,
    }
}
