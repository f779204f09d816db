//! What must hold before any API server is given other keys for encryption at rest, whichever command gives them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream;
use tokio_util::sync::CancellationToken;

use crate::model::Digest;
use crate::model::HostName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::encryption::census::Stored;
use crate::ops::encryption::census::Under;
use crate::ops::encryption::census::census;
use crate::ops::encryption::census::countable;
use crate::ops::encryption::census::prefix;
use crate::ops::encryption::loaded::await_each;
use crate::ops::encryption::loaded::await_target;
use crate::ops::encryption::loaded::on_hosts;
use crate::ops::encryption::loaded::rules_by_digest;
use crate::ops::encryption::loaded::wanted;
use crate::ops::prepare::Prepared;
use crate::route;
use crate::route::KeyRule;
use crate::secrets;
use crate::secrets::KeyLabel;
use crate::store::StoreError;

/// How many objects are written anew at once. bastide's own user is exempt from the API server's priority and fairness, so it
/// holds back by itself.
const AT_ONCE: usize = 4;
/// How often objects that were missed are looked for again.
const ROUNDS: usize = 3;
/// How many objects an error names.
const NAMED: usize = 10;
/// After how many objects the progress is told.
const TOLD_EVERY: usize = 100;

/// Other keys than those of the cluster as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyChange {
    /// Keys of today, or of a run that died, that the target lacks.
    dropped: Vec<KeyLabel>,
    /// The target's, the one that writes first.
    kept: Vec<KeyLabel>,
    /// What is encrypted.
    resources: Vec<String>,
    /// What the target's configuration says.
    target: Vec<KeyRule>,
    /// What every configuration says that an API server may have, by its digest.
    known: BTreeMap<Digest, Vec<KeyRule>>,
}

impl KeyChange {
    /// Whether an API server with that configuration may run beside those of the target.
    fn fits(&self, configuration: Digest) -> Option<bool> {
        self.known.get(&configuration).map(|rules| route::key_rules_fit(rules, &self.target))
    }
}

/// Whether the target has other encryption keys than the cluster; none too where there is no cluster yet, or where a file
/// merely was tampered with.
fn change_of(prepared: &Prepared) -> Result<Option<KeyChange>, OpsError> {
    let target = wanted(&prepared.target.desired);
    let (Some(reached), Some(store)) = (&prepared.kept.reached, &prepared.kept.store) else { return Ok(None) };
    let was: BTreeSet<_> =
        [Some(reached), prepared.kept.newest.as_ref()].into_iter().flatten().flat_map(wanted).collect();
    if was.iter().all(|(name, digest)| target.get(name).is_none_or(|wanted| wanted == digest)) {
        return Ok(None);
    }
    let mut held: BTreeSet<KeyLabel> = BTreeSet::new();
    let mut known = rules_by_digest(&prepared.target.desired, &prepared.target.blobs);
    // Runs that died since may have left their keys on some hosts.
    let since = store.reached().map(|revision| revision.id.clone());
    for revision in store.history().iter().filter(|revision| Some(&revision.id) >= since.as_ref()) {
        let (_, desired, blobs, sealed) = match store.load(&revision.id) {
            Err(StoreError::NotKept { .. }) => continue,
            loaded => loaded?,
        };
        held.extend(secrets::unseal_form(&sealed)?.encryption.iter().map(secrets::EncryptionKey::label));
        known.extend(rules_by_digest(&desired, &blobs));
    }
    let kept: Vec<_> = prepared.target.secrets.encryption.iter().map(secrets::EncryptionKey::label).collect();
    let dropped = held.into_iter().filter(|key| !kept.contains(key)).collect();
    let rules = target.values().find_map(|digest| known.get(digest)).cloned().unwrap_or_default();
    let resources: BTreeSet<_> = rules.iter().flat_map(|rule| &rule.resources).cloned().collect();
    let resources = resources.into_iter().filter(|name| countable(name)).collect();
    Ok(Some(KeyChange { dropped, kept, resources, target: rules, known }))
}

