//! `etcd snapshot restore --rejoin`: a member that a restore went without joins the cluster that was made then. `etcd rejoin HOST`: a
//! member that lost its data does, while the others go on.
//!
//! It is a stranger to them: what it holds is the old cluster's, or nothing. So that is taken away and kept, what etcd lists there leaves
//! for good, and a learner begins in its place, which gets everything from the others, as they are now, and its vote once it has it. No
//! snapshot is needed. Until then the API servers do not know one that a restore went without: an etcd client asks all members that it knows by turns, and one with the old data answers, with errors.
//!
//! One host at a time, each a revision; every step may be cut off, and the same command goes on. Where the host whose turn it was is
//! gone again, the command takes out what was begun for it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::apply::Stamp;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::Revision;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Reached;
use crate::ops::RestoreOptions;
use crate::ops::Talk;
use crate::ops::kept::Kept;
use crate::ops::members::Membership;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::rejoin_run;
use crate::ops::restore_run::at_once;
use crate::ops::restored;
use crate::ops::snapshot::Site;
use crate::plan;
use crate::render;
use crate::route::Member;
use crate::route::restore as way;

/// A member's joining, before anybody said yes.
pub(super) struct Job {
    /// Everything that was seen and rendered.
    pub prepared: Prepared,
    /// Whose turn it is; none where all are gone again, and what was begun is taken back.
    pub host: Option<HostName>,
    /// Whether its etcd is a member already, with or without a vote: an earlier run was cut off.
    pub stands: bool,
    /// Every etcd host that etcd goes on without, that one included.
    pub away: Vec<HostName>,
    /// What the host is between its old data and its place among the others.
    pub joining: Desired,
    /// Where a snapshot is taken before any member changes; none where it goes on, or nobody wants one.
    pub last: Option<Site>,
    /// Whether it is one that lost its data, and no restore went without it.
    lost: bool,
    /// How many others have a vote.
    voters: usize,
}

/// Lets every member join that is back.
pub(super) async fn rejoin(
    invocation: &Invocation,
    options: &RestoreOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    loop {
        let job = Box::pin(begin(invocation, options, talk)).await?;
        let more = options.member.is_none() && job.host.is_some() && waiting(&job).count() > 0;
        let reached = Box::pin(rejoin_run::run(job, invocation, options, talk, cancel)).await?;
        if !more || cancel.is_cancelled() {
            return Ok(reached);
        }
    }
}

/// Hosts that are back and whose turn comes after this one's.
fn waiting(job: &Job) -> impl Iterator<Item = &HostName> {
    let later = job.away.iter().filter(|name| job.host.as_ref() != Some(*name));
    later.filter(|name| job.prepared.fleet.get(name).is_some())
}

async fn begin(invocation: &Invocation, options: &RestoreOptions, talk: &Arc<dyn Talk>) -> Result<Job, OpsError> {
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let history = kept.store()?.history();
    let open = restored::unfinished(&history);
    let wanted = options.member.as_ref();
    let is_another = |open: &Revision| wanted.is_some() && open.joins.as_ref() != wanted;
    if let Some(open) = open.filter(|open| !restored::is_late(open) || is_another(open)) {
        return Err(restored::refusal(open));
    }
    let members: BTreeSet<_> = local.cluster.etcd_members().map(|node| &node.name).collect();
    if let Some(strange) = wanted.filter(|name| !members.contains(name)) {
        return Err(OpsError::Impossible(format!("{strange}: is no etcd host of cluster.yml")));
    }
    let mut away: Vec<_> = restored::away(&history).into_iter().filter(|name| members.contains(name)).collect();
    let lost = wanted.filter(|name| open.is_none() && !away.contains(name));
    away.extend(lost.cloned());
    let lost = lost.is_some();
    if away.is_empty() {
        let why = "--rejoin: etcd was not restored without any of its hosts, or all of them have joined since";
        return Err(OpsError::Impossible(why.to_owned()));
    }
    let bundle = local.bundle()?;
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let without = prepare::without(invocation)?;
    let nothing = || OpsError::NothingBegun { folder: kept.folder.clone() };
    let birth = kept.secrets.as_ref().map(|secrets| secrets.etcd.clone()).ok_or_else(nothing)?;
    let mut here: Vec<_> =
        away.iter().filter(|name| fleet.get(name).is_some() && !without.contains(*name)).cloned().collect();
    here.retain(|name| wanted.is_none_or(|wanted| wanted == name));
    // What a run that was cut off began with comes first: it is no longer among those whom nobody knows.
    here.sort_by_key(|name| birth.away.contains(name));
    let host = here.first().cloned();
    if host.is_none() && open.is_none() {
        let names: Vec<_> = away.iter().map(ToString::to_string).collect();
        return Err(OpsError::Impossible(format!("{}: still away", names.join(", "))));
    }
    if let Some(secrets) = kept.secrets.as_mut() {
        secrets.etcd.away = away.iter().filter(|name| host.as_ref() != Some(*name)).cloned().collect();
    }
    let last = Site::beside(&local, &kept, fleet.clone())?;
    let last = Some(last).filter(|_| open.is_none() && !invocation.no_last_snapshot);
    let mut prepared = prepare::survey(local, kept, None, bundle, fleet, &**talk).await?;
    let joining = match &host {
        Some(host) => joining(&mut prepared, host)?,
        None => prepared.target.desired.clone(),
    };
    let mut job = Job { prepared, host, stands: false, away, joining, last, lost, voters: 0 };
    let seen = job.membership(&birth.members, &**talk).look().await?;
    Membership::refuses_to_take_out(&seen, &job.away)?;
    job.stands = job.holds_data() && seen.iter().any(|member| member.well && job.is_of(member));
    if job.lost && job.stands {
        let host = job.host.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(OpsError::Impossible(format!(
            "{host}: its etcd is well and holds its data: nothing is to be replaced"
        )));
    }
    job.voters = seen.iter().filter(|member| !member.learner && !job.is_of(member)).count();
    Ok(job)
}

