//! Shows a restore's legs as one plan, asks, and runs them one after the other under one revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::apply::Locks;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::apply::Stamp;
use crate::host::Contents;
use crate::host::Survivor;
use crate::model::Barrier;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::ImageRef;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::RevisionState;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::RestoreOptions;
use crate::ops::Talk;
use crate::ops::agreed::Agreed;
use crate::ops::agreed::Question;
use crate::ops::connect::RealHost;
use crate::ops::perform;
use crate::ops::perform::Runner;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;
use crate::ops::restore_before as before;
use crate::ops::restore_source::Source;
use crate::ops::restore_source::WithDatabase;
use crate::ops::restored;
use crate::ops::snapshot::Site;
use crate::ops::survivor;
use crate::plan;
use crate::plan::Context;
use crate::route::restore as route;

/// A restore, or its taking back, before anybody said yes.
pub(super) struct Job {
    /// Everything that was seen and rendered.
    pub prepared: Prepared,
    /// Where a last snapshot is taken before anything stops; none where nothing lives that could give one.
    pub last: Option<Site>,
    /// The database.
    pub source: Option<Source>,
    /// The host whose data it is made from on the way.
    pub survivor: Option<HostName>,
    /// Token of the restore's etcd cluster.
    pub token: String,
    /// Who takes part.
    pub seats: Seats,
    /// What is done, in order.
    pub legs: Vec<Leg>,
    /// For the history.
    pub why: String,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Whether the revision is a restore or takes one back.
    pub is_restore: bool,
}

/// Who takes part in a restore.
pub(super) struct Seats {
    /// Hosts on which nothing is done.
    pub left_out: BTreeSet<HostName>,
    /// Those among them that are not at the target when all went well.
    pub away: BTreeSet<HostName>,
}

/// A part of the way; each is planned from what is seen when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    /// The control plane stops.
    Stop,
    /// Everything but the control plane is as it should be.
    Bare,
    /// The database is made from what a member holds that survived.
    Gather,
    /// The members' data are exchanged.
    Exchange,
    /// The members' old data come back.
    PutBack,
    /// The target.
    Target,
    /// What only a living API server could tell.
    Objects,
}

/// Shows, asks, runs, records.
pub(super) async fn run(
    mut job: Job,
    invocation: &Invocation,
    options: &RestoreOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let whole = whole(&job)?;
    let part = job.part();
    let (members, others): (BTreeSet<_>, BTreeSet<_>) = part
        .hosts
        .keys()
        .cloned()
        .partition(|name| part.hosts.get(name).is_some_and(|host| host.roles.control_plane() || host.roles.etcd()));
    let words = "This replaces what the cluster knows";
    let question = Question { plan: &whole, words, members: &members, others: &others };
    let mut agreed = Agreed::ask(&mut job.prepared, &question, invocation, options, talk).await?;
    if let Some(site) = job.last.take() {
        before::last_snapshot(&site, "before-restore", job.prepared.now, &agreed.holder.run, &**talk).await?;
    }
    let errand = Errand { why: job.why.clone(), barrier: barrier(&job), ..Errand::default() };
    let stamp = reach::begin(&mut job.prepared, invocation, &errand, &agreed.folder)?;
    let opening = |prepared: &Prepared, name: &HostName| {
        let known = prepared.observed.hosts.get(name).and_then(|seen| seen.record.as_ref());
        Some(apply::opening(known, &stamp))
    };
    // Not yet onto members that hold nothing: a record says that the host is this cluster's, and something may lie there.
    let known: BTreeSet<_> = members.iter().filter(|name| job.has_record(name)).cloned().collect();
    let ended = match reach::hand_out(&job.prepared, &known, &agreed.holder, &|name| opening(&job.prepared, name)).await
    {
        Ok(()) => legs(&mut job, &part, &stamp, &mut agreed, talk, cancel).await,
        Err(error) => Err(error),
    };
    let reports = match ended {
        Ok(reports) => reports,
        Err(error) => {
            reach::close(&mut job.prepared, &agreed.folder, &stamp.revision, RevisionState::Failed)?;
            return Err(error);
        }
    };
    let except = job.except(&reports);
    reach::close(&mut job.prepared, &agreed.folder, &stamp.revision, reach::state(&except))?;
    let closing = |name: &HostName| {
        let known = job.prepared.observed.hosts.get(name)?.record.as_ref();
        Some(HostRecord { complete: true, ..apply::opening(known, &stamp) })
    };
    reach::hand_out(&job.prepared, &members, &agreed.holder, &closing).await?;
    if except.is_empty() {
        job.forget(&agreed.holder.run, &**talk).await;
    }
    agreed.end(&job.prepared, &reports, options, talk)?;
    Ok(if except.is_empty() { Reached::Wholly } else { Reached::Except(except) })
}

