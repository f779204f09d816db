//! From the command line to a plan: read, render, look, compare. Changes nothing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::apply;
use crate::apply::Fleet;
use crate::config::Cluster;
use crate::host::Dial as _;
use crate::host::Host as _;
use crate::host::HostError;
use crate::host::ssh::Ask;
use crate::host::ssh::SshResources;
use crate::model::Action;
use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::ObjectId;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::Scope;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect;
use crate::ops::connect::RealHost;
use crate::ops::custom;
use crate::ops::doors::Doors;
use crate::ops::doors::Keys;
use crate::ops::encryption;
use crate::ops::endpoint;
use crate::ops::kept::Kept;
use crate::ops::restored;
use crate::plan;
use crate::release::Bundle;
use crate::render;
use crate::secrets;
use crate::secrets::Issued;
use crate::secrets::Operator;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;

/// Where every kubelet tells its own host that it is well.
const KUBELET_HEALTH_PORT: u16 = 10248;

/// What is to be reached, with everything that it is made of.
#[derive(Clone)]
pub(super) struct Target {
    /// The hosts and objects.
    pub desired: Desired,
    /// Rendered contents.
    pub blobs: Arc<Blobs>,
    /// Keys and certificates.
    pub secrets: Secrets,
    /// What had to be issued.
    pub issued: Vec<Issued>,
}

/// Everything a command knows before it changes anything.
pub(super) struct Prepared {
    /// The cluster's file.
    pub local: Local,
    /// Programs and images.
    pub bundle: Arc<Bundle>,
    /// The state folder.
    pub kept: Kept,
    /// Open connections.
    pub fleet: Fleet<RealHost>,
    /// What is to be reached.
    pub target: Target,
    /// What is there.
    pub observed: Observed,
    /// The way to the API and to components' health.
    pub doors: Doors<RealHost>,
    /// The difference.
    pub plan: Plan,
    /// The encryption configuration that cluster.yml asks for, where it may not run beside that of today, which the target then has.
    pub keys_ahead: Option<Content>,
    /// Seconds since 1970, when the command began.
    pub now: i64,
}

/// Seconds since 1970, by this machine's clock.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Gives the target of a plan that was saved, once the state is open.
pub(super) type SavedTarget<'a> = &'a (dyn Fn(&Kept) -> Result<Target, OpsError> + Sync);

/// Reads, looks and plans. `saved` is the target of a saved plan, which is then not rendered anew.
pub(super) async fn prepare(
    invocation: &Invocation,
    saved: Option<SavedTarget<'_>>,
    talk: &Arc<dyn Talk>,
) -> Result<Prepared, OpsError> {
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    match (&invocation.custom_certs, saved) {
        (Some(folder), None) => kept.brought = Some(custom::bring(&local, &kept, folder, now(), &**talk)?),
        (None, None) => custom::warn_of_unused(&local, &kept, &**talk)?,
        (_, Some(_)) => {}
    }
    let bundle = local.bundle()?;
    let fleet = fleet(&local, invocation, talk).await?;
    let mut prepared = Box::pin(survey(local, kept, saved, bundle, fleet, &**talk)).await?;
    let without = without(invocation)?;
    restored::allow(&prepared.kept, &prepared.target.desired, &prepared.observed, &without)?;
    let mut observed = prepared.observed.clone();
    prepared.plan = prepared.planned(&mut observed, &without).await?;
    prepared.observed = observed;
    asked_for(&prepared.local.prune_data, &prepared.plan)?;
    if saved.is_none() && !prepared.plan.is_empty() {
        prepared.plan.notes.extend(ahead(&prepared.local, &prepared.kept));
        prepared.plan.notes.extend(encryption::ahead(&prepared).as_ref().map(encryption::note));
        prepared.plan.notes.extend(Box::pin(endpoint::note(&prepared)).await);
    }
    Ok(prepared)
}