/// What `host` is while it joins; what its manifest holds then is among the target's contents afterwards.
fn joining(prepared: &mut Prepared, host: &HostName) -> Result<Desired, OpsError> {
    let mut secrets = prepared.target.secrets.clone();
    secrets.etcd.joining = Some(host.clone());
    let names = prepare::names(&prepared.observed, prepared.kept.newest.as_ref());
    let cluster = &prepared.local.cluster;
    let signers = prepared.kept.signers(cluster, &secrets.cluster)?;
    let release = prepared.bundle.release();
    let rendered = render::desired(cluster, &secrets, release, &prepared.local.addons, &names, Some(&signers))?;
    let others = prepared.target.desired.hosts.keys().filter(|name| *name != host).cloned().collect();
    let part = way::taking_part(&prepared.target.desired, &others);
    let joining = way::joining(&part, host, &rendered.desired);
    let mut blobs = (*prepared.target.blobs).clone();
    for file in joining.hosts.values().flat_map(|host| host.files.values()) {
        if let (None, Some(content)) = (blobs.get(&file.digest), rendered.blobs.get(&file.digest)) {
            blobs.insert(content.clone());
        }
    }
    prepared.target.blobs = Arc::new(blobs);
    Ok(joining)
}

impl Job {
    fn is_of(&self, member: &Member) -> bool {
        member.host.is_some() && member.host == self.host
    }

    fn holds_data(&self) -> bool {
        let seen = self.host.as_ref().and_then(|host| self.prepared.observed.hosts.get(host));
        seen.is_some_and(|seen| !seen.etcd_gone)
    }

