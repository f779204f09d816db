//! What an earlier run changed and never saw well: it is waited for before the same is done elsewhere.
//!
//! A run that wrote everything and then waited in vain leaves no difference behind. Without this the next run would take the
//! host for well, and interrupt the next one.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::model::Batch;
use crate::model::Component;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::Stage;
use crate::model::Step;
use crate::plan::order::move_gates;
use crate::plan::situation::Diffs;
use crate::plan::situation::Situation;

/// What the journal says of the runs since the last revision that was wholly reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Parts that a step was begun on without an end.
    pub parts: BTreeMap<HostName, BTreeSet<Component>>,
    /// Whether a stage's objects were begun on without an end.
    pub objects: bool,
}

const TITLE: &str = "what an earlier run changed and never saw well";

/// Adds steps that only wait. What this plan would interrupt on another host too is waited for first; the rest last,
/// because something that this plan changes may be its cure.
pub(super) fn add(stages: &mut Vec<Stage>, situation: &Situation<'_>, diffs: &Diffs, unfinished: &Unfinished) {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (host, components) in &unfinished.parts {
        let Some(diff) = diffs.get(host) else { continue };
        let mut gates = move_gates(situation, host, diff, components);
        gates.retain(|gate| !is_waited_for(stages, gate));
        if gates.is_empty() {
            continue;
        }
        let elsewhere = interrupting(stages).any(|step| step.host != *host && !step.components.is_disjoint(components));
        let here = interrupting(stages).any(|step| step.host == *host);
        let step = Step { host: host.clone(), components: components.clone(), batch: Batch::default(), gates };
        if elsewhere && !here { first.push(step) } else { last.push(step) }
    }
    let workloads = unfinished.objects && situation.ready_expected && !is_waited_for(stages, &Gate::SystemWorkloads);
    let gates = if workloads { vec![Gate::SystemWorkloads] } else { Vec::new() };
    let stage = |steps: Vec<Step>, gates| Stage {
        title: TITLE.to_owned(),
        width: steps.len().max(1),
        steps,
        objects: Vec::new(),
        gates,
    };
    if !first.is_empty() {
        stages.insert(0, stage(first, Vec::new()));
    }
    if !last.is_empty() || !gates.is_empty() {
        stages.push(stage(last, gates));
    }
}

/// Steps after which something must be well again.
fn interrupting(stages: &[Stage]) -> impl Iterator<Item = &Step> {
    stages.iter().flat_map(|stage| &stage.steps).filter(|step| !step.gates.is_empty())
}

fn is_waited_for(stages: &[Stage], gate: &Gate) -> bool {
    stages.iter().any(|stage| stage.gates.contains(gate) || stage.steps.iter().any(|step| step.gates.contains(gate)))
}