/// Whether everything that is to go with its data does.
fn asked_for(names: &BTreeSet<String>, plan: &Plan) -> Result<(), OpsError> {
    let gone: BTreeSet<_> = plan.pruned_data().map(ObjectId::reference).collect();
    match names.difference(&gone).next() {
        None => Ok(()),
        Some(name) => Err(OpsError::NothingToPrune { name: name.clone() }),
    }
}

/// Looks at everything and renders the target, without a plan.
pub(super) async fn survey(
    local: Local,
    mut kept: Kept,
    saved: Option<SavedTarget<'_>>,
    bundle: Arc<Bundle>,
    fleet: Fleet<RealHost>,
    talk: &dyn Talk,
) -> Result<Prepared, OpsError> {
    let now = now();
    for warning in &local.warnings {
        talk.warn(&format!("{}:{}: {warning}", warning.file(), warning.line));
    }
    // The paths of a target do not depend on what the hosts call themselves, so a guess gives the scopes, and mostly the
    // target too.
    let guessed = guessed_names(&local.cluster);
    let (mut target, mut keys_ahead) = match saved {
        Some(saved) => (saved(&kept)?, None),
        None => render(&local, &bundle, &mut kept, &guessed, None, now, talk)?,
    };
    custom::warn_of_ends(&target.secrets, now, talk);
    let scopes = scopes(&target.desired, kept.reached.as_ref());
    let seen = look(&fleet, &scopes).await?;
    kept.compare(&local.cluster.name, seen.hosts.iter())?;
    if !local.cluster.options.dial_direct {
        forwards(&fleet).await?;
    }
    let names = names(&seen, kept.newest.as_ref());
    let alike = |names| render::named_alike(&local.cluster, names);
    if saved.is_none() && alike(&names) != alike(&guessed) {
        (target, keys_ahead) = render(&local, &bundle, &mut kept, &names, Some(target), now, talk)?;
    }
    let doors = doors(&local, &fleet, &target, &seen, now)?;
    let mut observed = seen;
    if kept.newest.is_some() {
        observed.objects = doors.observe(&target.desired).await?;
    }
    let plan = Plan::default();
    Ok(Prepared { local, bundle, kept, fleet, target, observed, doors, plan, keys_ahead, now })
}

/// After a rollback cluster.yml says more than the cluster is.
fn ahead(local: &Local, kept: &Kept) -> Option<String> {
    let newest = kept.store.as_ref()?.newest()?;
    let to = newest.returns_to.as_ref()?;
    (newest.config != local.digest).then(|| {
        format!(
            "revision {newest} took the cluster back to {to}; this goes on to what cluster.yml says",
            newest = newest.id
        )
    })
}

/// `--without` as names.
pub(super) fn without(invocation: &Invocation) -> Result<BTreeSet<HostName>, OpsError> {
    let parse = |text: &String| {
        HostName::new(text.clone()).map_err(|error| OpsError::Impossible(format!("--without: {error}")))
    };
    invocation.without.iter().map(parse).collect()
}

/// Connects to every host of the file.
pub(super) async fn fleet(
    local: &Local,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
) -> Result<Fleet<RealHost>, OpsError> {
    let hosts = local.cluster.nodes.len();
    talk.busy(&format!("connecting to {hosts} {}", if hosts == 1 { "host" } else { "hosts" }));
    let connected = connect::connect(&local.cluster, &resources(invocation, talk)).await?;
    talk.idle();
    let silent = connected.unreachable.into_iter().map(|(name, error)| (name, error.without_host())).collect();
    Ok(Fleet::new(connected.hosts.into_values(), silent))
}

/// What all connections of a command share.
pub(super) fn resources(invocation: &Invocation, talk: &Arc<dyn Talk>) -> Arc<SshResources> {
    let agent = std::env::var_os("SSH_AUTH_SOCK").map(std::path::PathBuf::from);
    Arc::new(
        SshResources::new(Arc::new(Questions(Arc::clone(talk))))
            .with_agent(agent)
            .accepting_new_host_keys(invocation.accept_new_host_keys),
    )
}

/// SSH's questions, put to whoever is there.
struct Questions(Arc<dyn Talk>);

