//! Whether API servers work with the encryption configuration that lies on their hosts. They look for a new one once a minute
//! (k8s.io/apiserver, `encryptionconfig/controller`).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::model::Blobs;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::RemotePath;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::doors::Doors;
use crate::ops::prepare::Prepared;
use crate::render::ENCRYPTION;
use crate::route;
use crate::route::KeyRule;

/// Twice the minute after which a server looks again, and time for a busy one to take it up.
const LONGEST: Duration = Duration::from_mins(3);
/// The pause between two questions; an answer is some megabytes.
const POLL: Duration = Duration::from_secs(3);

fn path() -> Option<RemotePath> {
    RemotePath::new(ENCRYPTION).ok()
}

/// What lies on each control plane that was looked at.
pub(super) fn on_hosts(desired: &Desired, observed: &Observed) -> BTreeMap<HostName, Option<Digest>> {
    let path = path();
    let hosts = desired.hosts.iter().filter(|(_, host)| host.roles.control_plane());
    let digest = |name: &HostName| Some(observed.hosts.get(name)?.files.get(path.as_ref()?)?.digest);
    hosts.map(|(name, _)| (name.clone(), digest(name))).collect()
}

/// What is to lie on each control plane.
pub(in crate::ops) fn wanted(desired: &Desired) -> BTreeMap<HostName, Digest> {
    let path = path();
    let digest = |host: &crate::model::DesiredHost| Some(host.files.get(path.as_ref()?)?.digest);
    desired.hosts.iter().filter_map(|(name, host)| Some((name.clone(), digest(host)?))).collect()
}

/// What each configuration of a target says, by its digest.
pub(super) fn rules_by_digest(desired: &Desired, blobs: &Blobs) -> BTreeMap<Digest, Vec<KeyRule>> {
    let digests = wanted(desired).into_values();
    digests.filter_map(|digest| Some((digest, route::key_rules(blobs.get(&digest)?.expose_text()?)?))).collect()
}

/// Waits until every API server works with the target's keys.
pub(in crate::ops) async fn await_target(
    prepared: &Prepared,
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<(), OpsError> {
    let wanted = wanted(&prepared.target.desired);
    let judge = |name: &HostName, loaded: Digest| match wanted.get(name) {
        Some(wanted) if *wanted != loaded => Err(format!("works with {}, not with {}", loaded.short(), wanted.short())),
        _ => Ok(()),
    };
    await_each(&prepared.doors, wanted.keys(), &judge, talk, cancel).await
}

/// Waits until `judge` has nothing against what each of these API servers works with.
pub(super) async fn await_each<H: Host>(
    doors: &Doors<H>,
    servers: impl Iterator<Item = &HostName>,
    judge: &(dyn Fn(&HostName, Digest) -> Result<(), String> + Sync),
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<(), OpsError> {
    let waits = servers.map(|name| async move {
        let started = Instant::now();
        let mut told = false;
        loop {
            let answer = match doors.loaded_encryption(name).await {
                Ok(Some(loaded)) => judge(name, loaded),
                Ok(None) => Err("does not say which keys it works with".to_owned()),
                Err(trouble) => Err(trouble.to_string()),
            };
            let Err(reason) = answer else { return None };
            if started.elapsed() > LONGEST || cancel.is_cancelled() {
                return Some(format!("{name}: {reason}"));
            }
            if !told {
                talk.doing(name, "takes up the encryption keys; it looks for them once a minute");
                told = true;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cancel.cancelled() => {}
            }
        }
    });
    let reasons: Vec<_> = join_all(waits).await.into_iter().flatten().collect();
    if reasons.is_empty() { Ok(()) } else { Err(OpsError::KeysNotLoaded { reasons }) }
}
