//! From the configuration that API servers have to the one that cluster.yml asks for. Where that is more than a further key, `up`
//! leaves the former in place while it does everything else, and then walks from one to the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::AtRestProvider;
use crate::config::Cluster;
use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::Digest;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::encryption::loaded::wanted;
use crate::ops::encryption::rotate;
use crate::ops::kept::Kept;
use crate::ops::legs;
use crate::ops::legs::LegOptions;
use crate::ops::legs::Next;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::reach::Reached;
use crate::ops::rollback::WALK_KEYS;
use crate::render::ENCRYPTION;
use crate::render::KMS_FOLDER;
use crate::render::KMS_POD;
use crate::route;
use crate::route::WalkLeg;
use crate::secrets;
use crate::secrets::EncryptionProvider;
use crate::store::StoreError;

/// What API servers are given by a target; none where it has none.
pub(super) fn configuration(desired: &Desired, blobs: &Blobs) -> Option<Content> {
    blobs.get(wanted(desired).values().next()?).cloned()
}

/// Puts `content` in the place of what API servers would be given.
pub(super) fn give(target: &mut Target, content: &Content) {
    let mut blobs = (*target.blobs).clone();
    let old: BTreeSet<Digest> = wanted(&target.desired).into_values().collect();
    let digest = blobs.insert(content.clone());
    for host in target.desired.hosts.values_mut() {
        for (_, file) in host.files.iter_mut().filter(|(path, _)| path.as_str() == ENCRYPTION) {
            (file.digest, file.size) = (digest, content.len() as u64);
        }
    }
    let used = |digest: &Digest| {
        target.desired.hosts.values().flat_map(|host| host.files.values()).any(|file| file.digest == *digest)
    };
    for digest in old.iter().filter(|digest| !used(digest)) {
        blobs.0.remove(digest);
    }
    target.blobs = Arc::new(blobs);
}

/// The target of cluster.yml, but with the configuration of today where the file's may not run beside it or gives something up;
/// the file's is then handed out as well.
pub(in crate::ops) fn hold(kept: &Kept, mut target: Target) -> Result<(Target, Option<Content>), OpsError> {
    // A first run that died may have left API servers that write already.
    let (Some(store), Some(newest)) = (&kept.store, &kept.newest) else { return Ok((target, None)) };
    let goal_digests = wanted(&target.desired);
    // No cluster of the present file has other hosts with an API server than the state's.
    let differs = |of: &Desired| wanted(of).iter().any(|(name, digest)| goal_digests.get(name) != Some(digest));
    if !differs(newest) && !kept.reached.as_ref().is_some_and(differs) {
        plugin_is_there(&target)?;
        return Ok((target, None));
    }
    let Some(goal) = configuration(&target.desired, &target.blobs) else { return Ok((target, None)) };
    let mut today = None;
    let mut at_once = true;
    for revision in [store.reached(), store.newest()].into_iter().flatten() {
        let (_, desired, blobs, _) = match store.load(&revision.id) {
            Err(StoreError::NotKept { .. }) => continue,
            loaded => loaded?,
        };
        let Some(now) = configuration(&desired, &blobs) else { continue };
        at_once &= step(&now, &goal)?.0 == WalkLeg::Arrive && !route::drops_keys(&now, &goal);
        today = Some(now);
    }
    match today {
        Some(today) if !at_once => {
            give(&mut target, &today);
            plugin_is_there(&target)?;
            Ok((target, Some(goal)))
        }
        _ => {
            plugin_is_there(&target)?;
            Ok((target, None))
        }
    }
}

fn step(now: &Content, goal: &Content) -> Result<(WalkLeg, Content), OpsError> {
    route::next_configuration(now, goal).map_err(|reason| {
        OpsError::Impossible(format!("encryption at rest: there is no safe way to what cluster.yml asks for: {reason}"))
    })
}

/// A plugin that API servers speak to runs beside each of them for as long as they do.
pub(super) fn plugin_is_there(target: &Target) -> Result<(), OpsError> {
    let Some(configuration) = configuration(&target.desired, &target.blobs) else { return Ok(()) };
    let ours = |endpoint: &str| endpoint.strip_prefix("unix://").is_some_and(|path| path.starts_with(KMS_FOLDER));
    let needed = route::plugins(&configuration).into_iter().find(|(_, endpoint)| ours(endpoint));
    let servers = wanted(&target.desired);
    let runs =
        servers.keys().all(|name| target.desired.hosts.get(name).is_some_and(|host| host.pods.contains_key(KMS_POD)));
    match needed {
        Some((name, endpoint)) if !runs => Err(OpsError::Impossible(format!(
            "API servers ask the plugin {name} at {endpoint}, and cluster.yml declares none: keep `bastide.encryption.kms` until \
             nothing is encrypted with it. First name another provider (`bastide.encryption.provider`), run `bastide up`, and then \
             remove it"
        ))),
        _ => Ok(()),
    }
}

/// What cluster.yml wants of the keys that bastide makes; none where it does not say, or where these are not in use.
fn provider(cluster: &Cluster) -> Option<EncryptionProvider> {
    match cluster.options.at_rest.provider {
        Some(AtRestProvider::Secretbox) => Some(EncryptionProvider::Secretbox),
        Some(AtRestProvider::Aescbc) => Some(EncryptionProvider::Aescbc),
        Some(AtRestProvider::Kms) | None => None,
    }
}

/// What is left to do after everything else is as cluster.yml says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::ops) enum Ahead {
    /// To walk to this configuration.
    Walk(Content),
    /// To exchange the keys that bastide makes for one of this provider.
    Exchange(EncryptionProvider),
}

