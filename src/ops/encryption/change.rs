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
use crate::ops::encryption::census::folder;
use crate::ops::encryption::census::prefix;
use crate::ops::encryption::census::scan;
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
/// How objects of other groups are written anew.
const OTHERS: &str = "(resources of other groups than the core one are not written anew by bastide: \
                      `kubectl get RESOURCE -A -o json | kubectl replace -f -`, then the same command again)";
/// After how many objects the progress is told.
const TOLD_EVERY: usize = 100;

/// Other keys than those of the cluster as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyChange {
    /// What the target's configuration says.
    target: Vec<KeyRule>,
    /// What every configuration says that an API server may have, by its digest.
    known: BTreeMap<Digest, Vec<KeyRule>>,
    /// What only keys may have encrypted that the target lacks, with these keys.
    dropped: BTreeMap<String, BTreeSet<KeyLabel>>,
}

impl KeyChange {
    fn new(target: Vec<KeyRule>, known: BTreeMap<Digest, Vec<KeyRule>>) -> Self {
        let resources = route::resources_of(known.values().flatten().chain(&target));
        let dropped = resources.into_iter().filter_map(|resource| {
            let keys = known.values().flat_map(|had| route::dropped_keys(had, &target, &resource));
            let keys: BTreeSet<KeyLabel> = keys.collect();
            (!keys.is_empty()).then_some((resource, keys))
        });
        Self { dropped: dropped.collect(), target, known }
    }

    /// Whether an API server with that configuration may run beside those of the target.
    fn fits(&self, configuration: Digest) -> Option<bool> {
        self.known.get(&configuration).map(|rules| route::key_rules_fit(rules, &self.target))
    }

    /// Dropped keys of resources whose objects cannot be found by name, and the folders in which objects of others lie. Where
    /// such a resource lies in clear, nobody could find what must be written anew.
    fn elsewhere(&self, prefix: &str) -> Result<(Vec<KeyLabel>, Vec<String>), OpsError> {
        let uncounted: Vec<_> = self.dropped.iter().filter(|(resource, _)| !countable(resource)).collect();
        let in_clear = |keys: &BTreeSet<KeyLabel>| keys.iter().any(|key| key.mark().is_none());
        if let Some((resource, _)) = uncounted.iter().find(|(_, keys)| in_clear(keys)) {
            return Err(OpsError::Impossible(format!(
                "objects of {resource} may lie in etcd in clear, and bastide finds such objects of the core group alone: keep \
                 `identity: {{}}` as the last provider of that part"
            )));
        }
        let keys: BTreeSet<KeyLabel> = uncounted.into_iter().flat_map(|(_, keys)| keys).cloned().collect();
        let known = route::resources_of(self.known.values().flatten().chain(&self.target));
        let counted = known.into_iter().filter(|resource| countable(resource));
        Ok((keys.into_iter().collect(), counted.map(|resource| folder(prefix, &resource)).collect()))
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
    let mut known = rules_by_digest(&prepared.target.desired, &prepared.target.blobs);
    let rules = target.values().find_map(|digest| known.get(digest)).cloned().unwrap_or_default();
    // Runs that died since may have left their keys on some hosts.
    let since = store.reached().map(|revision| revision.id.clone());
    for revision in store.history().iter().filter(|revision| Some(&revision.id) >= since.as_ref()) {
        let (_, desired, blobs, _) = match store.load(&revision.id) {
            Err(StoreError::NotKept { .. }) => continue,
            loaded => loaded?,
        };
        known.extend(rules_by_digest(&desired, &blobs));
    }
    Ok(Some(KeyChange::new(rules, known)))
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
        let (left, others) = needing(prepared, change).await?;
        if left.is_empty() && others.is_empty() {
            return Ok(true);
        }
        if round == ROUNDS || !others.is_empty() {
            let count = left.len() + others.len();
            let named = others.iter().chain(&left).take(NAMED).map(ToString::to_string);
            let way = others.first().map(|_| OTHERS.to_owned());
            return Err(OpsError::KeyNeeded { count, some: named.chain(way).chain(trouble).collect() });
        }
        trouble = rewrite(prepared, &left, talk, cancel).await?;
    }
    Ok(true)
}

