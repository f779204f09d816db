//! Stages in order, steps side by side as far as the plan allows, gates, objects.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::ApplyError;
use crate::apply::Cluster;
use crate::apply::Entry;
use crate::apply::Event;
use crate::apply::Fleet;
use crate::apply::Journal;
use crate::apply::Locks;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::apply::Stamp;
use crate::apply::Timing;
use crate::apply::gate;
use crate::apply::objects;
use crate::apply::record;
use crate::apply::step;
use crate::apply::step::End;
use crate::apply::step::StepEnd;
use crate::host::Contents;
use crate::host::Host;
use crate::host::Progress;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::ObjectAction;
use crate::model::ObjectSet;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::Stage;
use crate::model::Step;

/// How long a run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For one staging stream or activation without progress.
    pub transfer: Duration,
    /// For a component to become healthy.
    pub health: Duration,
    /// For a node to become Ready, and for the system's workloads.
    pub ready: Duration,
}

/// What a run works with.
pub struct Run<'a, H: Host, C: Cluster, J: Journal> {
    /// What the plan leads to.
    pub target: &'a Desired,
    /// What the plan was made from.
    pub observed: &'a Observed,
    /// The hosts.
    pub fleet: &'a Fleet<H>,
    /// The cluster's API and health.
    pub cluster: &'a C,
    /// Where each step is written down.
    pub journal: &'a J,
    /// Bytes by digest.
    pub contents: &'a Arc<dyn Contents>,
    /// Who is told what goes on.
    pub progress: &'a dyn Progress,
    /// How long to wait.
    pub deadlines: Deadlines,
    /// What the hosts' records will say.
    pub stamp: &'a Stamp,
    /// The run's id, as in the locks' holder.
    pub id: &'a str,
    /// Cancelled: finish what runs, begin nothing new.
    pub cancel: &'a CancellationToken,
}

impl<H: Host, C: Cluster, J: Journal> Run<'_, H, C, J> {
    /// Whether the cluster lives without this host, so that its silence does not stop the run (design 11.3).
    pub(super) fn may_be_silent(&self, host: &HostName) -> bool {
        self.target.hosts.get(host).is_some_and(|host| !host.roles.control_plane() && !host.roles.etcd())
    }
    pub(super) fn deadline(&self, gate: &Gate) -> Duration {
        match gate {
            Gate::NodeReady { .. } | Gate::SystemWorkloads => self.deadlines.ready,
            _ => self.deadlines.health,
        }
    }
}

/// Runs `plan` under `locks`.
///
/// After an error nothing new is begun; what runs is finished, and the errors of all hosts are collected. When the
/// majority of the locks is lost, gates are no longer waited for.
pub async fn run<H: Host, C: Cluster, J: Journal>(
    plan: &Plan,
    with: &Run<'_, H, C, J>,
    locks: &mut Locks<H>,
) -> Report {
    let mut driver = Driver::new(plan, with);
    for (host, reason) in locks.missing() {
        if with.may_be_silent(host) {
            driver.report.left_out.insert(host.clone(), reason.clone());
        }
    }
    let lost = driver.lost.clone();
    let watch = async {
        locks.lost().await;
        lost.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = driver.stages(plan) => {}
        () = watch => {}
    }
    driver.report
}

struct Driver<'a, 'r, H: Host, C: Cluster, J: Journal> {
    with: &'a Run<'r, H, C, J>,
    records: BTreeMap<HostName, HostRecord>,
    report: Report,
    lost: CancellationToken,
}

impl<'a, 'r, H: Host, C: Cluster, J: Journal> Driver<'a, 'r, H, C, J> {
    fn new(plan: &Plan, with: &'a Run<'r, H, C, J>) -> Self {
        let hosts = with.observed.hosts.iter();
        Self {
            with,
            records: hosts.filter_map(|(name, seen)| Some((name.clone(), record::reconciled(seen)?))).collect(),
            report: Report::of(plan.stages.len()),
            lost: CancellationToken::new(),
        }
    }

    async fn stages(&mut self, plan: &Plan) {
        for (at, stage) in plan.stages.iter().enumerate() {
            let number = at + 1;
            let begun = self.journal(number, stage, None, Event::Started);
            if begun {
                self.stage(number, stage).await;
            }
            if self.stopped() {
                self.journal(number, stage, None, Event::Failed);
                self.report.outcome = match () {
                    () if self.lost.is_cancelled() => Outcome::LockLost,
                    () if !self.report.errors.is_empty() => Outcome::Failed,
                    () => Outcome::Cancelled,
                };
                self.report.stopped_in = Some(stage.title.clone());
                return;
            }
            self.journal(number, stage, None, Event::Finished);
            self.report.stages_done = number;
        }
        if !self.report.errors.is_empty() {
            self.report.outcome = Outcome::Failed;
        }
    }

    /// Nothing new may be begun.
    fn stopped(&self) -> bool {
        !self.report.errors.is_empty() || self.with.cancel.is_cancelled() || self.lost.is_cancelled()
    }

