//! Does what a member's joining takes ([`Job`]), under one revision.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::apply::Stamp;
use crate::model::Barrier;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::Observed;
use crate::model::Plan;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Reached;
use crate::ops::RestoreOptions;
use crate::ops::Talk;
use crate::ops::agreed::Agreed;
use crate::ops::agreed::Question;
use crate::ops::members::Membership;
use crate::ops::perform::Runner;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::rejoin::Job;
use crate::ops::restore_before as before;
use crate::ops::restore_run;
use crate::ops::restored;
use crate::route::restore as way;

/// Shows, asks, runs, records.
pub(super) async fn run(
    mut job: Job,
    invocation: &Invocation,
    options: &RestoreOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let plan = job.whole()?;
    let (members, others) =
        apply::hosts_to_lock(&job.prepared.target.desired, job.prepared.kept.reached.as_ref(), &plan);
    let question =
        Question { plan: &plan, words: "This changes who belongs to etcd", members: &members, others: &others };
    let mut agreed = Agreed::ask(&mut job.prepared, &question, invocation, options, talk).await?;
    if let Some(site) = job.last.take() {
        before::last_snapshot(&site, "before-rejoin", job.prepared.now, &agreed.holder.run, &**talk).await?;
    }
    let barrier = Barrier { name: restored::LATE.to_owned(), why: job.why() };
    let errand = Errand { why: job.why(), barrier: Some(barrier), joins: job.host.clone(), ..Errand::default() };
    let stamp = reach::begin(&mut job.prepared, invocation, &errand, &agreed.folder)?;
    let without = job.without();
    // Not onto those that stay away: a record with this revision would say that they were part of it.
    let taking_part: BTreeSet<_> = members.difference(&without).cloned().collect();
    let opening = |prepared: &Prepared, name: &HostName| -> Option<HostRecord> {
        let known = prepared.observed.hosts.get(name)?.record.as_ref()?;
        Some(apply::opening(Some(known), &stamp))
    };
    let handed =
        reach::hand_out(&job.prepared, &taking_part, &agreed.holder, &|name| opening(&job.prepared, name)).await;
    let outcome = match handed {
        Ok(()) => {
            let peers = job.prepared.target.secrets.etcd.members.clone();
            Walk { job: &mut job, peers, stamp: &stamp, agreed: &mut agreed, talk, cancel }.go().await
        }
        Err(error) => Err(error),
    };
    let prepared = &mut job.prepared;
    let runner = Runner { stamp: &stamp, holder: &agreed.holder, talk, cancel };
    let ended = reach::conclude(prepared, runner, &agreed.folder, &taking_part, &without, outcome).await;
    let (reached, report) = ended?;
    agreed.end(prepared, &[report], options, talk)?;
    Ok(reached)
}

/// A job that is being done.
struct Walk<'a> {
    job: &'a mut Job,
    /// Every etcd host's peer address.
    peers: BTreeMap<HostName, String>,
    stamp: &'a Stamp,
    agreed: &'a mut Agreed,
    talk: &'a Arc<dyn Talk>,
    cancel: &'a CancellationToken,
}

impl Walk<'_> {
    async fn go(mut self) -> Result<Report, OpsError> {
        let strangers: Vec<_> = self.job.without().into_iter().collect();
        self.membership().take_out_stale(&strangers).await?;
        if let Some(host) = self.job.host.clone() {
            if !self.job.stands {
                for number in 0..3 {
                    self.step(|job, seen| Ok((job.part(), job.before_it_joins(&host, number, seen)?))).await?;
                }
                // Its etcd has stopped and its data are gone. Announced it must be before it starts.
                self.membership().add_learner(&host).await?;
            }
            if let Err(error) = self.learn(&host).await {
                if !interrupted(&error) && !self.cancel.is_cancelled() {
                    self.talk.warn(&format!("{host} is taken out of etcd again"));
                    if let Err(error) = self.undo(&host).await {
                        self.talk.warn(&error.to_string());
                    }
                }
                return Err(error);
            }
        }
        let (observed, mut plan) = self.job.prepared.again(&self.job.without()).await?;
        self.job.prepared.observed = observed;
        if let Some(settling) = self.job.settling(&self.job.prepared.observed) {
            let first = self.job.rest(&settling, &self.job.prepared.observed)?;
            self.perform(&settling, &first).await?;
            (self.job.prepared.observed, plan) = self.job.prepared.again(&self.job.without()).await?;
        }
        let target = self.job.prepared.target.desired.clone();
        self.perform(&target, &plan).await
    }

    /// From a learner that was announced to a member with a vote.
    async fn learn(&mut self, host: &HostName) -> Result<(), OpsError> {
        if !self.job.stands {
            self.step(|job, seen| Ok((job.joining.clone(), job.learner(seen)?))).await?;
        }
        let patience = self.job.prepared.local.cluster.options.deadlines.health;
        let membership = self.membership();
        tokio::select! {
            promoted = membership.promote(host, patience) => promoted,
            () = self.cancel.cancelled() => Err(OpsError::Impossible(format!("{host}: interrupted before it got its vote; the same command goes on"))),
        }
    }

    /// A learner is promoted or removed; what was removed must not be started again and again.
    async fn undo(&mut self, host: &HostName) -> Result<(), OpsError> {
        self.membership().take_out(host).await?;
        self.step(|job, seen| Ok((job.part(), way::stop(&job.part(), seen)))).await.map(drop)
    }

    /// Looks at the host, plans, and does that.
    async fn step(
        &mut self,
        next: impl Fn(&Job, &Observed) -> Result<(Desired, Plan), OpsError> + Send,
    ) -> Result<Report, OpsError> {
        let scopes = prepare::scopes(&self.job.part(), None);
        self.job.prepared.observed = prepare::look(&self.job.prepared.fleet, &scopes).await?;
        let (target, plan) = next(self.job, &self.job.prepared.observed)?;
        self.perform(&target, &plan).await
    }

    async fn perform(&mut self, target: &Desired, plan: &Plan) -> Result<Report, OpsError> {
        let Agreed { holder, locks, .. } = &mut *self.agreed;
        let runner = Runner { stamp: self.stamp, holder, talk: self.talk, cancel: self.cancel };
        restore_run::perform(&self.job.prepared, target, plan, None, runner, locks).await
    }

    fn membership(&self) -> Membership<'_> {
        self.job.membership(&self.peers, &**self.talk)
    }
}

/// Somebody wants it to stop here, or somebody else may be at work.
fn interrupted(error: &OpsError) -> bool {
    let OpsError::Stopped(report) = error else { return false };
    matches!(report.outcome, Outcome::Cancelled | Outcome::LockLost)
}