impl Ask for Questions {
    fn key_passphrase(&self, key: &str, again: bool) -> Option<Content> {
        let question = format!("Passphrase of the SSH key {key}");
        if again {
            self.0.forget(&question);
            self.0.warn("that passphrase does not open the key");
        }
        self.0.ask_secret(&question, false)
    }
    fn sudo_password(&self, user: &str) -> Option<Content> {
        self.0.ask_secret(&format!("Password of {user} for sudo"), false)
    }
}

/// Secrets, then everything that is rendered from them, and the encryption configuration to go to later. `first` hands on the secrets of an earlier rendering of this
/// command, so that nothing is drawn twice.
fn render(
    local: &Local,
    bundle: &Bundle,
    kept: &mut Kept,
    names: &BTreeMap<HostName, String>,
    first: Option<Target>,
    now: i64,
    talk: &dyn Talk,
) -> Result<(Target, Option<Content>), OpsError> {
    let again = first.is_some();
    let (secrets, issued) = if let Some(target) = first {
        (target.secrets, target.issued)
    } else {
        let before = kept.brought.as_ref().or(kept.secrets.as_ref());
        let (mut secrets, issued) = secrets::complete(&local.cluster, before, now, &mut SystemEntropy)?;
        // A run that died, or a plan that was saved, may have left a state without any revision: it and its identity
        // are this cluster's already.
        if let (Some(store), None) = (&kept.store, &kept.secrets) {
            secrets.cluster = store.cluster().clone();
        }
        (secrets, issued)
    };
    let signers = kept.signers(&local.cluster, &secrets.cluster)?;
    let rendered = render::desired(&local.cluster, &secrets, bundle.release(), &local.addons, names, Some(&signers))?;
    // Said once: they do not depend on what hosts call themselves.
    rendered.notes.iter().filter(|_| !again).for_each(|note| talk.warn(note));
    encryption::hold(kept, Target { desired: rendered.desired, blobs: Arc::new(rendered.blobs), secrets, issued })
}

/// What is looked at: what the target manages, on hosts that left the file what they had.
pub(super) fn scopes(target: &Desired, reached: Option<&Desired>) -> BTreeMap<HostName, Scope> {
    let mut scopes: BTreeMap<_, _> =
        target.hosts.iter().map(|(name, host)| (name.clone(), plan::scope(host))).collect();
    for (name, host) in reached.iter().flat_map(|reached| &reached.hosts) {
        scopes.entry(name.clone()).or_insert_with(|| plan::scope(host));
    }
    scopes
}

/// Looks at all hosts.
pub(super) async fn look(fleet: &Fleet<RealHost>, scopes: &BTreeMap<HostName, Scope>) -> Result<Observed, OpsError> {
    let sighting = apply::observe(fleet, scopes).await;
    if !sighting.errors.is_empty() {
        return Err(OpsError::Hosts(sighting.errors));
    }
    Ok(Observed { hosts: sighting.hosts, unreachable: sighting.unreachable, ..Observed::default() })
}

/// Every component's health is asked through its host's sshd: where that forwards nothing, no run would ever end well.
async fn forwards(fleet: &Fleet<RealHost>) -> Result<(), OpsError> {
    let dials = fleet.iter().map(|(_, host)| host.dial("127.0.0.1", KUBELET_HEALTH_PORT));
    let refused: Vec<_> = futures::future::join_all(dials)
        .await
        .into_iter()
        .filter_map(Result::err)
        .filter(|error| matches!(error, HostError::ForwardingRefused { .. }))
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(OpsError::Hosts(refused)) }
}

/// What hosts most likely call themselves: as their nodes are called, but for those that have no name of their own.
fn guessed_names(cluster: &Cluster) -> BTreeMap<HostName, String> {
    let names = cluster.nodes.iter().map(|node| (node.name.clone(), node.name.to_string()));
    names.filter(|(_, name)| name.parse::<IpAddr>().is_err()).collect()
}

