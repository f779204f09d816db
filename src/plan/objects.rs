//! What differs among the cluster's objects.

use std::collections::BTreeSet;

use crate::model::Barrier;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::DesiredObject;
use crate::model::HostName;
use crate::model::ObjectAction;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::model::ObjectState;
use crate::model::Observed;
use crate::model::ObservedNode;
use crate::model::ObservedObjects;

/// Applies in the target's order, then deletions, then work on nodes; and what a person should know about them.
pub(super) fn actions(
    target: &Desired,
    observed: &Observed,
    left_out: &BTreeSet<HostName>,
    prune_data: &BTreeSet<String>,
) -> (Vec<ObjectAction>, Vec<String>) {
    let seen = observed.objects.as_ref();
    let nodes = target
        .hosts
        .iter()
        .filter(|(name, _)| !left_out.contains(*name))
        .filter(|(name, host)| node_differs(host, seen.and_then(|seen| seen.nodes.get(*name))))
        .map(|(name, host)| ObjectAction::Node {
            node: name.clone(),
            labels: host.labels.clone(),
            taints: host.taints.clone(),
        });
    let applies = target.objects.iter().filter_map(|object| apply(object, seen));
    let wanted: BTreeSet<_> = target.objects.iter().map(|object| &object.id).collect();
    let (kept, pruned): (Vec<_>, Vec<_>) = seen
        .into_iter()
        .flat_map(|seen| &seen.owned)
        .filter(|id| !wanted.contains(id))
        // Only by name goes what others may keep data in.
        .partition(|id| id.holds_data() && !prune_data.contains(&id.reference()));
    let deletions = pruned.into_iter().map(|id| ObjectAction::Delete { id: id.clone(), with_data: id.holds_data() });
    (applies.chain(deletions).chain(nodes).collect(), kept.into_iter().map(kept_note).collect())
}

fn kept_note(id: &ObjectId) -> String {
    format!(
        "{id} is no longer wanted and stays, because others may keep data in it; `--prune-data {}` deletes it with them",
        id.reference()
    )
}

/// What no way back brings back, where data go.
pub(super) fn barrier(actions: &[ObjectAction]) -> Option<Barrier> {
    let gone = actions.iter().filter_map(|action| match action {
        ObjectAction::Delete { id, with_data: true } => Some(id.to_string()),
        _ => None,
    });
    let gone: Vec<_> = gone.collect();
    (!gone.is_empty()).then(|| Barrier {
        name: "data-pruned".to_owned(),
        why: format!("{} and everything in it is deleted", gone.join(", ")),
    })
}

fn apply(object: &DesiredObject, seen: Option<&ObservedObjects>) -> Option<ObjectAction> {
    let (fields, owners) = match seen.and_then(|seen| seen.objects.get(&object.id)) {
        Some(ObjectState::Equal) => return None,
        Some(ObjectState::Differs { fields, owners }) => (fields.clone(), owners.as_slice()),
        None => (Vec::new(), [].as_slice()),
    };
    // Without force an addon takes nothing over: a conflict is its own failure.
    let takes_over = match object.set {
        ObjectSet::System => owners.iter().map(|(manager, field)| format!("{field} ({manager})")).collect(),
        ObjectSet::Addon(_) => Vec::new(),
    };
    Some(ObjectAction::Apply {
        id: object.id.clone(),
        digest: object.digest,
        set: object.set.clone(),
        takes_over,
        fields,
    })
}

fn node_differs(host: &DesiredHost, node: Option<&ObservedNode>) -> bool {
    let Some(node) = node else {
        return !host.labels.is_empty() || !host.taints.is_empty();
    };
    let label_missing = host.labels.iter().any(|(key, value)| node.labels.get(key) != Some(value));
    let label_left = node.owned_labels.iter().any(|key| !host.labels.contains_key(key));
    let taint_missing = host.taints.iter().any(|taint| !node.taints.contains(taint));
    let taint_left = node
        .owned_taints
        .iter()
        .any(|(key, effect)| !host.taints.iter().any(|taint| taint.key == *key && taint.effect == *effect));
    label_missing || label_left || taint_missing || taint_left
}
