//! `remove`: the empty target. Local state is kept until every host was cleaned.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::apply::Fleet;
use crate::apply::Locks;
use crate::config::Cluster;
use crate::host::Host as _;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::Roles;
use crate::model::Scope;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::access;
use crate::ops::connect::RealHost;
use crate::ops::kept::Kept;
use crate::ops::local::holder;
use crate::ops::lost;
use crate::ops::prepare;
use crate::ops::unless_interrupted;
use crate::store;

/// What `remove` was told.
#[derive(Debug, Clone, Default)]
pub struct RemoveOptions {
    /// `--yes`
    pub yes: bool,
    /// `--cluster NAME`
    pub cluster: Option<String>,
    /// `--purge`
    pub purge: bool,
}

/// Takes the cluster off its hosts. Returns the hosts that do not answer, which are not cleaned; the state stays then.
pub async fn remove(
    invocation: &Invocation,
    options: &RemoveOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<BTreeSet<HostName>, OpsError> {
    let now = prepare::now();
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let fleet = unless_interrupted(cancel, prepare::fleet(&local, invocation, talk)).await?;
    let scopes: BTreeMap<_, _> = local.cluster.nodes.iter().map(|node| (node.name.clone(), Scope::default())).collect();
    let seen = unless_interrupted(cancel, prepare::look(&fleet, &scopes)).await?;
    kept.compare(&local.cluster.name, seen.hosts.iter())?;
    let ours: BTreeSet<HostName> = seen
        .hosts
        .iter()
        .filter(|(_, host)| match (&host.record, &kept.store) {
            (Some(record), Some(store)) => record.cluster == *store.cluster(),
            _ => false,
        })
        .map(|(name, _)| name.clone())
        .collect();
    let silent: BTreeSet<HostName> = seen.unreachable.keys().cloned().collect();
    if ours.is_empty() && silent.is_empty() && kept.store.is_none() {
        talk.say("Nothing to do: no host carries this cluster.");
        return Ok(silent);
    }
    for host in &ours {
        talk.show(&format!("- {host}: cluster {}, everything that bastide put there", local.cluster.name));
    }
    for (host, reason) in &seen.unreachable {
        talk.show(&format!("  {host}: left as it is ({reason})"));
    }
    let question = "This destroys the cluster and its data. Type the cluster's name to go on";
    agree(&local.cluster.name, options.yes, options.cluster.as_deref(), question, &**talk)?;

    let holder = holder(invocation, now)?;
    let folder_lock = match &mut kept.store {
        Some(store) => Some(store.lock(&holder)?),
        None => None,
    };
    if !ours.is_empty() {
        erase(&local.cluster, &fleet, &ours, &holder, options.purge, cancel, &**talk).await?;
    }
    if silent.is_empty()
        && let (Some(store), Some(lock)) = (kept.store.take(), folder_lock)
    {
        store::discard(store, lock)?;
        store::remove_private(&access::operator_file(&local.path))?;
    }
    Ok(silent)
}

/// Cleans these hosts under their locks.
async fn erase(
    cluster: &Cluster,
    fleet: &Fleet<RealHost>,
    ours: &BTreeSet<HostName>,
    holder: &LockHolder,
    purge: bool,
    cancel: &CancellationToken,
    talk: &dyn Talk,
) -> Result<(), OpsError> {
    let decides = |roles: &Roles| roles.control_plane() || roles.etcd();
    let member = |name: &HostName| cluster.nodes.iter().any(|node| node.name == *name && decides(&node.roles));
    let (members, others): (BTreeSet<_>, BTreeSet<_>) = ours.iter().cloned().partition(member);
    let locks = Locks::take(fleet, &members, &others, holder).await?;
    talk.stage("Removing", &ours.iter().cloned().collect::<Vec<_>>());
    // Workers first: a kubelet whose API server is gone would only fill its log.
    for group in [others, members] {
        if cancel.is_cancelled() {
            return Err(OpsError::Interrupted);
        }
        let erasing = group.iter().filter_map(|name| {
            let host = Arc::clone(fleet.get(name)?);
            talk.doing(name, "removes what bastide put here");
            Some(async move { host.erase(&holder.run, purge).await.map_err(|error| (name.clone(), error)) })
        });
        let (failed, errors): (BTreeSet<_>, Vec<_>) =
            join_all(erasing).await.into_iter().filter_map(Result::err).unzip();
        if !errors.is_empty() {
            // A host that was cleaned has no lock any more: only the others can tell whether this run lost its own.
            return Err(lost::explained(OpsError::Hosts(errors), fleet, &failed, &holder.run).await);
        }
    }
    drop(locks);
    Ok(())
}

/// The cluster's name, typed or given, is the yes.
pub(super) fn agree(
    name: &str,
    yes: bool,
    given: Option<&str>,
    question: &str,
    talk: &dyn Talk,
) -> Result<(), OpsError> {
    let given = match (given, yes) {
        (Some(given), true) => given.to_owned(),
        _ => talk.ask(question).ok_or(OpsError::Unasked { what: "the cluster's name (pass --yes --cluster NAME)" })?,
    };
    if given == name { Ok(()) } else { Err(OpsError::OtherName { given, name: name.to_owned() }) }
}
