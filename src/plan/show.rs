//! A plan for people and for programs. The only way a plan is shown; never a digest of a secret, never a content.

mod lines;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use serde_json::json;

use crate::model::HostName;
use crate::model::ObjectAction;
use crate::model::ObjectSet;
use crate::model::Plan;
use crate::model::Stage;
use crate::model::Step;
use crate::plan::show::lines::Tally;

/// Layout of [`json`].
const SCHEMA: u32 = 1;
/// A host with more lines than this is shown by its counts.
const FOLD_ABOVE: usize = 14;
/// More objects than this are shown by their counts.
const FOLD_OBJECTS_ABOVE: usize = 20;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Long lists as counts, except what interrupts something.
    Folded,
    /// Every action.
    Everything,
}

/// The plan as text, with a newline at the end.
pub fn text(plan: &Plan, detail: Detail) -> String {
    let mut out = String::new();
    for host in &plan.left_out {
        line(&mut out, &format!("left out: {host}"));
    }
    for allowance in &plan.allowances {
        line(&mut out, &format!("relaxed: {} ({})", allowance.setting, allowance.reason));
    }
    if plan.is_empty() {
        line(&mut out, "Nothing to do: every host and object that answers is as it should be.");
        return out;
    }
    if plan.changes_nothing() {
        line(
            &mut out,
            "Nothing to change, but what an earlier run began was never seen healthy: bastide waits for it.",
        );
        return out;
    }
    for barrier in &plan.barriers {
        line(&mut out, &format!("CANNOT BE UNDONE: {} ({})", barrier.why, barrier.name));
    }
    for note in &plan.notes {
        line(&mut out, &format!("note: {note}"));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let shown = plan.stages.iter().filter(|stage| !stage.steps.is_empty() || !stage.objects.is_empty());
    for (at, stage) in shown.enumerate() {
        show_stage(&mut out, at + 1, stage, detail);
    }
    line(&mut out, &summary(plan));
    out
}

/// The plan as JSON, with the digests of secret files left out.
pub fn json(plan: &Plan) -> Value {
    let mut value = serde_json::to_value(plan).unwrap_or(Value::Null);
    redact(&mut value);
    json!({ "schema": SCHEMA, "empty": plan.is_empty(), "plan": value })
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("secret") == Some(&Value::Bool(true)) {
                fields.remove("digest");
                // Whether there was a file is no secret.
                if fields.get("replaces").is_some_and(|replaces| !replaces.is_null()) {
                    fields.insert("replaces".to_owned(), Value::Bool(true));
                }
            }
            fields.values_mut().for_each(redact);
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn show_stage(out: &mut String, number: usize, stage: &Stage, detail: Detail) {
    let width = match stage.steps.len() {
        0 | 1 => String::new(),
        many if stage.width >= many => " (side by side)".to_owned(),
        _ if stage.width == 1 => " (one after the other)".to_owned(),
        _ => format!(" ({} at once)", stage.width),
    };
    line(out, &format!("{number}. {}{width}", stage.title));
    for (hosts, step) in folded(&stage.steps) {
        let shown = lines::of(step);
        let names = hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
        if detail == Detail::Folded && shown.len() > FOLD_ABOVE {
            line(out, &format!("   {names}: {}", Tally::of([step]).words()));
            for shown in shown.iter().filter(|line| line.interrupts) {
                line(out, &format!("     {}", shown.text));
            }
        } else {
            line(out, &format!("   {names}:"));
            for shown in &shown {
                line(out, &format!("     {}", shown.text));
            }
        }
    }
    show_objects(out, &stage.objects, detail);
}

/// Hosts on which the same is done, as far as it is shown.
fn folded(steps: &[Step]) -> Vec<(Vec<&HostName>, &Step)> {
    let mut groups: Vec<(Vec<&HostName>, &Step)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for step in steps {
        let shape = lines::of(step).iter().fold(String::new(), |mut shape, line| {
            let _ = writeln!(shape, "{}", line.text);
            shape
        });
        if let Some(at) = known.get(&shape) {
            groups[*at].0.push(&step.host);
        } else {
            known.insert(shape, groups.len());
            groups.push((vec![&step.host], step));
        }
    }
    groups
}

fn show_objects(out: &mut String, objects: &[ObjectAction], detail: Detail) {
    let (new, others): (Vec<_>, Vec<_>) =
        objects.iter().partition(|action| matches!(action, ObjectAction::Apply { fields, .. } if fields.is_empty()));
    if detail == Detail::Folded && new.len() > FOLD_OBJECTS_ABOVE {
        line(out, &format!("   + {} objects", new.len()));
    } else {
        for action in new {
            line(out, &object_line(action));
        }
    }
    let mut nodes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for action in others {
        if let ObjectAction::Node { node, labels, taints } = action {
            let what = format!("{}, {}", lines::count(labels.len(), "label"), lines::count(taints.len(), "taint"));
            nodes.entry(what).or_default().push(node.as_str());
        } else {
            line(out, &object_line(action));
        }
    }
    for (what, names) in nodes {
        line(out, &format!("   ~ Node {} ({what})", names.join(", ")));
    }
}

fn object_line(action: &ObjectAction) -> String {
    match action {
        ObjectAction::Apply { id, set, takes_over, fields, .. } => {
            let sign = if fields.is_empty() { '+' } else { '~' };
            let mut text = format!("   {sign} {id}");
            if let ObjectSet::Addon(name) = set {
                let _ = write!(text, " of addon {name}");
            }
            if !fields.is_empty() {
                let _ = write!(text, " ({})", fields.join(", "));
            }
            if !takes_over.is_empty() {
                let _ = write!(text, ", takes over {}", takes_over.join(", "));
            }
            text
        }
        ObjectAction::Delete { id, with_data: false } => format!("   - {id}"),
        ObjectAction::Delete { id, with_data: true } => format!("   - {id}, with everything that is in it"),
        ObjectAction::Forget { node } => format!("   - Node {node}"),
        ObjectAction::Node { node, .. } => format!("   ~ Node {node}"),
    }
}

fn summary(plan: &Plan) -> String {
    let steps = || plan.stages.iter().flat_map(|stage| &stage.steps);
    let hosts = steps().map(|step| &step.host).collect::<std::collections::BTreeSet<_>>().len();
    let objects = || plan.stages.iter().flat_map(|stage| &stage.objects);
    let deleted =
        objects().filter(|action| matches!(action, ObjectAction::Delete { .. } | ObjectAction::Forget { .. })).count();
    let mut parts = Vec::new();
    if hosts > 0 {
        parts.push(format!("{}: {}", lines::count(hosts, "host"), Tally::of(steps()).words()));
    }
    let changed = objects().count() - deleted;
    if changed > 0 {
        parts.push(format!("{} to apply", lines::count(changed, "object")));
    }
    if deleted > 0 {
        parts.push(format!("{} to delete", lines::count(deleted, "object")));
    }
    format!("{}.", parts.join("; "))
}
