//! Takes a snapshot from one member and puts it into every place: each etcd host, the bucket, a folder here.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::etcd::Etcd;
use crate::api::etcd::EtcdStatus;
use crate::api::etcd::HashKv;
use crate::host::Dial;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::model::utc;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::etcd::at_odds;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::ops::snapshot::Place;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::list;
use crate::ops::snapshot::pipe::Fan;
use crate::ops::snapshot::pipe::Tray;
use crate::ops::snapshot::putting::Putting;
use crate::ops::snapshot::shelf;
use crate::ops::snapshot::site;
use crate::snapshot::Facts;
use crate::snapshot::KeyHash;
use crate::snapshot::Manifest;
use crate::snapshot::SnapshotError;
use crate::snapshot::Writer;
use crate::store::PrivateFile;
use crate::store::Recipients;
use crate::store::Signs;

/// A follower may be behind by a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// What `etcd snapshot save` was told.
#[derive(Debug, Clone)]
pub struct SaveOptions {
    /// What to call it; else by the time.
    pub name: Option<SnapshotName>,
    /// Which member to take it from; else a healthy one that is not the leader.
    pub from: Option<HostName>,
    /// A folder here that gets one too.
    pub local: Option<PathBuf>,
    /// What it is for, in the manifest.
    pub why: String,
}

/// A snapshot that was taken.
#[derive(Debug, Clone)]
pub struct Saved {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it lies.
    pub places: BTreeSet<Place>,
    /// Where it should lie and does not, and why.
    pub missing: BTreeMap<Place, String>,
}

/// Takes one. It is listed nowhere before it is whole everywhere it can be.
pub async fn save(
    invocation: &Invocation,
    options: &SaveOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Saved, OpsError> {
    let now = prepare::now();
    let site = Site::open(invocation, talk).await?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => by_time(now)?,
    };
    let run = holder(invocation, now)?.run;
    let saved = take(&site, options, name, (now, &run), &**talk, cancel).await?;
    shelf::sweep(&site, &**talk).await;
    Ok(saved)
}

/// The same on a cluster that is open already, at this time and by this run.
pub(in crate::ops) async fn take(
    site: &Site,
    options: &SaveOptions,
    name: SnapshotName,
    (now, run): (i64, &str),
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<Saved, OpsError> {
    let interrupted = || OpsError::Impossible("interrupted; no snapshot was made".to_owned());
    let chosen = async {
        let member = choose(site, options.from.as_ref(), talk).await?;
        let facts = facts(site, &member, options, name, now, talk).await?;
        Ok::<_, OpsError>((member, facts, list::furthest(site).await))
    };
    let (member, (facts, before), furthest) = tokio::select! {
        chosen = chosen => chosen?,
        () = cancel.cancelled() => return Err(interrupted()),
    };
    // Kept by number, it would in time push out all that are worth something.
    if let Some((known, further)) = furthest.filter(|(known, _)| *known > facts.etcd_revision) {
        return Err(OpsError::Impossible(format!(
            "{member}: etcd is at revision {}, and snapshot {further} has {known}: it lost its disk and began anew, and nothing of it is \
             kept. `bastide etcd snapshot restore {further}` gives the cluster its data back; where that snapshot is of no worth, \
             delete it",
            facts.etcd_revision
        )));
    }
    let name = facts.name.clone();
    let local = options.local.as_ref().map(|folder| site::local_file(folder, &name));
    let mut file = local.as_deref().map(PrivateFile::begin).transpose()?;
    let mut fan = Fan::default();
    let putting = Putting::begin(site, &name, run, &mut fan)?;
    talk.say(&format!("taking snapshot {name} from {member}"));
    let streamed = tokio::select! {
        streamed = from_member(site, &member, fan, file.as_mut(), facts, before) => streamed,
        // What was begun ends without an end of file, and every place throws it away.
        () = cancel.cancelled() => Err(interrupted()),
    };
    // Whatever happened, the places are heard to their end: they clean up.
    let digest = streamed.as_ref().ok().map(|(_, digest)| *digest);
    let staged = putting.staged(site, digest, cancel).await;
    let streamed = if cancel.is_cancelled() { Err(interrupted()) } else { streamed };
    let manifest = match streamed {
        Ok((manifest, _)) => manifest,
        Err(error) => {
            staged.discard(site).await;
            return Err(error);
        }
    };
    if let Some(file) = file {
        file.keep()?;
    }
    let (mut places, missing) = staged.commit(site).await;
    places.extend(local.map(|path| Place::Local { path }));
    if places.is_empty() {
        let reasons: Vec<_> = missing.iter().map(|(place, reason)| format!("{place}: {reason}")).collect();
        return Err(OpsError::Impossible(format!("no place kept the snapshot\n{}", reasons.join("\n"))));
    }
    Ok(Saved { manifest, places, missing })
}

/// From one of the cluster's members, sealed and signed by its identity.
async fn from_member(
    site: &Site,
    member: &HostName,
    fan: Fan,
    file: Option<&mut PrivateFile>,
    facts: Facts,
    before: Option<HashKv>,
) -> Result<(Manifest, Digest), OpsError> {
    let etcd = site.etcd(member).ok_or_else(|| OpsError::Impossible(format!("{member}: does not answer")))?;
    let store = site.store();
    let (state, recipients) = (store.sealed_copy()?, store.recipients()?);
    let sealing = Sealing { state: &state, recipients: &recipients, key: store.identity() };
    stream(&etcd, &sealing, fan, file, facts, before).await
}

/// What goes into a snapshot beside the database, whom it is sealed to, and who signs it.
pub(super) struct Sealing<'a> {
    pub(super) state: &'a Content,
    pub(super) recipients: &'a Recipients,
    pub(super) key: &'a (dyn Signs + Sync),
}

