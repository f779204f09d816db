//! The keys that the hosts hold, and a state that is made of them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;

use crate::apply::Fleet;
use crate::apply::Locks;
use crate::host::Host as _;
use crate::model::HostRecord;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::model::RevisionState;
use crate::model::Scope;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::TakeOverOptions;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::kept::Kept;
use crate::ops::local;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::ops::takeover::look::Records;
use crate::ops::takeover::lost;
use crate::render;
use crate::route;
use crate::route::Places;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Entropy as _;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;
use crate::store;

/// A state as it was found.
pub(super) struct Finding {
    /// The state, as it will be.
    pub kept: Kept,
    /// By cluster.yml, with the keys that were found.
    pub target: Target,
    /// What differs between the hosts and cluster.yml.
    pub plan: Plan,
    /// Authorities whose keys were not.
    pub lost: BTreeSet<AuthorityName>,
}

/// Reads the keys, and renders what the hosts should be with them.
pub(super) async fn find(
    local: &Local,
    mut kept: Kept,
    fleet: &Fleet<RealHost>,
    seen: &Observed,
    records: &Records,
    talk: &Arc<dyn Talk>,
) -> Result<Finding, OpsError> {
    let (cluster, now) = (&*local.cluster, prepare::now());
    let bundle = local.bundle()?;
    let names = prepare::names(seen, None);
    let signers = kept.signers(cluster, &records.cluster)?;
    let rendered =
        |secrets: &Secrets| render::desired(cluster, secrets, bundle.release(), &local.addons, &names, Some(&signers));
    // Where each key lies is seen from keys that are not used for anything else.
    let (mut sample, _) = secrets::complete(cluster, None, now, &mut SystemEntropy)?;
    sample.cluster = records.cluster.clone();
    let places = {
        let sampled = rendered(&sample)?;
        Places::of(&sampled.desired, &sampled.blobs, &sample)
    };
    talk.busy("reading the keys on the hosts");
    let reads = fleet.iter().map(|(name, host)| {
        let paths = places.on(name);
        async move { host.read(&paths).await.map(|files| (name.clone(), files)) }
    });
    let (found, errors): (Vec<_>, Vec<_>) = join_all(reads).await.into_iter().partition(Result::is_ok);
    talk.idle();
    let errors: Vec<_> = errors.into_iter().filter_map(Result::err).collect();
    if !errors.is_empty() {
        return Err(OpsError::Hosts(errors));
    }
    let found: BTreeMap<_, _> = found.into_iter().filter_map(Result::ok).collect();
    let taken = route::taken_over(cluster, &records.cluster, &places, &found, &mut SystemEntropy)
        .map_err(|reasons| OpsError::NotTakenOver { reasons })?;
    drop(found);
    let (secrets, issued) = secrets::complete(cluster, Some(&taken), now, &mut SystemEntropy)?;
    let rendered = rendered(&secrets)?;
    let target = Target { desired: rendered.desired, blobs: Arc::new(rendered.blobs), secrets, issued };
    let mut observed = prepare::look(fleet, &prepare::scopes(&target.desired, None)).await?;
    observed.objects = prepare::doors(local, fleet, &target, &observed, now)?.observe(&target.desired).await?;
    // What runs is planned from, not a cluster that is to be born: members go one after the other.
    kept.secrets = Some(target.secrets.clone());
    kept.newest = Some(target.desired.clone());
    kept.reached = Some(target.desired.clone());
    let plan = prepare::make_plan(local, &target, &observed, &kept, &bundle, &BTreeSet::new(), now)?;
    let lost = lost(&target.secrets);
    Ok(Finding { kept, target, plan, lost })
}

/// Makes the folder, and the identity where it is not `made` yet. Durable when this returns; a death before leaves at most an identity, which the next try takes.
#[allow(clippy::too_many_arguments)]
pub(super) async fn keep(
    local: &Local,
    found: Finding,
    made: bool,
    invocation: &Invocation,
    options: &TakeOverOptions,
    fleet: &Fleet<RealHost>,
    records: &Records,
    talk: &dyn Talk,
) -> Result<(), OpsError> {
    let now = prepare::now();
    let holder = local::holder(invocation, now)?;
    let locks = Locks::take(fleet, &records.members, &BTreeSet::new(), &holder).await?;
    // Somebody may have worked here between the look and the lock.
    let scopes: BTreeMap<_, _> = records.members.iter().map(|name| (name.clone(), Scope::default())).collect();
    let seen = prepare::look(fleet, &scopes).await?;
    let known = |host: &HostRecord| records.revisions.contains_key(&host.revision);
    if !seen.hosts.values().all(|host| host.record.as_ref().is_some_and(known)) {
        return Err(OpsError::Moved);
    }
    let Finding { mut kept, target, .. } = found;
    let lock = if let Some(store) = &mut kept.store {
        store.lock(&holder)?
    } else {
        if let Some(aside) = store::set_aside(&kept.folder)? {
            talk.warn(&format!("the state folder that nobody can open is in {} now", aside.display()));
        }
        kept.make(&local.cluster, &records.cluster, made, options.no_identity_backup, &holder, talk)?
    };
    let number = records.revisions.keys().map(|id| id.number).max().unwrap_or_default();
    let mut random = [0; 8];
    SystemEntropy.fill(&mut random)?;
    let revision = |id: RevisionId, why: &str, state| Revision {
        id,
        parent: None,
        command: invocation.command.to_owned(),
        why: why.to_owned(),
        who: invocation.who.clone(),
        at: now,
        kubernetes: target.desired.kubernetes,
        config: local.digest,
        state,
        barrier: None,
        versions: target.desired.versions(),
        returns_to: None,
        ended: Some(now),
        joins: None,
    };
    let earlier = records.revisions.iter().map(|(id, whole)| {
        let state = if *whole { RevisionState::Reached } else { RevisionState::Failed };
        let what = "known from the hosts' records alone";
        Revision { versions: BTreeMap::new(), ended: None, ..revision(id.clone(), what, state) }
    });
    let earlier: Vec<_> = earlier.collect();
    let id = RevisionId { number: number + 1, nonce: format!("{:016x}", u64::from_be_bytes(random)) };
    let mut first = revision(id, "taken over from the hosts, without the identity", RevisionState::Reached);
    first.parent = earlier.last().map(|known| known.id.clone());
    let store = kept.store.as_mut().ok_or_else(|| OpsError::Impossible("the state is not open".to_owned()))?;
    let form = secrets::seal_form(&target.secrets);
    store.found(&lock, earlier, &first, &target.desired, &target.blobs, &form)?;
    drop(locks);
    Ok(())
}
