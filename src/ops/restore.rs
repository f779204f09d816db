//! `etcd snapshot restore`: etcd's data from a snapshot, on every member at once, as a new etcd cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config;
use crate::config::Cluster;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::KubeVersion;
use crate::model::SnapshotName;
use crate::model::utc;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Reached;
use crate::ops::Talk;
use crate::ops::encryption;
use crate::ops::kept::Kept;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::ops::rejoin;
use crate::ops::restore_before as before;
use crate::ops::restore_before::Life;
use crate::ops::restore_credentials as credentials;
use crate::ops::restore_run;
use crate::ops::restore_run::Job;
use crate::ops::restore_run::Leg;
use crate::ops::restore_run::Seats;
use crate::ops::restore_seats as seats;
use crate::ops::restore_source::Source;
use crate::ops::restored;
use crate::ops::snapshot::Site;
use crate::ops::state;
use crate::ops::survivor;
use crate::route::restore as route;
use crate::secrets;
use crate::secrets::Entropy as _;
use crate::secrets::SystemEntropy;

/// Port on which members speak to each other.
const PEER_PORT: u16 = 2380;

/// What a restore is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestoreWay {
    /// The snapshot's data everywhere, or on with that.
    #[default]
    Restore,
    /// `--rejoin`: members that a restore went without join the others.
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
    /// None: what the member on this host holds, which survived alone.
    Survivor(HostName),
}

/// What `etcd snapshot restore` was told.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The snapshot.
    pub snapshot: Option<Wanted>,
    /// `--accept-foreign`
    pub accept_foreign: bool,
    /// What for.
    pub way: RestoreWay,
    /// `etcd rejoin HOST`: the member that is replaced; none where those join that a restore went without.
    pub member: Option<HostName>,
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
    let mut kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    if let (None, RestoreWay::Restore, Some(Wanted::File(path))) = (&kept.store, options.way, &options.snapshot)
        && state::is_snapshot(path)?
    {
        let made = state::from_file(&local, path, None, invocation, talk)?;
        talk.warn(&format!("there was no state folder; the snapshot holds the one of its time: {}", made.trim_end()));
        kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    }
    if options.way == RestoreWay::Rejoin {
        return Box::pin(rejoin::rejoin(invocation, options, talk, cancel)).await;
    }
    let job = if options.way == RestoreWay::Abort {
        Box::pin(take_back(local, kept, invocation, talk)).await?
    } else {
        Box::pin(begin(local, kept, options, invocation, talk)).await?
    };
    Box::pin(restore_run::run(job, invocation, options, talk, cancel)).await
}

/// Refuses data that another minor wrote: its API servers may know kinds and versions that these do not.
fn fits(name: &str, then: Option<KubeVersion>, wanted: KubeVersion) -> Result<(), OpsError> {
    match then {
        Some(then) if then.minor != wanted.minor => Err(OpsError::Impossible(format!(
            "{name} was taken from Kubernetes {then}, and cluster.yml asks for {wanted}: write `kubernetes_version: {then}` and name its \
             bundle, restore, and upgrade afterwards"
        ))),
        _ => Ok(()),
    }
}