    async fn stage(&mut self, number: usize, stage: &Stage) {
        let hosts = stage.steps.iter().map(|step| &step.host).chain(stage.gates.iter().filter_map(Gate::host));
        let hosts: BTreeSet<_> = hosts.cloned().collect();
        self.with.progress.stage(&stage.title, &Vec::from_iter(hosts));
        self.steps(number, stage).await;
        if !self.stopped() {
            self.objects(stage).await;
        }
        if !self.stopped() {
            self.gates(stage).await;
        }
        if !self.report.errors.is_empty() {
            self.with.progress.broke();
        }
    }

    async fn steps(&mut self, number: usize, stage: &Stage) {
        // Gates of the other hosts can no longer open where one host failed: waiting for them would tell nothing.
        let broken = self.lost.child_token();
        let mut waiting = stage.steps.iter();
        let mut running = FuturesUnordered::new();
        loop {
            while !self.stopped() && running.len() < stage.width.max(1) {
                let Some(step) = waiting.next() else { break };
                if self.report.left_out.contains_key(&step.host) {
                    continue;
                }
                if !self.journal(number, stage, Some(step), Event::Started) {
                    break;
                }
                let known = self.records.get(&step.host).cloned();
                running.push(step::run(self.with, step, known, broken.clone()));
            }
            let Some(end) = running.next().await else { break };
            self.step_ended(number, stage, end);
            if !self.report.errors.is_empty() {
                broken.cancel();
            }
        }
    }

    fn step_ended(&mut self, number: usize, stage: &Stage, ended: StepEnd<'_>) {
        let StepEnd { step, end, record, timings } = ended;
        self.report.timings.extend(timings.into_iter().map(|(what, took)| Timing {
            stage: stage.title.clone(),
            host: Some(step.host.clone()),
            what,
            took,
        }));
        if let Some(record) = record {
            self.records.insert(step.host.clone(), record.clone());
            self.report.records.insert(step.host.clone(), record);
        }
        let event = match end {
            End::Done => {
                self.report.steps_done.push((number, step.host.clone()));
                Event::Finished
            }
            End::Abandoned => Event::Failed,
            End::Silent(reason) => {
                self.report.left_out.insert(step.host.clone(), reason);
                Event::LeftOut
            }
            End::Failed(errors) => {
                self.report.errors.extend(errors);
                Event::Failed
            }
        };
        self.journal(number, stage, Some(step), event);
    }

    async fn objects(&mut self, stage: &Stage) {
        if stage.objects.is_empty() {
            return;
        }
        let started = Instant::now();
        let left_out = &self.report.left_out;
        let doors = objects::Doors { with: self.with, lost: &self.lost };
        let refusals = objects::apply(&doors, &stage.objects, |node| left_out.contains_key(node)).await;
        for objects::Refusal { action, reason } in refusals {
            match action {
                ObjectAction::Apply { id, set: ObjectSet::Addon(name), .. } => {
                    self.report.addons.entry(name.clone()).or_default().push(format!("{id}: {reason}"));
                }
                ObjectAction::Apply { id, .. } | ObjectAction::Delete { id, .. } => {
                    self.report.errors.push(ApplyError::Object { id: id.clone(), reason });
                }
                ObjectAction::Forget { node } | ObjectAction::Node { node, .. } => {
                    self.report.errors.push(ApplyError::Node { node: node.clone(), reason });
                }
            }
        }
        self.timing(stage, None, "objects", started.elapsed());
    }

    async fn gates(&mut self, stage: &Stage) {
        let (with, lost, left_out) = (self.with, &self.lost, &self.report.left_out);
        let waits = stage
            .gates
            .iter()
            .filter(|gate| gate.host().is_none_or(|host| !left_out.contains_key(host)))
            .map(|gate| async move { (gate, step::wait(with, gate, lost).await) });
        let ends = join_all(waits).await;
        for (gate, end) in ends {
            match (end, gate.host()) {
                (step::Wait::Open(took), host) => {
                    self.timing(stage, host.cloned(), &format!("wait for {}", gate::words(gate)), took);
                }
                (step::Wait::Silent(error), Some(host)) if self.with.may_be_silent(host) => {
                    self.report.left_out.insert(host.clone(), error.to_string());
                }
                (step::Wait::Silent(error) | step::Wait::Shut(error), _) => self.report.errors.push(error),
                (step::Wait::Abandoned, _) => {}
            }
        }
    }

    fn timing(&mut self, stage: &Stage, host: Option<HostName>, what: &str, took: Duration) {
        self.report.timings.push(Timing { stage: stage.title.clone(), host, what: what.to_owned(), took });
    }

    /// Writes a line; without one nothing may be begun.
    fn journal(&mut self, number: usize, stage: &Stage, step: Option<&Step>, event: Event) -> bool {
        let entry = Entry {
            event,
            stage: number,
            title: stage.title.clone(),
            host: step.map(|step| step.host.clone()),
            components: step.map_or_else(BTreeSet::new, |step| step.components.clone()),
        };
        match self.with.journal.write(&entry) {
            Ok(()) => true,
            Err(error) => {
                self.report.errors.push(error.into());
                false
            }
        }
    }
}