impl Job {
    /// The target as far as this run goes.
    fn part(&self) -> Desired {
        route::taking_part(&self.prepared.target.desired, &self.seats.left_out)
    }

    /// etcd's.
    fn image(&self) -> Result<&ImageRef, OpsError> {
        let image = self.prepared.bundle.release().images.get("etcd").map(|image| &image.reference);
        image.ok_or_else(|| OpsError::Impossible("the bundle holds no image of etcd".to_owned()))
    }

    /// Makes the database where it is to come from a survivor.
    async fn gather(&mut self, run: &str, talk: &dyn Talk) -> Result<(), OpsError> {
        let Some(host) = &self.survivor else { return Ok(()) };
        let silent = || OpsError::Impossible(format!("{host}: does not answer"));
        let machine = self.prepared.fleet.get(host).ok_or_else(silent)?;
        let survivor = self.of(run);
        self.source = Some(survivor::gather(machine, host, survivor, self.image()?, talk).await?);
        Ok(())
    }

    /// Once every member has what the survivor held, nothing more is to be made from it.
    async fn forget(&self, run: &str, talk: &dyn Talk) {
        let Some(machine) = self.survivor.as_ref().and_then(|host| self.prepared.fleet.get(host)) else { return };
        if let Err(error) = machine.forget_recovered(self.of(run)).await {
            talk.warn(&error.to_string());
        }
    }

    fn of<'a>(&'a self, run: &'a str) -> Survivor<'a> {
        Survivor { run, token: &self.token, health: self.prepared.local.cluster.options.deadlines.health }
    }

    fn has_record(&self, name: &HostName) -> bool {
        self.prepared.observed.hosts.get(name).is_some_and(|seen| seen.record.is_some())
    }

    /// Hosts that are not at the target when all went well.
    fn except(&self, reports: &[Report]) -> BTreeSet<HostName> {
        let silent = reports.iter().flat_map(|report| report.left_out.keys());
        self.seats.away.iter().chain(silent).cloned().collect()
    }

    fn plan(&self, leg: Leg, observed: &Observed) -> Result<Plan, OpsError> {
        let part = self.part();
        let ordinary = |target: &Desired| at_once(&self.prepared, target, observed);
        match leg {
            Leg::Stop => Ok(route::stop(&part, observed)),
            Leg::Bare => ordinary(&route::bare(&part)).map(route::without_cluster),
            // Its own words are in the notes: it changes nothing of the cluster's.
            Leg::Gather => Ok(Plan::default()),
            Leg::Exchange => {
                let etcd = &self.prepared.local.cluster.services.etcd;
                let born = &self.prepared.target.secrets.etcd;
                let mut members = born.members.clone();
                members.retain(|name, _| !born.away.contains(name));
                let birth = route::Birth {
                    token: &self.token,
                    members: &members,
                    image: self.image()?,
                    owner: (etcd.uid, etcd.gid),
                };
                // What is only made on the way can be shown all the same: nothing that is shown depends on its bytes.
                let unknown = route::Database { digest: Digest::of(b""), size: 0, revision: None };
                let database = self.source.as_ref().map_or(&unknown, |source| &source.database);
                Ok(route::exchange(&part, &birth, database))
            }
            Leg::PutBack => Ok(route::put_back(&part, &self.token)),
            Leg::Target => ordinary(&part),
            Leg::Objects => {
                let mut plan = ordinary(&part)?;
                plan.stages.extend(route::departed(&self.prepared.target.desired, observed).stages);
                Ok(plan)
            }
        }
    }
}

