//! Recurring snapshots, as an etcd host takes them by itself: started by its timer, with nothing but the settings that `up` left
//! there, etcd on loopback, and the sealed copy of the state, which it cannot open.

mod report;
mod shelves;
mod turn;

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::api::Claim;
use crate::api::Credentials;
use crate::api::etcd::Etcd;
use crate::api::etcd::HashKv;
use crate::host::Here;
use crate::model::Content;
use crate::model::SnapshotName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::prepare;
use crate::ops::snapshot::hosted::shelves::Shelves;
use crate::ops::snapshot::hosted::turn::Last;
use crate::ops::snapshot::save;
use crate::ops::snapshot::save::Sealing;
use crate::secrets::Entropy as _;
use crate::secrets::HostSnapshots;
use crate::secrets::SystemEntropy;
use crate::snapshot::Facts;
use crate::snapshot::Manifest;
use crate::store;
use crate::store::HostKey;

pub use report::HostReport;
pub use report::HostTaken;
pub use report::HostTrouble;
pub(in crate::ops) use report::PATH as REPORT;
pub(in crate::ops) use report::of as report_of;

/// The sealed copy of the state on this host.
const STATE: &str = "/var/lib/bastide/state.age";
/// etcd's authority, and what this host shows etcd.
const AUTHORITY: &str = "/etc/bastide/etcd-ca.crt";
const CERTIFICATE: &str = "/etc/bastide/etcd-client.crt";
const KEY: &str = "/etc/bastide/etcd-client.key";
/// Longest time for one short answer of the member.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a claim outlives the time that a snapshot may take: whoever holds it cleans up first.
const CLEANING: Duration = Duration::from_mins(1);

/// What became of a host's turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// A snapshot was taken.
    Taken(HostTaken),
    /// None is due.
    NotDue {
        /// The newest one, and whose it is.
        last: String,
        /// What this host's own last one, which is the newest, was wanting.
        troubles: Vec<String>,
    },
    /// Another host is taking one.
    Elsewhere {
        /// Which.
        host: String,
    },
}

