//! `etcd snapshot restore`: etcd's data from a snapshot, on every member at once, as a new etcd cluster.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Cluster;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::SnapshotName;
use crate::model::utc;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Reached;
use crate::ops::Talk;
use crate::ops::encryption;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::restore_before as before;
use crate::ops::restore_run;
use crate::ops::restore_run::Job;
use crate::ops::restore_run::Leg;
use crate::ops::restore_run::Seats;
use crate::ops::restore_source::Source;
use crate::ops::restored;
use crate::ops::snapshot::Site;
use crate::plan::Refusal;
use crate::route::restore as route;
use crate::secrets;
use crate::secrets::Entropy as _;
use crate::secrets::SystemEntropy;
use crate::store::StoreError;

/// Port on which members speak to each other.
const PEER_PORT: u16 = 2380;

/// What a restore is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestoreWay {
    /// The snapshot's data everywhere, or on with that.
    #[default]
    Restore,
    /// `--rejoin`: only for members that were away then.
    Rejoin,
    /// `--abort`: back to the data from before one that was cut off.
    Abort,
}

/// Which snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one in this file.
    File(PathBuf),
    /// The one of this name on the hosts.
    Named(SnapshotName),
}

/// What `etcd snapshot restore` was told.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The snapshot.
    pub snapshot: Option<Wanted>,
    /// `--accept-foreign`
    pub accept_foreign: bool,
    /// `--no-last-snapshot`
    pub no_last_snapshot: bool,
    /// What for.
    pub way: RestoreWay,
    /// `--yes`
    pub yes: bool,
    /// `--cluster NAME`
    pub cluster: Option<String>,
    /// `--timings`
    pub timings: bool,
}

/// Restores etcd from a snapshot, goes on with a restore that was cut off, or takes such a one back.
pub async fn restore(
    invocation: &Invocation,
    options: &RestoreOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let job = if options.way == RestoreWay::Abort {
        Box::pin(take_back(local, kept, invocation, talk)).await?
    } else {
        Box::pin(begin(local, kept, options, invocation, talk)).await?
    };
    Box::pin(restore_run::run(job, invocation, options, talk, cancel)).await
}

/// Refuses data that another minor wrote: its API servers may know kinds and versions that these do not.
fn fits(source: &Source, local: &Local) -> Result<(), OpsError> {
    match source.manifest.as_ref().map(|manifest| manifest.kubernetes) {
        Some(then) if then.minor != local.cluster.kubernetes.minor => Err(OpsError::Impossible(format!(
            "{} was taken from Kubernetes {then}, and cluster.yml asks for {}: write `kubernetes_version: {then}` and name its \
             bundle, restore, and upgrade afterwards",
            source.name, local.cluster.kubernetes
        ))),
        _ => Ok(()),
    }
}