/// Every object that only a dropped key can read, as etcd tells: those that can be written anew, and those of which only the name
/// in etcd is known.
async fn needing(prepared: &Prepared, change: &KeyChange) -> Result<(Vec<Stored>, Vec<Stored>), OpsError> {
    let prefix = prefix(&prepared.target.desired, &prepared.target.blobs);
    let (keys, counted) = change.elsewhere(&prefix)?;
    let others = scan(&prepared.doors, &prefix, &counted, &keys).await?;
    let mut found = Vec::new();
    for (resource, dropped) in change.dropped.iter().filter(|(resource, _)| countable(resource)) {
        let kept = route::keys_for(&change.target, resource, &secrets::KeyLabel::clear());
        // The one that writes first: almost everything lies under it.
        let keys: Vec<_> = kept.into_iter().chain(dropped.iter().cloned()).collect();
        let all = census(&prepared.doors, &prefix, resource, &keys).await?;
        found.extend(all.into_iter().filter(|stored| match &stored.under {
            Under::Key(key) => dropped.contains(key),
            Under::Clear => dropped.iter().any(|key| key.mark().is_none()),
            Under::Another => false,
        }));
    }
    Ok((found, others))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeMap;

    use super::KeyChange;
    use crate::model::Digest;
    use crate::ops::OpsError;
    use crate::route::KeyRule;
    use crate::route::key_rules;

    fn rules(parts: &[(&str, &str)]) -> Vec<KeyRule> {
        let parts: Vec<_> = parts
            .iter()
            .map(|(resources, keys)| {
                let keys = keys.split(' ').map(|key| match key {
                    "clear" => "{identity: {}}".to_owned(),
                    key => format!("{{secretbox: {{keys: [{{name: {key}, secret: eA==}}]}}}}"),
                });
                format!("{{resources: [{resources}], providers: [{}]}}", keys.collect::<Vec<_>>().join(", "))
            })
            .collect();
        key_rules(&format!("resources: [{}]", parts.join(", "))).unwrap()
    }

    fn change(known: &[&[(&str, &str)]], target: &[(&str, &str)]) -> KeyChange {
        let all = known.iter().map(|parts| (Digest::of(format!("{parts:?}").as_bytes()), rules(parts)));
        KeyChange::new(rules(target), all.collect::<BTreeMap<_, _>>())
    }

    fn dropped(change: &KeyChange) -> Vec<String> {
        let words = change.dropped.iter().map(|(resource, keys)| {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            format!("{resource}: {}", keys.join(" "))
        });
        words.collect()
    }

    #[test]
    fn what_only_a_dropped_key_can_read_is_known_by_resource() {
        let known: [&[(&str, &str)]; 2] = [&[("secrets", "old clear")], &[("secrets", "new old clear")]];
        assert_eq!(dropped(&change(&known, &[("secrets", "new")])), ["secrets: identity secretbox:old"]);
        assert_eq!(dropped(&change(&known, &[("secrets", "new old clear")])), Vec::<String>::new());
        let wider = change(&[&[("secrets", "new")]], &[("'secrets', 'configmaps'", "new")]);
        assert_eq!(dropped(&wider), ["configmaps: identity"]);
        let narrower = change(&[&[("secrets", "new"), ("configmaps", "new clear")]], &[("secrets", "new")]);
        assert_eq!(dropped(&narrower), ["configmaps: secretbox:new"]);
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused_and_nothing_is_looked_for_twice() {
        let all = change(&[&[("secrets", "old"), ("'*.apps'", "old")]], &[("secrets", "new"), ("'*.apps'", "new")]);
        let (keys, counted) = all.elsewhere("/registry").unwrap();
        assert_eq!((keys.len(), counted), (1, vec!["/registry/secrets/".to_owned()]));
        let clear = change(&[&[("secrets", "new")]], &[("secrets", "new"), ("'*.*'", "new")]);
        let Err(OpsError::Impossible(words)) = clear.elsewhere("/registry") else { panic!("no refusal") };
        assert!(words.starts_with("objects of *.* may lie in etcd in clear"), "{words}");
    }
}