/// Takes a snapshot where one is due, or `anyway`. Leaves word of it for `bastide status`.
pub async fn take_turn(
    settings: &Path,
    anyway: bool,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Turn, OpsError> {
    let settings = HostSnapshots::read(&store::read_private(settings)?)?;
    let now = prepare::now();
    let mut report = report::read(Path::new(REPORT));
    let turn = in_turn(&settings, &report, (anyway, now), &**talk, cancel).await;
    report.looked_at = now;
    match &turn {
        Ok(Turn::Taken(taken)) => {
            report.last = Some(taken.clone());
            report.trouble = None;
        }
        Ok(Turn::NotDue { .. } | Turn::Elsewhere { .. }) => {}
        Err(error) => report.trouble = Some(HostTrouble { at: now, reason: error.to_string() }),
    }
    match (report::write(Path::new(REPORT), &report), turn) {
        (Err(error), Ok(_)) => Err(error),
        (_, turn) => turn,
    }
}

async fn in_turn(
    settings: &HostSnapshots,
    report: &HostReport,
    (anyway, now): (bool, i64),
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<Turn, OpsError> {
    let here = Arc::new(Here(settings.host.clone()));
    let credentials = credentials()?;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let etcd = Etcd { host: &here, address, credentials: &credentials, deadline: PATIENCE };
    let failed = OpsError::etcd(&settings.host);
    let not_due = |last: Last| {
        let own = report.last.as_ref().filter(|own| own.name == last.name);
        let troubles = own.map(|own| own.troubles.clone()).unwrap_or_default();
        Turn::NotDue { last: format!("{} of {}", last.name, last.host), troubles }
    };
    let waits = |last: &Option<Last>| last.as_ref().filter(|last| !anyway && !last.is_due(settings, now)).cloned();
    if let Some(last) = waits(&Last::read(&etcd).await.map_err(failed)?) {
        return Ok(not_due(last));
    }
    let mut random = [0; 8];
    SystemEntropy.fill(&mut random)?;
    let run: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let holder = format!("{} {run}", settings.host);
    let lease = match etcd.claim(turn::CLAIM, &holder, (settings.timeout + CLEANING).as_secs()).await.map_err(failed)? {
        Claim::Held { lease } => lease,
        Claim::Taken { by } => {
            let host = by.split(' ').next().unwrap_or_default().to_owned();
            return Ok(Turn::Elsewhere { host });
        }
    };
    let begun = Instant::now();
    let taking = async {
        // Another host may have taken one between the look and the claim.
        if let Some(last) = waits(&Last::read(&etcd).await.map_err(failed)?) {
            return Ok(not_due(last));
        }
        let (manifest, troubles) = take(settings, &etcd, now, talk).await?;
        let last = Last { name: manifest.name.clone(), host: settings.host.clone(), taken_at: manifest.taken_at };
        if !last.write(&etcd, &holder).await.map_err(failed)? {
            talk.warn("another host's turn began meanwhile; this snapshot is one more");
        }
        Ok(Turn::Taken(HostTaken {
            name: manifest.name,
            taken_at: manifest.taken_at,
            size: manifest.state.size + manifest.sealed.size,
            etcd_revision: manifest.etcd_revision,
            seconds: begun.elapsed().as_secs_f64(),
            troubles,
        }))
    };
    let seconds = settings.timeout.as_secs();
    let taken = tokio::select! {
        taken = tokio::time::timeout(settings.timeout, taking) => taken.unwrap_or_else(|_| {
            let words = format!("no snapshot was made within {seconds} s (services.etcd.backup_config.timeout)");
            Err(OpsError::Impossible(words))
        }),
        () = cancel.cancelled() => Err(OpsError::Impossible("interrupted; no snapshot was made".to_owned())),
    };
    // Without it the next host waits until the claim ends by itself.
    if let Err(error) = etcd.give_back(&lease).await {
        talk.warn(&format!("the claim could not be given back: {error}"));
    }
    taken
}

fn credentials() -> Result<Credentials, OpsError> {
    let text = |path: &str| -> Result<String, OpsError> {
        let content = store::read_private(Path::new(path))?;
        Ok(content.expose_text().unwrap_or_default().to_owned())
    };
    Ok(Credentials {
        authorities: text(AUTHORITY)?,
        certificate: text(CERTIFICATE)?,
        key: store::read_private(Path::new(KEY))?,
    })
}

/// From the member into every place. Returns what is wanting, in words.
async fn take(
    settings: &HostSnapshots,
    etcd: &Etcd<'_, Here>,
    now: i64,
    talk: &dyn Talk,
) -> Result<(Manifest, Vec<String>), OpsError> {
    let state = store::read_private(Path::new(STATE))?;
    let sealing = Sealed::of(settings, state)?;
    let name = turn::name(now)?;
    let (facts, before) = facts(settings, &sealing, etcd, name, now, talk).await?;
    let mut shelves = Shelves::begin(settings, &facts, talk).await?;
    talk.say(&format!("taking snapshot {}", facts.name));
    let sealing = Sealing { state: &sealing.state, recipients: &sealing.recipients, key: &sealing.key };
    let (fan, file) = shelves.inlets();
    let streamed = save::stream(etcd, &sealing, fan, file, facts, before).await;
    let (manifest, digest) = match streamed {
        Ok(streamed) => streamed,
        Err(error) => {
            shelves.discard().await;
            return Err(error);
        }
    };
    let mut troubles = shelves.keep(digest).await?;
    troubles.extend(shelves::prune(settings, talk).await);
    Ok((manifest, troubles))
}

/// The copy of the state with whom it is sealed to, and what this host signs with.
struct Sealed {
    state: Content,
    head: store::Head,
    recipients: store::Recipients,
    key: HostKey,
}

impl Sealed {
    /// Refuses a copy that this cluster's identity did not sign: it would be handed out as the way back.
    fn of(settings: &HostSnapshots, state: Content) -> Result<Self, OpsError> {
        let (head, recipients) = store::sealed_to(&state, &settings.identity)?;
        if recipients.is_empty() {
            let words = format!(
                "{STATE} does not say whom it is sealed to; the next `bastide up` that changes anything writes one that does"
            );
            return Err(OpsError::Impossible(words));
        }
        let unreadable = || OpsError::Impossible("the settings hold no signing key".to_owned());
        let key = HostKey::read(&settings.signing_key).ok_or_else(unreadable)?;
        Ok(Self { state, head, recipients, key })
    }
}

async fn facts(
    settings: &HostSnapshots,
    sealed: &Sealed,
    etcd: &Etcd<'_, Here>,
    name: SnapshotName,
    now: i64,
    talk: &dyn Talk,
) -> Result<(Facts, Option<HashKv>), OpsError> {
    let failed = OpsError::etcd(&settings.host);
    let status = etcd.status().await.map_err(failed)?;
    if status.learner || status.leader == "0" {
        let what = if status.learner { "is a learner" } else { "knows no leader" };
        return Err(OpsError::Impossible(format!("{}: etcd {what}", settings.host)));
    }
    for error in &status.errors {
        talk.warn(&format!("etcd says: {error}"));
    }
    let (etcd_revision, keys) = etcd.count().await.map_err(failed)?;
    // Kept by number, it would in time push out all that are worth something.
    if let Some((known, further)) = shelves::furthest(settings)?.filter(|(known, _)| *known > etcd_revision) {
        return Err(OpsError::Impossible(format!(
            "{}: etcd is at revision {etcd_revision}, and snapshot {further} has {known}: it lost its disk and began anew, and nothing \
             of it is kept",
            settings.host
        )));
    }
    let before = save::hash_at(etcd, etcd_revision).await;
    let facts = Facts {
        cluster: settings.cluster.clone(),
        cluster_name: settings.cluster_name.clone(),
        name,
        taken_at: now,
        member: settings.host.clone(),
        why: Manifest::RECURRING.to_owned(),
        etcd_version: status.version,
        kubernetes: settings.kubernetes,
        revision: sealed.head.revision.clone(),
        etcd_revision,
        keys,
        hash: None,
    };
    Ok((facts, before))
}