/// A restore, a new one or one that was cut off.
async fn begin(
    local: Local,
    mut kept: Kept,
    options: &RestoreOptions,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
) -> Result<Job, OpsError> {
    let wanted = options.snapshot.as_ref();
    let wanted = wanted.ok_or_else(|| OpsError::Impossible("name the snapshot that is to be restored".to_owned()))?;
    let Some(store) = &kept.store else {
        return Err(StoreError::NoState { folder: kept.folder }.into());
    };
    let history = store.history();
    let rejoin = options.way == RestoreWay::Rejoin;
    let bundle = local.bundle()?;
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let site = Site::beside(&kept, fleet.clone())?;
    let source = match wanted {
        Wanted::File(path) => Source::file(path, store.identity(), options.accept_foreign)?,
        Wanted::Named(name) => Source::named(&site, name, options.accept_foreign, &**talk).await?,
    };
    fits(&source, &local)?;
    if let Some(then) = source.manifest.as_ref().and_then(|manifest| manifest.revision.as_ref()) {
        encryption::readable(&kept, then)?;
    }
    let no_state = || StoreError::NoState { folder: kept.folder.clone() };
    let birth = &mut kept.secrets.as_mut().ok_or_else(no_state)?.etcd;
    let without = prepare::without(invocation)?;
    let same = route::made_from(&birth.token, &source.database.digest);
    let open = restored::unfinished(&history);
    if let Some(open) = open.filter(|open| !same || restored::is_late(open) != rejoin) {
        return Err(OpsError::RestoreUnfinished { revision: open.id.clone(), why: open.why.clone() });
    }
    let away = restored::away(&history);
    if rejoin && (!same || away.is_empty()) {
        let why = "--rejoin: no member was away when this snapshot was restored, or another one was restored since";
        return Err(OpsError::Impossible(why.to_owned()));
    }
    let begins = open.is_none() && !rejoin;
    let goes_on = open.is_some();
    if begins {
        let mut random = [0; 4];
        SystemEntropy.fill(&mut random)?;
        birth.token = route::token(&source.database.digest, prepare::now(), random);
        birth.members = members(&local.cluster);
    }
    let token = birth.token.clone();
    let prepared = prepare::survey(local, kept, None, bundle, fleet, &**talk).await?;
    let seats = if rejoin {
        late(&prepared, &away, &without)?
    } else {
        let left_out = left_out(&prepared.target.desired, &prepared.observed, &without)?;
        Seats { away: left_out.clone(), left_out, late: None }
    };
    let mut notes = notes(&source, goes_on, seats.late.as_ref());
    let mut last = None;
    if begins {
        let alive = before::alive(&site).await;
        notes.extend(before::loss(source.manifest.as_ref(), alive, prepared.now));
        last = alive.filter(|_| !options.no_last_snapshot).map(|_| site);
        notes.push(before::announced(alive, last.is_some()));
    }
    Ok(Job {
        why: format!("etcd restored from {}", source.name),
        legs: vec![Leg::Stop, Leg::Bare, Leg::Exchange, Leg::Target, Leg::Objects],
        notes,
        last,
        source: Some(source),
        token,
        seats,
        is_restore: true,
        prepared,
    })
}