/// The way of hosts to `target` where nothing runs that would have to be kept alive: all of them at once.
pub(super) fn at_once(prepared: &Prepared, target: &Desired, observed: &Observed) -> Result<Plan, OpsError> {
    let context = Context {
        now: prepared.now,
        architecture: &prepared.bundle.release().architecture,
        without: BTreeSet::new(),
        max_unavailable_worker: None,
        previous: None,
        unfinished: plan::Unfinished::default(),
        keep: prepared.kept.keep.clone(),
        prune_data: BTreeSet::new(),
    };
    let mut observed = observed.clone();
    observed.hosts.retain(|name, _| target.hosts.contains_key(name));
    plan::plan(target, &observed, &context).map_err(OpsError::Refused)
}

/// Runs a plan that was made from the last look. An error unless all of it was done.
pub(super) async fn perform(
    prepared: &Prepared,
    target: &Desired,
    plan: &Plan,
    source: Option<Source>,
    runner: Runner<'_>,
    locks: &mut Locks<RealHost>,
) -> Result<Report, OpsError> {
    let contents: Arc<dyn Contents> = Arc::new(WithDatabase { shelf: perform::shelf(prepared), source });
    let report = perform::perform(prepared, target, plan, &contents, runner, locks).await;
    if report.outcome == Outcome::Done { Ok(report) } else { Err(OpsError::Stopped(Box::new(report))) }
}

/// All legs as one plan, each from what the one before is expected to leave.
fn whole(job: &Job) -> Result<Plan, OpsError> {
    let mut observed = job.prepared.observed.clone();
    let mut whole = Plan { notes: job.notes.clone(), ..Plan::default() };
    whole.left_out.clone_from(&job.seats.left_out);
    for leg in &job.legs {
        // Which objects differ is known only when the restored API server answers.
        if *leg == Leg::Objects || *leg == Leg::Gather {
            continue;
        }
        if *leg == Leg::Target {
            observed.objects = None;
        }
        let plan = job.plan(*leg, &observed)?;
        observed = plan::predict(&observed, &plan);
        whole.allowances.clone_from(&plan.allowances);
        for note in plan.notes {
            if !whole.notes.contains(&note) {
                whole.notes.push(note);
            }
        }
        whole.stages.extend(plan.stages);
    }
    whole.barriers.extend(barrier(job));
    Ok(whole)
}

fn barrier(job: &Job) -> Option<Barrier> {
    job.is_restore.then(|| Barrier { name: restored::BARRIER.to_owned(), why: job.why.clone() })
}

/// Runs the legs. The last look stays in `job`.
async fn legs(
    job: &mut Job,
    part: &Desired,
    stamp: &Stamp,
    agreed: &mut Agreed,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Vec<Report>, OpsError> {
    let mut reports = Vec::new();
    for leg in job.legs.clone() {
        if leg == Leg::Gather {
            job.gather(&agreed.holder.run, &**talk).await?;
            continue;
        }
        look(job, part, leg == Leg::Objects).await?;
        let plan = job.plan(leg, &job.prepared.observed)?;
        if plan.is_empty() {
            continue;
        }
        let runner = Runner { stamp, holder: &agreed.holder, talk, cancel };
        let report = perform(&job.prepared, part, &plan, job.source.clone(), runner, &mut agreed.locks).await?;
        for remark in report.remarks() {
            talk.warn(&remark);
        }
        reports.push(report);
    }
    look(job, part, true).await?;
    let left = job.plan(Leg::Objects, &job.prepared.observed)?;
    if reports.iter().all(|report| reach::hosts_left(&left, report).is_empty()) {
        return Ok(reports);
    }
    Err(OpsError::NotReached(plan::text(&left, plan::Detail::Folded)))
}

async fn look(job: &mut Job, part: &Desired, objects: bool) -> Result<(), OpsError> {
    let prepared = &mut job.prepared;
    let scopes = prepare::scopes(part, None);
    let mut observed = prepare::look(&prepared.fleet, &scopes).await?;
    if objects {
        // Whoever answered before the restore does not answer now.
        prepared.doors.forget_api().await;
        observed.objects = prepared.doors.observe(&prepared.target.desired).await?;
    }
    prepared.observed = observed;
    Ok(())
}
