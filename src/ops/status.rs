//! `status`: what runs, how it is, and where it differs from what was reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use serde::Serialize;

use crate::model::DesiredHost;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::Revision;
use crate::model::RevisionState;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::differences::Change;
use crate::ops::doors::Doors;
use crate::ops::kept::Kept;
use crate::ops::live;
use crate::ops::live::Live;
use crate::ops::prepare;
use crate::ops::recurring;
use crate::ops::restored;
use crate::ops::snapshot::HostReport;
use crate::secrets::Secrets;

/// Certificates that end sooner are listed: `up` renews from here on.
const ENDS_SOON: i64 = 90 * 24 * 60 * 60;

/// The whole picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Layout of this document.
    pub schema: u32,
    /// `cluster_name`.
    pub cluster: String,
    /// In one word.
    pub health: Overall,
    /// The newest revision.
    pub revision: Option<Revision>,
    /// By node name.
    pub hosts: BTreeMap<HostName, HostStatus>,
    /// What ails bastide's own Deployments and DaemonSets; absent where all are rolled out or no API server answers.
    pub workloads: Option<String>,
    /// Certificates that end within 90 days: which, and seconds until then.
    pub certificates: BTreeMap<String, i64>,
    /// Objects that differ from the last reached revision.
    pub objects: Vec<String>,
    /// Whether cluster.yml is another one than the newest revision came from.
    pub file_changed: bool,
    /// Why drift could not be judged.
    pub notes: Vec<String>,
}

/// The cluster in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overall {
    /// Everything answers and is well, and nothing differs.
    Healthy,
    /// Something is unwell, silent or different.
    Degraded,
    /// No API server is ready.
    Unreachable,
}

/// One host.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostStatus {
    /// Why it does not answer.
    pub unreachable: Option<String>,
    /// Component to what ails it; absent reason means well.
    pub components: BTreeMap<&'static str, Option<String>>,
    /// Kubelet version that the node reports.
    pub kubelet: Option<String>,
    /// Paths, units, images and users that differ from the last reached revision.
    pub drift: Vec<String>,
    /// Who is at work.
    pub lock: Option<LockHolder>,
    /// What it tells of the snapshots that it takes by itself; absent where it takes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurring: Option<HostReport>,
    /// Why it takes none although it should.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recurring_troubles: Vec<String>,
}

impl HostStatus {
    fn is_well(&self) -> bool {
        self.unreachable.is_none()
            && self.drift.is_empty()
            && self.recurring_troubles.is_empty()
            && self.components.values().all(Option::is_none)
    }
}

/// Asks every component itself, and compares every host with the last reached revision.
pub async fn status(invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<Status, OpsError> {
    let now = prepare::now();
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let store = kept.store()?;
    let revision = store.reached().or(store.newest()).cloned();
    let id = revision.as_ref().map(|revision| revision.id.clone());
    let id = id.ok_or_else(|| OpsError::Impossible("no `up` has run on this cluster yet".to_owned()))?;
    let newest = store.newest().cloned();

    let Live { target, fleet, observed, doors, trouble, plan } =
        Live::look(&local, &kept, &id, invocation, talk).await?;
    let mut notes = Vec::from_iter(trouble);
    notes.extend(restored::notes(&store.history(), &target.desired, &observed));
    let silent_api = observed.objects.is_none();
    let mut hosts = healths(&target.desired.hosts, &doors).await;
    add_seen(&mut hosts, &observed);
    let certificates = ending(&target.secrets, now);
    if certificates.values().any(|left| *left <= 0) {
        notes.push(way_on_after_the_end(&target.secrets).to_owned());
    }
    let mut objects = Vec::new();
    match plan {
        Ok(plan) => {
            for (host, path) in drift(&plan) {
                hosts.entry(host).or_default().drift.push(path);
            }
            if !silent_api {
                objects = live::object_drift(&plan).iter().map(object_words).collect();
            }
        }
        Err(refusals) => notes.extend(refusals.iter().map(ToString::to_string)),
    }
    let since = newest.as_ref().map_or(now, |revision| revision.at);
    let interval = local.cluster.services.etcd.backup.interval;
    let recurring = recurring::look(&target.desired, &observed, &fleet, interval, (since, now)).await?;
    notes.extend(recurring.overdue);
    for (name, report) in recurring.reports {
        hosts.entry(name).or_default().recurring = Some(report);
    }
    for (name, troubles) in recurring.troubles {
        hosts.entry(name).or_default().recurring_troubles = troubles;
    }
    let file_changed = newest.as_ref().is_some_and(|revision| revision.config != local.digest);
    let mut workloads = None;
    if !silent_api {
        workloads = doors.system_workloads().await.err().map(|trouble| trouble.to_string());
    }
    let reached = newest.as_ref().is_some_and(|revision| revision.state == RevisionState::Reached);
    let as_it_should_be = reached && workloads.is_none() && objects.is_empty() && notes.is_empty();
    let health = if silent_api {
        Overall::Unreachable
    } else if as_it_should_be && hosts.values().all(HostStatus::is_well) {
        Overall::Healthy
    } else {
        Overall::Degraded
    };
    Ok(Status {
        schema: 1,
        cluster: local.cluster.name,
        health,
        revision: newest,
        hosts,
        workloads,
        certificates,
        objects,
        file_changed,
        notes,
    })
}

/// Every component of every host, all asked at once, each through its own host.
async fn healths(hosts: &BTreeMap<HostName, DesiredHost>, doors: &Doors<RealHost>) -> BTreeMap<HostName, HostStatus> {
    let asked = hosts.iter().map(|(name, host)| async move {
        let components = doors.components(name, &host.roles).await;
        (name.clone(), HostStatus { components, ..HostStatus::default() })
    });
    join_all(asked).await.into_iter().collect()
}

/// What the hosts and the API server showed, beside the health of components.
fn add_seen(hosts: &mut BTreeMap<HostName, HostStatus>, observed: &Observed) {
    for (name, reason) in &observed.unreachable {
        hosts.entry(name.clone()).or_default().unreachable = Some(reason.clone());
    }
    for (name, host) in &observed.hosts {
        let entry = hosts.entry(name.clone()).or_default();
        entry.lock.clone_from(&host.lock);
        let node = observed.objects.as_ref().and_then(|objects| objects.nodes.get(name));
        entry.kubelet = node.map(|node| node.kubelet.clone());
    }
}

/// Whoever signs has to sign anew.
fn way_on_after_the_end(secrets: &Secrets) -> &'static str {
    if secrets.external().is_empty() {
        "certificates have ended: `bastide rotate-certs` issues them anew and brings back what waits for them"
    } else {
        "certificates have ended: an external authority has to sign new ones (`bastide certs generate-csr`), which \
         `bastide rotate-certs --custom-certs` brings to the hosts"
    }
}

/// What a plan back to the reached revision would touch.
fn drift(plan: &Plan) -> Vec<(HostName, String)> {
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    steps
        .flat_map(|step| step.batch.0.iter().filter_map(|action| Some((step.host.clone(), live::words(action)?))))
        .collect()
}

fn object_words((what, change, fields): &(String, Change, Vec<String>)) -> String {
    match change {
        Change::Removed => format!("{what}: is missing"),
        Change::Added => format!("{what}: should not be there"),
        Change::Changed => format!("{what}: {}", fields.join(", ")),
    }
}

fn ending(secrets: &Secrets, now: i64) -> BTreeMap<String, i64> {
    let soon = secrets.leaves.iter().filter(|(_, leaf)| leaf.not_after - now < ENDS_SOON);
    soon.map(|(id, leaf)| (id.describe(), leaf.not_after - now)).collect()
}