/// Waits until every API server works with the keys of a target that the hosts are at already: a run that died may have been the
/// one that brought them.
pub(in crate::ops) async fn settled(
    prepared: &Prepared,
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<(), OpsError> {
    if change_of(prepared)?.is_some() { await_target(prepared, talk, cancel).await } else { Ok(()) }
}

/// Where the target has other keys than the cluster: waits until every API server may run beside those of the target, and has
/// everything written anew that only a key can read that the target lacks. Whether it has.
pub(in crate::ops) async fn make_way(
    prepared: &Prepared,
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<bool, OpsError> {
    let Some(change) = &change_of(prepared)? else { return Ok(false) };
    let there = on_hosts(&prepared.target.desired, &prepared.observed);
    // What lies there is taken up within a minute, if it can be read at all. A file that nobody knows is somebody's mistake,
    // and about to be put right.
    let wrong = there.iter().filter_map(|(name, digest)| match digest {
        None => Some(format!("{name}: it could not be looked at")),
        Some(digest) if change.fits(*digest) == Some(false) => Some(format!(
            "{name}: its host has a configuration ({}) that may not run beside the target's",
            digest.short()
        )),
        Some(_) => None,
    });
    let reasons: Vec<_> = wrong.collect();
    if !reasons.is_empty() {
        return Err(OpsError::KeysNotLoaded { reasons });
    }
    let judge = |_: &HostName, loaded: Digest| match change.fits(loaded) {
        Some(true) => Ok(()),
        _ => Err(format!("works with a configuration ({}) that may not run beside the target's", loaded.short())),
    };
    await_each(&prepared.doors, there.keys(), &judge, talk, cancel).await?;
    if change.dropped.is_empty() {
        return Ok(true);
    }
    let mut trouble = Vec::new();
    for round in 0..=ROUNDS {
        let left = needing(prepared, change).await?;
        if left.is_empty() {
            return Ok(true);
        }
        if round == ROUNDS {
            let count = left.len();
            let named = left.iter().take(NAMED).map(ToString::to_string);
            return Err(OpsError::KeyNeeded { count, some: named.chain(trouble).collect() });
        }
        trouble = rewrite(prepared, &left, talk, cancel).await?;
    }
    Ok(true)
}

/// Every object that one of the dropped keys encrypted, as etcd tells.
async fn needing(prepared: &Prepared, change: &KeyChange) -> Result<Vec<Stored>, OpsError> {
    let prefix = prefix(&prepared.target.desired, &prepared.target.blobs);
    // The one that writes first: almost everything lies under it.
    let keys: Vec<_> = change.kept.iter().chain(&change.dropped).cloned().collect();
    let mut found = Vec::new();
    for resource in &change.resources {
        let all = census(&prepared.doors, &prefix, resource, &keys).await?;
        found.extend(all.into_iter().filter(|stored| match &stored.under {
            Under::Key(key) => change.dropped.contains(key),
            Under::Another | Under::Clear => false,
        }));
    }
    Ok(found)
}

/// Has each of these written anew. What was said of those where that failed, the first ones.
async fn rewrite(
    prepared: &Prepared,
    objects: &[Stored],
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<Vec<String>, OpsError> {
    let nobody = || OpsError::Impossible("no API server is ready".to_owned());
    let api = prepared.doors.api().await?.ok_or_else(nobody)?;
    let count = objects.len();
    talk.cluster(&format!("writes {count} objects anew with the key that stays"));
    let mut answers = stream::iter(objects)
        .map(|object| {
            let api = &api;
            async move { (object, api.write_anew(&object.resource, object.namespace.as_deref(), &object.name).await) }
        })
        .buffer_unordered(AT_ONCE);
    let mut trouble = Vec::new();
    let mut done = 0;
    while let Some((object, answer)) = answers.next().await {
        if cancel.is_cancelled() {
            let words =
                format!("interrupted after {done} of {count} objects; the same command goes on with the others");
            return Err(OpsError::Impossible(words));
        }
        done += 1;
        if let Err(error) = answer
            && trouble.len() < NAMED
        {
            trouble.push(format!("{object}: {error}"));
        }
        if done % TOLD_EVERY == 0 {
            talk.cluster(&format!("{done} of {count} objects are written anew"));
        }
    }
    if !trouble.is_empty() {
        prepared.doors.forget_api().await;
    }
    Ok(trouble)
}