/// What the hosts call themselves. A host that does not answer keeps the name that its last target was rendered for.
pub(super) fn names(observed: &Observed, newest: Option<&Desired>) -> BTreeMap<HostName, String> {
    let mut names: BTreeMap<_, _> =
        observed.hosts.iter().map(|(name, host)| (name.clone(), host.hostname.clone())).collect();
    for name in newest.iter().flat_map(|newest| newest.hosts.keys()) {
        names.entry(name.clone()).or_insert_with(|| name.to_string());
    }
    names
}

pub(super) fn doors(
    local: &Local,
    fleet: &Fleet<RealHost>,
    target: &Target,
    observed: &Observed,
    now: i64,
) -> Result<Doors<RealHost>, OpsError> {
    let algorithm = crate::config::KeyAlgorithm::P256;
    let operator = secrets::operator_leaf(&target.secrets, Operator::SuperAdmin, algorithm, now, &mut SystemEntropy)?;
    let hosts = fleet.iter().map(|(name, host)| (name.clone(), Arc::clone(host))).collect();
    let boots = observed.hosts.iter().map(|(name, host)| (name.clone(), host.boot_id.clone())).collect();
    let keys = Keys {
        secrets: &target.secrets,
        operator: &operator,
        direct: local.cluster.options.dial_direct,
        deadlines: local.cluster.options.deadlines,
    };
    Ok(Doors::new(hosts, &target.desired, Arc::clone(&target.blobs), boots, &keys))
}

/// The difference between what is wanted and what was seen.
pub(super) fn make_plan(
    local: &Local,
    target: &Target,
    observed: &Observed,
    kept: &Kept,
    bundle: &Bundle,
    without: &BTreeSet<HostName>,
    now: i64,
) -> Result<Plan, OpsError> {
    let context = plan::Context {
        now,
        architecture: &bundle.release().architecture,
        without: without.clone(),
        max_unavailable_worker: Some(local.cluster.workers_away_at_once()),
        previous: kept.reached.as_ref(),
        unfinished: kept.unfinished.clone(),
        keep: kept.keep.clone(),
        prune_data: local.prune_data.clone(),
    };
    let mut plan = plan::plan(&target.desired, observed, &context).map_err(OpsError::Refused)?;
    // The certificates of a new cluster are all new; saying so of each would hide what matters.
    if kept.secrets.is_some() && !plan.is_empty() {
        plan.notes.extend(target.issued.iter().map(ToString::to_string));
    }
    Ok(plan)
}

/// Whether it matters who leads among the etcd members.
fn one_member_after_the_other(plan: &Plan) -> bool {
    let mut steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    steps.any(|step| step.batch.0.contains(&Action::YieldLeadership))
}

impl Prepared {
    /// The difference to what was observed. Who leads among the etcd members is looked up where the order depends on it.
    async fn planned(&self, observed: &mut Observed, without: &BTreeSet<HostName>) -> Result<Plan, OpsError> {
        let planned = |observed: &Observed| {
            make_plan(&self.local, &self.target, observed, &self.kept, &self.bundle, without, self.now)
        };
        let plan = planned(observed)?;
        if !one_member_after_the_other(&plan) {
            return Ok(plan);
        }
        observed.etcd_leader = self.doors.etcd_leader().await;
        planned(observed)
    }

    /// Looks again at everything and plans again.
    pub(super) async fn again(&self, without: &BTreeSet<HostName>) -> Result<(Observed, Plan), OpsError> {
        let scopes = scopes(&self.target.desired, self.kept.reached.as_ref());
        let mut observed = look(&self.fleet, &scopes).await?;
        if self.kept.newest.is_some() || observed.hosts.values().any(|host| host.record.is_some()) {
            observed.objects = self.doors.observe(&self.target.desired).await?;
        }
        let plan = self.planned(&mut observed, without).await?;
        Ok((observed, plan))
    }

    /// Channels opened so far: sessions and forwards by host.
    pub(super) fn channels(&self) -> BTreeMap<HostName, crate::host::Channels> {
        self.fleet.iter().map(|(name, host)| (name.clone(), host.channels())).collect()
    }
}
