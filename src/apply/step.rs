//! One step: a batch on one host, then its gates.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::ApplyError;
use crate::apply::Cluster;
use crate::apply::Journal;
use crate::apply::Run;
use crate::apply::gate;
use crate::apply::record;
use crate::host::Host;
use crate::host::Work;
use crate::model::Gate;
use crate::model::HostRecord;
use crate::model::Step;

/// How a step ended.
pub(super) enum End {
    Done,
    /// Its gates were no longer waited for, because the run stops anyway.
    Abandoned,
    /// The host does not answer, and the cluster lives without it.
    Silent(String),
    Failed(Vec<ApplyError>),
}

/// A step that ended, and what it left.
pub(super) struct StepEnd<'a> {
    pub(super) step: &'a Step,
    pub(super) end: End,
    pub(super) record: Option<HostRecord>,
    pub(super) timings: Vec<(String, Duration)>,
}

/// How waiting for a gate ended.
pub(super) enum Wait {
    Open(Duration),
    Shut(ApplyError),
    /// Shut, and its host does not answer.
    Silent(ApplyError),
    Abandoned,
}

/// Does the step's batch and waits for its gates, all at the same time.
pub(super) async fn run<'a, H: Host, C: Cluster, J: Journal>(
    with: &Run<'_, H, C, J>,
    step: &'a Step,
    known: Option<HostRecord>,
    broken: CancellationToken,
) -> StepEnd<'a> {
    let mut ended = StepEnd { step, end: End::Done, record: None, timings: Vec::new() };
    let (Some(host), Some(seen)) = (with.fleet.get(&step.host), with.observed.hosts.get(&step.host)) else {
        ended.end = End::Failed(vec![ApplyError::NotConnected { host: step.host.clone() }]);
        return ended;
    };
    if !step.batch.0.is_empty() {
        let (before, after) = record::around(known.as_ref(), seen, &step.batch, with.stamp);
        let started = Instant::now();
        let done = host
            .perform(Work {
                batch: &step.batch,
                contents: with.contents,
                before: &before,
                after: &after,
                run: with.id,
                transfer_deadline: with.deadlines.transfer,
                health_deadline: with.deadlines.health,
                progress: with.progress,
            })
            .await;
        ended.timings.push(("write".to_owned(), started.elapsed()));
        if let Err(error) = done {
            ended.record = Some(before);
            ended.end = if error.is_silence() && with.may_be_silent(&step.host) {
                End::Silent(error.to_string())
            } else {
                End::Failed(vec![error.into()])
            };
            return ended;
        }
        ended.record = Some(after);
    }
    let broken = &broken;
    let waits = step.gates.iter().map(|gate| async move { (gate, wait(with, gate, broken).await) });
    for (gate, end) in join_all(waits).await {
        match end {
            Wait::Open(took) => ended.timings.push((format!("wait for {}", gate::words(gate)), took)),
            Wait::Silent(error) if with.may_be_silent(&step.host) => ended.end = End::Silent(error.to_string()),
            Wait::Silent(error) | Wait::Shut(error) => match &mut ended.end {
                End::Failed(errors) => errors.push(error),
                end => *end = End::Failed(vec![error]),
            },
            Wait::Abandoned => {
                if matches!(ended.end, End::Done) {
                    ended.end = End::Abandoned;
                }
            }
        }
    }
    if matches!(ended.end, End::Done) {
        with.progress.done(&step.host);
    }
    ended
}

/// Waits for one gate, unless the run is broken before.
pub(super) async fn wait<H: Host, C: Cluster, J: Journal>(
    with: &Run<'_, H, C, J>,
    gate: &Gate,
    broken: &CancellationToken,
) -> Wait {
    let words = gate::words(gate);
    with.progress.waiting(gate.host(), &words);
    let end = tokio::select! {
        // An open gate counts even where the run broke in the same moment.
        biased;
        passed = gate::pass(gate, with.cluster, with.fleet, with.deadline(gate)) => match passed {
            Ok(took) => Wait::Open(took),
            Err((error, true)) => Wait::Silent(error),
            Err((error, false)) => Wait::Shut(error),
        },
        () = broken.cancelled() => Wait::Abandoned,
    };
    if matches!(end, Wait::Open(_)) {
        with.progress.waited(gate.host(), &words);
    }
    end
}