    /// etcd's members as this job changes them.
    pub(super) fn membership<'a>(
        &'a self,
        peers: &'a BTreeMap<HostName, String>,
        talk: &'a dyn Talk,
    ) -> Membership<'a> {
        Membership { doors: &self.prepared.doors, peers, leaving: &self.away, talk }
    }

    /// Hosts that stay away.
    pub(super) fn without(&self) -> BTreeSet<HostName> {
        self.away.iter().filter(|name| self.host.as_ref() != Some(*name)).cloned().collect()
    }

    /// The host alone, as the target has it.
    pub(super) fn part(&self) -> Desired {
        let others = |name: &HostName| self.host.as_ref() != Some(name);
        let others = self.prepared.target.desired.hosts.keys().filter(|name| others(name)).cloned().collect();
        way::taking_part(&self.prepared.target.desired, &others)
    }

    fn make_room(&self, host: &HostName) -> Plan {
        let etcd = &self.prepared.local.cluster.services.etcd;
        way::clear(host, &self.prepared.target.secrets.etcd.token, (etcd.uid, etcd.gid))
    }

    /// The three plans that lead to a learner on an empty folder, by their number.
    pub(super) fn before_it_joins(
        &self,
        host: &HostName,
        number: usize,
        observed: &Observed,
    ) -> Result<Plan, OpsError> {
        Ok(match number {
            0 => way::stop(&self.part(), observed),
            1 => way::without_cluster(at_once(&self.prepared, &way::bare(&self.part()), observed)?),
            _ => self.make_room(host),
        })
    }

    /// From an empty folder to a learner that runs.
    pub(super) fn learner(&self, observed: &Observed) -> Result<Plan, OpsError> {
        Ok(way::without_vote(at_once(&self.prepared, &self.joining, observed)?))
    }

    /// The target but for how etcd runs there: what comes before that.
    pub(super) fn settling(&self, observed: &Observed) -> Option<Desired> {
        way::settling(&self.prepared.target.desired, self.host.as_ref()?, &self.joining, observed)
    }

    /// From there to `desired`, everybody else in their turns.
    pub(super) fn rest(&self, desired: &Desired, observed: &Observed) -> Result<Plan, OpsError> {
        let prepared = &self.prepared;
        let target = Target { desired: desired.clone(), ..prepared.target.clone() };
        let (local, without) = (&prepared.local, self.without());
        prepare::make_plan(local, &target, observed, &prepared.kept, &prepared.bundle, &without, prepared.now)
    }

    /// Everything as one plan, each part from what the one before is expected to leave.
    pub(super) fn whole(&self) -> Result<Plan, OpsError> {
        let mut observed = self.prepared.observed.clone();
        let mut whole = Plan { notes: self.notes(), left_out: self.without(), ..Plan::default() };
        let mut add = |plan: Plan, observed: &mut Observed| {
            *observed = plan::predict(observed, &plan);
            whole.stages.extend(plan.stages);
        };
        if let Some(host) = self.host.as_ref().filter(|_| !self.stands) {
            for number in 0..3 {
                add(self.before_it_joins(host, number, &observed)?, &mut observed);
            }
            add(self.learner(&observed)?, &mut observed);
            self.predict_record(host, &mut observed);
        }
        if let Some(settling) = self.settling(&observed) {
            add(self.rest(&settling, &observed)?, &mut observed);
        }
        let rest = self.rest(&self.prepared.target.desired, &observed)?;
        whole.allowances.clone_from(&rest.allowances);
        whole.stages.extend(rest.stages);
        Ok(whole)
    }

    /// A host that was empty has a record by then, of all that was put there.
    fn predict_record(&self, host: &HostName, observed: &mut Observed) {
        let desired = &self.prepared.target.desired;
        let (Some(seen), Some(revision)) = (observed.hosts.get_mut(host), self.prepared.kept.parent()) else { return };
        seen.etcd_gone = false;
        if seen.record.is_some() {
            return;
        }
        let (cluster, cluster_name) = (desired.cluster.clone(), desired.cluster_name.clone());
        let record = apply::opening(None, &Stamp { cluster, cluster_name, revision, parent: None });
        let files = seen.files.iter().map(|(path, file)| (path.clone(), file.digest)).collect();
        seen.record = Some(HostRecord { files, images: seen.images.clone(), ..record });
    }

    fn notes(&self) -> Vec<String> {
        if let Some(host) = &self.host {
            let joins = format!(
                "{host}: joins etcd as a learner, gets what the others hold, and its vote once it has it; one that gets no further is \
                 taken out again"
            );
            let leaves = format!(
                "{host}: the member that etcd lists there leaves for good, and takes its number with it; what is left of its data \
                 never serves again"
            );
            let bears = self.voters.saturating_sub(self.voters / 2 + 1);
            let meanwhile = format!(
                "until it has its vote, {} others have one, and etcd bears the loss of {bears} of them",
                self.voters
            );
            let snapshot = if self.last.is_some() {
                "a snapshot is taken before any member changes"
            } else {
                "no snapshot is taken before"
            };
            let lost = [leaves].into_iter().filter(|_| self.lost);
            return lost.chain([joins, meanwhile, snapshot.to_owned()]).collect();
        }
        let names: Vec<_> = self.away.iter().map(ToString::to_string).collect();
        vec![format!("{}: does not answer; what was begun for it is taken back", names.join(", "))]
    }

    /// For the history.
    pub(super) fn why(&self) -> String {
        match &self.host {
            Some(host) if self.lost => format!("{host} lost its data and joins etcd anew"),
            Some(host) => format!("{host} joins etcd"),
            None => "a member whose joining was cut off is given up".to_owned(),
        }
    }
}