/// From the member through the seal to every place.
pub(super) async fn stream<H: Dial>(
    etcd: &Etcd<'_, H>,
    sealing: &Sealing<'_>,
    mut fan: Fan,
    mut file: Option<&mut PrivateFile>,
    mut facts: Facts,
    before: Option<HashKv>,
) -> Result<(Manifest, Digest), OpsError> {
    let member = facts.member.clone();
    let what = format!("snapshot {}", facts.name);
    let broken = |error: SnapshotError| OpsError::Snapshot { what: what.clone(), source: Box::new(error) };
    let gone = || OpsError::Impossible(format!("{what}: nobody takes it any more"));
    let failed = OpsError::etcd(&member);
    let tray = Tray::default();
    let mut writer = Writer::begin(tray.clone(), sealing.state, sealing.recipients).map_err(&broken)?;
    let mut database = etcd.snapshot().await.map_err(failed)?;
    while let Some(piece) = database.next().await.map_err(failed)? {
        writer
            .write_all(&piece)
            .map_err(|error| broken(SnapshotError::Io { doing: "sealing", reason: error.to_string() }))?;
        if let Some(bytes) = tray.full() {
            copy(file.as_deref_mut(), &bytes).map_err(&broken)?;
            if !fan.give(bytes).await && file.is_none() {
                return Err(gone());
            }
        }
    }
    // Whatever was compacted meanwhile may be missing in the database: then the hash is not the one of what was taken.
    facts.hash = match before {
        Some(before) if etcd.hash(before.revision).await.is_ok_and(|after| after == before) => {
            Some(KeyHash { hash: before.hash, revision: before.revision, compact_revision: before.compact_revision })
        }
        _ => None,
    };
    let (manifest, _) = writer.finish(facts, sealing.key).map_err(&broken)?;
    let rest = tray.rest();
    copy(file, &rest).map_err(&broken)?;
    fan.give(rest).await;
    Ok((manifest, fan.end().await))
}

fn copy(file: Option<&mut PrivateFile>, bytes: &[u8]) -> Result<(), SnapshotError> {
    let Some(file) = file else { return Ok(()) };
    file.write_all(bytes)
        .map_err(|error| SnapshotError::Io { doing: "writing the local snapshot", reason: error.to_string() })
}

/// `etcd_20261122T140300Z`
fn by_time(now: i64) -> Result<SnapshotName, OpsError> {
    let time = utc(now).replace(['-', ':'], "");
    SnapshotName::new(format!("etcd_{time}")).map_err(|error| OpsError::Impossible(error.to_string()))
}

