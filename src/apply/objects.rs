//! Applies a stage's objects.

use std::time::Duration;

use futures::future::join;
use futures::future::join_all;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::apply::Cluster;
use crate::apply::Journal;
use crate::apply::Run;
use crate::host::Host;
use crate::model::HostName;
use crate::model::ObjectAction;
use crate::model::ObjectSet;

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A young API server refuses for a while what it accepts later: its namespaces, priority classes and rules of its own
/// come after its `/readyz`.
const YOUNG: Duration = Duration::from_secs(15);

/// What objects are applied through.
pub(super) struct Doors<'a, 'r, H: Host, C: Cluster, J: Journal> {
    pub(super) with: &'a Run<'r, H, C, J>,
    pub(super) lost: &'a CancellationToken,
}

/// An action that was refused to the end.
pub(super) struct Refusal<'a> {
    pub(super) action: &'a ObjectAction,
    pub(super) reason: String,
}

/// Applies objects one after the other, and nodes beside them, since each waits for its kubelet. Ends at the first object
/// of bastide's own that is refused; goes on after an addon's.
pub(super) async fn apply<'a, H: Host, C: Cluster, J: Journal>(
    doors: &Doors<'_, '_, H, C, J>,
    actions: &'a [ObjectAction],
    left_out: impl Fn(&HostName) -> bool,
) -> Vec<Refusal<'a>> {
    let nodes = actions
        .iter()
        .filter(|action| matches!(action, ObjectAction::Node { node, .. } if !left_out(node)))
        .map(|action| doors.insist(action));
    let others = async {
        let mut refusals = Vec::new();
        for action in actions.iter().filter(|action| !matches!(action, ObjectAction::Node { .. })) {
            if doors.stopped() {
                break;
            }
            let Some(refusal) = doors.insist(action).await else { continue };
            refusals.push(refusal);
            if !is_addon(action) {
                break;
            }
        }
        refusals
    };
    let (nodes, mut refusals) = join(join_all(nodes), others).await;
    refusals.extend(nodes.into_iter().flatten());
    refusals
}

fn words(action: &ObjectAction) -> String {
    match action {
        ObjectAction::Apply { id, .. } => format!("applies {id}"),
        ObjectAction::Delete { id, .. } => format!("deletes {id}"),
        ObjectAction::Forget { node } => format!("deletes node {node}"),
        ObjectAction::Node { node, .. } => format!("labels node {node}"),
    }
}

fn is_addon(action: &ObjectAction) -> bool {
    matches!(action, ObjectAction::Apply { set: ObjectSet::Addon(_), .. })
}

impl<H: Host, C: Cluster, J: Journal> Doors<'_, '_, H, C, J> {
    fn stopped(&self) -> bool {
        self.with.cancel.is_cancelled() || self.lost.is_cancelled()
    }

    /// How long an action is tried again. An addon's refusal is its author's to see at once.
    fn patience(&self, action: &ObjectAction) -> Duration {
        match action {
            ObjectAction::Node { .. } => self.with.deadlines.ready,
            _ if is_addon(action) => Duration::ZERO,
            _ => YOUNG.min(self.with.deadlines.health),
        }
    }

    async fn insist<'a>(&self, action: &'a ObjectAction) -> Option<Refusal<'a>> {
        self.with.progress.cluster(&words(action));
        let until = Instant::now() + self.patience(action);
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.with.cluster.apply(action).await {
                Ok(()) => return None,
                Err(reason) => reason,
            };
            if Instant::now() + pause >= until || self.stopped() {
                return Some(Refusal { action, reason });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