/// The way back from a restore that was cut off.
async fn take_back(local: Local, kept: Kept, invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<Job, OpsError> {
    let Some(store) = &kept.store else {
        return Err(StoreError::NoState { folder: kept.folder }.into());
    };
    let history = store.history();
    let impossible = |why: &str| OpsError::Impossible(why.to_owned());
    let open = restored::unfinished(&history)
        .ok_or_else(|| impossible("no restore was cut off here: there is nothing to take back"))?;
    let reached = store
        .reached()
        .map(|reached| reached.id.clone())
        .ok_or_else(|| impossible("the state holds no revision from before this restore"))?;
    let token = kept.secrets.as_ref().map(|secrets| secrets.etcd.token.clone()).unwrap_or_default();
    let (_, _, _, form) = store.load(&reached)?;
    if secrets::unseal_form(&form)?.etcd.token == token {
        let why = "the restore had come to its end before; what was cut off gave its data to members that had been away: run \
                   the same command again";
        return Err(impossible(why));
    }
    let why = format!("restore of revision {} taken back", open.id);
    let before = |kept: &Kept| {
        let store = kept.store.as_ref().ok_or_else(|| OpsError::Impossible("the state is not open".to_owned()))?;
        let (_, desired, blobs, form) = store.load(&reached)?;
        let secrets = secrets::unseal_form(&form)?;
        Ok(Target { desired, blobs: Arc::new(blobs), secrets, issued: Vec::new() })
    };
    let bundle = local.bundle()?;
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let prepared = prepare::survey(local, kept, Some(&before), bundle, fleet, &**talk).await?;
    let without = prepare::without(invocation)?;
    let left_out = left_out(&prepared.target.desired, &prepared.observed, &without)?;
    Ok(Job {
        why,
        legs: vec![Leg::Stop, Leg::Bare, Leg::PutBack, Leg::Target, Leg::Objects],
        notes: vec!["what was written since the restore began is lost".to_owned()],
        last: None,
        source: None,
        token,
        seats: Seats { away: left_out.clone(), left_out, late: None },
        is_restore: false,
        prepared,
    })
}

/// Every member of the file with its peer URL.
fn members(cluster: &Cluster) -> BTreeMap<HostName, String> {
    let peer = |node: &crate::config::Node| {
        let peer = std::net::SocketAddr::new(node.internal_address, PEER_PORT);
        (node.name.clone(), format!("https://{peer}"))
    };
    cluster.etcd_members().map(peer).collect()
}

/// Hosts that a restore goes without, or why it can't.
fn left_out(
    target: &Desired,
    observed: &Observed,
    without: &BTreeSet<HostName>,
) -> Result<BTreeSet<HostName>, OpsError> {
    let mut refusals: Vec<_> = without
        .iter()
        .filter(|name| !target.hosts.contains_key(*name))
        .map(|name| Refusal::UnknownHost { host: name.clone() })
        .collect();
    let silent = |name: &HostName| !observed.hosts.contains_key(name) && !without.contains(name);
    let is_member =
        |name: &HostName| target.hosts.get(name).is_some_and(|host| host.roles.etcd() || host.roles.control_plane());
    for name in target.hosts.keys().filter(|name| silent(name) && is_member(name)) {
        refusals.push(Refusal::Unreachable {
            host: name.clone(),
            reason: observed.unreachable.get(name).cloned().unwrap_or_else(|| "it was not looked at".to_owned()),
            role: if target.hosts[name].roles.control_plane() { "a control-plane host" } else { "an etcd host" },
        });
    }
    let members: Vec<_> = target.hosts.iter().filter(|(_, host)| host.roles.etcd()).collect();
    let running = members.iter().filter(|(name, _)| !without.contains(*name)).count();
    let quorum = members.len() / 2 + 1;
    if refusals.is_empty() && running < quorum {
        refusals.push(Refusal::NoQuorum { running, members: members.len(), quorum });
    }
    let serves =
        |(name, host): (&HostName, &crate::model::DesiredHost)| host.roles.control_plane() && !without.contains(name);
    if refusals.is_empty() && !target.hosts.iter().any(serves) {
        refusals.push(Refusal::NoControlPlane);
    }
    if !refusals.is_empty() {
        return Err(OpsError::Refused(refusals));
    }
    Ok(target.hosts.keys().filter(|name| without.contains(*name) || silent(name)).cloned().collect())
}

/// The members that a restore passed by and that answer now; everything else is left alone.
fn late(prepared: &Prepared, away: &BTreeSet<String>, without: &BTreeSet<HostName>) -> Result<Seats, OpsError> {
    let target = &prepared.target.desired;
    let was_away = |name: &&HostName| away.contains(name.as_str());
    let here = |name: &&HostName| prepared.observed.hosts.contains_key(*name) && !without.contains(*name);
    let late: BTreeSet<_> = target.hosts.keys().filter(was_away).filter(here).cloned().collect();
    if late.is_empty() {
        let away: Vec<_> = away.iter().cloned().collect();
        return Err(OpsError::Impossible(format!("{}: still away", away.join(", "))));
    }
    Ok(Seats {
        left_out: target.hosts.keys().filter(|name| !late.contains(*name)).cloned().collect(),
        away: target.hosts.keys().filter(was_away).filter(|name| !late.contains(*name)).cloned().collect(),
        late: Some(late),
    })
}

fn notes(source: &Source, goes_on: bool, late: Option<&BTreeSet<HostName>>) -> Vec<String> {
    if let Some(late) = late {
        let names: Vec<_> = late.iter().map(ToString::to_string).collect();
        return vec![format!("{}: joins the restored etcd with the data it was made from", names.join(", "))];
    }
    let mut notes = vec![
        match &source.manifest {
            Some(manifest) => format!(
                "everything written since {} is lost: {} holds etcd's revision {}",
                utc(manifest.taken_at),
                source.name,
                manifest.etcd_revision
            ),
            None => format!("everything written since {} was taken is lost", source.name),
        },
        "what was deleted since then comes back: Secrets, tokens, accounts, role bindings; delete again what was deleted \
         because it had leaked"
            .to_owned(),
    ];
    if goes_on {
        notes.insert(0, "goes on with the restore that was cut off".to_owned());
    }
    notes
}