/// What `up` still has to do once the target of `prepared` is reached; none: nothing.
pub(in crate::ops) fn ahead(prepared: &Prepared) -> Option<Ahead> {
    if let Some(goal) = &prepared.keys_ahead {
        return Some(Ahead::Walk(goal.clone()));
    }
    prepared.kept.newest.as_ref()?;
    let wanted = provider(&prepared.local.cluster)?;
    let other = |key: &secrets::EncryptionKey| key.provider != wanted.as_str();
    prepared.target.secrets.encryption.iter().any(other).then_some(Ahead::Exchange(wanted))
}

/// What a person is told of that beforehand.
pub(in crate::ops) fn note(ahead: &Ahead) -> String {
    let what = match ahead {
        Ahead::Walk(_) => "another encryption configuration, which API servers are not given at one go".to_owned(),
        Ahead::Exchange(provider) => format!("a key of {provider}"),
    };
    format!(
        "cluster.yml asks for {what}: encryption at rest stays as it is in this plan; `bastide up` then changes it leg by leg, \
         each of which it shows (docs/encryption.md)"
    )
}

/// Whether a walk was cut off in the middle of a leg.
pub(in crate::ops) fn is_cut_off(kept: &Kept) -> bool {
    let newest = kept.store.as_ref().and_then(|store| store.newest());
    newest.is_some_and(|newest| !newest.was_reached() && newest.command == WALK_KEYS)
}

/// Does what is ahead. With none: finishes the leg that was cut off.
pub(in crate::ops) async fn walk(
    invocation: &Invocation,
    ahead: Option<&Ahead>,
    options: LegOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let invocation = Invocation { command: WALK_KEYS, ..invocation.clone() };
    let now = crate::ops::prepare::now();
    let find = |kept: &Kept| -> Result<(Target, Next), OpsError> {
        match ahead {
            None => finished(kept),
            Some(Ahead::Walk(goal)) => next(kept, goal),
            Some(Ahead::Exchange(provider)) => rotate::next(kept, *provider, WALK_KEYS, now),
        }
    };
    Box::pin(legs::legs(&invocation, &find, options, talk, cancel)).await
}

/// The target of the leg that was cut off.
fn finished(kept: &Kept) -> Result<(Target, Next), OpsError> {
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    let (revision, desired, blobs, sealed) = store.load(&newest.id)?;
    let target =
        Target { desired, blobs: Arc::new(blobs), secrets: secrets::unseal_form(&sealed)?, issued: Vec::new() };
    Ok((target, Next { why: revision.why, config: revision.config, left: 1 }))
}

/// The last reached target with the configuration of the next leg.
fn next(kept: &Kept, goal: &Content) -> Result<(Target, Next), OpsError> {
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    if !newest.was_reached() {
        return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
    }
    let (revision, desired, blobs, sealed) = store.load(&newest.id)?;
    let today = configuration(&desired, &blobs)
        .ok_or_else(|| OpsError::Impossible("the state holds no encryption configuration".to_owned()))?;
    let (leg, content) = step(&today, goal)?;
    let mut target =
        Target { desired, blobs: Arc::new(blobs), secrets: secrets::unseal_form(&sealed)?, issued: Vec::new() };
    give(&mut target, &content);
    plugin_is_there(&target)?;
    let next = Next { why: format!("encryption at rest: {leg}"), config: revision.config, left: leg.left() };
    Ok((target, next))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::configuration;
    use super::give;
    use super::plugin_is_there;
    use crate::model::Content;
    use crate::model::Digest;
    use crate::ops::encryption::loaded::wanted;
    use crate::ops::prepare::Target;
    use crate::render::tests::support;

    const PLUGIN: &str = "kms: {name: vault, image: haproxy, command: [/kms]}";

    fn target(options: &str) -> Target {
        let text = format!("{}bastide: {{encryption: {{{options}}}}}\n", support::THREE_HOSTS);
        let rendered = support::rendered(&text);
        let secrets = support::secrets(&support::cluster(&text));
        Target { desired: rendered.desired, blobs: Arc::new(rendered.blobs), secrets, issued: Vec::new() }
    }

    #[test]
    fn another_configuration_takes_the_place_of_the_rendered_one_on_every_host() {
        let mut target = target("provider: secretbox");
        let before = configuration(&target.desired, &target.blobs).unwrap();
        let pods = target.desired.hosts.values().map(|host| host.pods.clone()).collect::<Vec<_>>();
        let other = Content::new("resources: []");
        give(&mut target, &other);
        let digests: Vec<_> = wanted(&target.desired).into_values().collect();
        assert_eq!(digests, vec![Digest::of(other.expose()); 3]);
        assert_eq!(configuration(&target.desired, &target.blobs), Some(other));
        assert_eq!(target.blobs.get(&Digest::of(before.expose())), None, "keys that nobody is given stay nowhere");
        let now = target.desired.hosts.values().map(|host| host.pods.clone()).collect::<Vec<_>>();
        assert_eq!(now, pods, "nothing restarts");
    }

    #[test]
    fn a_plugin_stays_as_long_as_an_api_server_asks_it() {
        let used = target(&format!("provider: kms, {PLUGIN}"));
        plugin_is_there(&used).unwrap();
        let configuration = configuration(&used.desired, &used.blobs).unwrap();
        let mut declared = target(PLUGIN);
        plugin_is_there(&declared).unwrap();
        give(&mut declared, &configuration);
        plugin_is_there(&declared).unwrap();
        let mut gone = target("provider: secretbox");
        plugin_is_there(&gone).unwrap();
        give(&mut gone, &configuration);
        let words = plugin_is_there(&gone).unwrap_err().to_string();
        assert!(words.contains("keep `bastide.encryption.kms`"), "{words}");
    }
}