/// What is to be restored, as far as it is known before anything stops.
struct Origin {
    /// What the token says of it.
    seed: Digest,
    /// The database; none where it is made on the way.
    source: Option<Source>,
    /// From whose data it is made on the way.
    survivor: Option<HostName>,
    /// For people.
    what: String,
    notes: Vec<String>,
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
    let store = kept.store()?;
    let history = store.history();
    let bundle = local.bundle()?;
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let site = Site::beside(&local, &kept, fleet.clone())?;
    let open = restored::unfinished(&history);
    let goes_on = open.is_some();
    let mut origin = origin(wanted, &mut kept, &site, &local, options, goes_on, &**talk).await?;
    let nothing = || OpsError::NothingBegun { folder: kept.folder.clone() };
    let birth = &mut kept.secrets.as_mut().ok_or_else(nothing)?.etcd;
    let mut without = prepare::without(invocation)?;
    let same = route::made_from(&birth.token, &origin.seed);
    if let Some(open) = open.filter(|open| !same || restored::is_late(open)) {
        return Err(restored::refusal(open));
    }
    let begins = open.is_none();
    if begins {
        let mut random = [0; 4];
        SystemEntropy.fill(&mut random)?;
        birth.token = route::token(&origin.seed, prepare::now(), random);
        birth.members = members(&local.cluster);
        birth.away = birth.members.keys().filter(|name| without.contains(*name)).cloned().collect();
    }
    // Whom the restore began without is none of the new cluster's members, though it may answer by now.
    without.extend(birth.away.iter().cloned());
    let token = birth.token.clone();
    let mut prepared = prepare::survey(local, kept, None, bundle, fleet, &**talk).await?;
    if let Some(source) = &origin.source {
        origin.notes.extend(encryption::read_by_target(&mut prepared, source)?);
    }
    let left_out = seats::left_out(&prepared.target.desired, &prepared.observed, &without)?;
    let seats = Seats { away: left_out.clone(), left_out };
    let mut last = None;
    if let Some(source) = origin.source.as_ref().filter(|_| begins) {
        let prefix = encryption::prefix(&prepared.target.desired, &prepared.target.blobs);
        let life = before::look(&site, source.manifest.as_ref(), &prefix).await;
        origin.notes.extend(before::loss(source.manifest.as_ref(), life, prepared.now));
        if matches!(life, Life::Serves(_)) {
            talk.busy("comparing the snapshot's credentials with the cluster's");
            let run = holder(invocation, prepared.now)?.run;
            origin.notes.extend(credentials::coming_back(&site, source, &prefix, &run).await);
            talk.idle();
        }
        last = matches!(life, Life::Serves(_)).then_some(site).filter(|_| !invocation.no_last_snapshot);
        origin.notes.push(before::announced(life, last.is_some()));
    }
    Ok(Job {
        why: match &origin.survivor {
            Some(_) => format!("etcd recovered from {}", origin.what),
            None => format!("etcd restored from {}", origin.what),
        },
        legs: vec![Leg::Stop, Leg::Bare, Leg::Gather, Leg::Exchange, Leg::Target, Leg::Objects],
        notes: origin.notes,
        last,
        source: origin.source,
        survivor: origin.survivor,
        token,
        seats,
        is_restore: true,
        prepared,
    })
}

/// Reads what is to be restored, or asks the survivor.
async fn origin(
    wanted: &Wanted,
    kept: &mut Kept,
    site: &Site,
    local: &Local,
    options: &RestoreOptions,
    goes_on: bool,
    talk: &dyn Talk,
) -> Result<Origin, OpsError> {
    let source = match wanted {
        Wanted::Survivor(host) => {
            let mut notes = survivor::notes(host, goes_on);
            let known = survivor::judge(site, host, local.cluster.kubernetes, goes_on).await?;
            notes.splice(0..0, known);
            let (seed, what) = (survivor::seed(host), format!("what {host} holds"));
            return Ok(Origin { seed, source: None, survivor: Some(host.clone()), what, notes });
        }
        Wanted::Named(name) => Source::named(site, name, options.accept_foreign, talk).await?,
        Wanted::File(path) => Source::file(path, site.store().identity(), options.accept_foreign)?,
    };
    let then = source.manifest.as_ref().map(|manifest| manifest.kubernetes);
    fits(&source.name, then, local.cluster.kubernetes)?;
    let custom = local.cluster.services.api.custom_encryption.is_some()
        || local.cluster.options.at_rest.provider == Some(config::AtRestProvider::Kms);
    let keys = encryption::read_as_then(kept, &source, custom)?;
    let notes = notes(&source, goes_on).into_iter().chain(keys).collect();
    let (seed, what) = (source.database.digest, source.name.clone());
    Ok(Origin { seed, what, source: Some(source), survivor: None, notes })
}

/// The way back from a restore that was cut off.
async fn take_back(local: Local, kept: Kept, invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<Job, OpsError> {
    let store = kept.store()?;
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
        let why = "the restore had come to its end before; what was cut off joined a member to it that had been away: \
                   `bastide etcd snapshot restore --rejoin` goes on, or takes it out again where it does not answer";
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
    let left_out = seats::left_out(&prepared.target.desired, &prepared.observed, &without)?;
    Ok(Job {
        why,
        legs: vec![Leg::Stop, Leg::Bare, Leg::PutBack, Leg::Target, Leg::Objects],
        notes: vec!["what was written since the restore began is lost".to_owned()],
        last: None,
        source: None,
        survivor: None,
        token,
        seats: Seats { away: left_out.clone(), left_out },
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

fn notes(source: &Source, goes_on: bool) -> Vec<String> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::fits;

    #[test]
    fn data_of_another_minor_are_refused_by_the_name_of_their_release() {
        let version = |text: &str| text.parse().unwrap();
        assert!(fits("snapshot a", Some(version("v1.37.1")), version("v1.37.9")).is_ok());
        assert!(fits("a.db", None, version("v1.37.1")).is_ok(), "a plain database does not say");
        let refused = fits("snapshot a", Some(version("v1.36.3")), version("v1.37.1")).unwrap_err().to_string();
        assert!(refused.contains("`kubernetes_version: v1.36.3`"), "{refused}");
    }
}