/// A healthy member: the one that was named, else one that does not lead, since the leader has more to do.
async fn choose(site: &Site, from: Option<&HostName>, talk: &dyn Talk) -> Result<HostName, OpsError> {
    if let Some(from) = from
        && !site.members().any(|name| name == from)
    {
        return Err(OpsError::Impossible(format!("{from}: is no etcd host of this cluster")));
    }
    let mut healthy: Vec<(bool, u64, HostName)> = Vec::new();
    let mut ill = Vec::new();
    for name in site.members().filter(|name| from.is_none_or(|from| from == *name)) {
        match status(site, name).await {
            Ok(status) if status.learner => ill.push(format!("{name}: is a learner")),
            Ok(status) if status.leader == "0" => ill.push(format!("{name}: knows no leader")),
            Ok(status) => {
                for error in &status.errors {
                    talk.warn(&format!("{name}: etcd says: {error}"));
                }
                healthy.push((status.leads(), u64::MAX - status.raft_applied, name.clone()));
            }
            Err(reason) => ill.push(format!("{name}: {reason}")),
        }
    }
    healthy.sort();
    for reason in &ill {
        talk.warn(reason);
    }
    let chosen = healthy.into_iter().next().map(|(_, _, name)| name);
    chosen.ok_or_else(|| OpsError::Impossible(format!("no etcd member is healthy\n{}", ill.join("\n"))))
}

async fn status(site: &Site, name: &HostName) -> Result<EtcdStatus, String> {
    let etcd = site.etcd(name).ok_or("the host does not answer")?;
    etcd.status().await.map_err(|error| error.to_string())
}

/// What etcd says of itself before the stream begins. Members that disagree are an error, since one of them is corrupt; with
/// `--from` it is somebody's explicit choice.
async fn facts(
    site: &Site,
    member: &HostName,
    options: &SaveOptions,
    name: SnapshotName,
    now: i64,
    talk: &dyn Talk,
) -> Result<(Facts, Option<HashKv>), OpsError> {
    let failed = OpsError::etcd(member);
    let etcd = site.etcd(member).ok_or_else(|| OpsError::Impossible(format!("{member}: does not answer")))?;
    let status = etcd.status().await.map_err(failed)?;
    let (revision, keys) = etcd.count().await.map_err(failed)?;
    let own = hash(site, member, revision).await;
    if own.is_none() {
        talk.warn(&format!("{member}: etcd gives no hash of revision {revision}; the snapshot will carry none"));
    }
    let mut hashes: Vec<_> = own.map(|own| (member.clone(), own)).into_iter().collect();
    for other in site.members().filter(|other| *other != member) {
        hashes.extend(hash(site, other, revision).await.map(|found| (other.clone(), found)));
    }
    if let Some([(one, hash), (other, another)]) = at_odds(&hashes) {
        let words = format!(
            "etcd's members disagree: at revision {revision}, compacted at {}, {one} has hash {} and {other} has {}; one of them is \
             corrupt",
            hash.compact_revision, hash.hash, another.hash
        );
        if options.from.is_none() {
            return Err(OpsError::Impossible(format!("{words}. Name the member to believe with --from")));
        }
        talk.warn(&words);
    }
    let facts = Facts {
        cluster: site.store().cluster().clone(),
        cluster_name: site.store().name().to_owned(),
        name,
        taken_at: now,
        member: member.clone(),
        why: options.why.clone(),
        etcd_version: status.version,
        kubernetes: site.desired.kubernetes,
        revision: site.store().reached().map(|revision| revision.id.clone()),
        etcd_revision: revision,
        keys,
        hash: None,
    };
    Ok((facts, own))
}

/// A member's hash at `revision`, as soon as it has got there.
async fn hash(site: &Site, name: &HostName, revision: u64) -> Option<HashKv> {
    hash_at(&site.etcd(name)?, revision).await
}

/// The same of a member that is in reach.
pub(super) async fn hash_at<H: Dial>(etcd: &Etcd<'_, H>, revision: u64) -> Option<HashKv> {
    for _ in 0..TRIES {
        match etcd.hash(revision).await {
            Ok(hash) => return Some(hash),
            Err(error) if error.to_string().contains("future revision") => tokio::time::sleep(PAUSE).await,
            Err(_) => return None,
        }
    }
    None
}
