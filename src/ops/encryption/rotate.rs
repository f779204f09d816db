//! `encrypt rotate-key`: the target is the one that was reached last, with the list of keys moved on by one leg.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::AtRest;
use crate::config::AtRestProvider;
use crate::model::Blobs;
use crate::model::Desired;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::encryption::loaded::rules_by_digest;
use crate::ops::kept::Kept;
use crate::ops::legs;
use crate::ops::legs::LegOptions;
use crate::ops::legs::Next;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::ops::reach::Reached;
use crate::ops::rollback::ROTATE_KEY;
use crate::route;
use crate::route::KeyLeg;
use crate::secrets;
use crate::secrets::EncryptionProvider;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;

/// What `encrypt rotate-key` was told.
#[derive(Debug, Clone, Default)]
pub struct RotateKeyOptions {
    /// `--provider`; none: what cluster.yml says, else secretbox.
    pub provider: Option<EncryptionProvider>,
    /// `--yes`
    pub yes: bool,
    /// `--timings`
    pub timings: bool,
}

/// Puts a new key for encryption at rest in the old one's place, or goes on with what was begun.
pub async fn rotate_key(
    invocation: &Invocation,
    options: &RotateKeyOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let local = Local::read(invocation)?;
    if local.cluster.services.api.custom_encryption.is_some() {
        return Err(OpsError::Impossible(
            "services.kube-api.secrets_encryption_config.custom_config: the keys are the file's own: write what you want there, \
             and `bastide up` goes there leg by leg"
                .to_owned(),
        ));
    }
    let provider = provider(&local.cluster.options.at_rest, options.provider)?;
    let now = prepare::now();
    let find = |kept: &Kept| next(kept, provider, ROTATE_KEY, now);
    let options = LegOptions { yes: options.yes, timings: options.timings };
    Box::pin(legs::legs(invocation, &find, options, talk, cancel)).await
}

/// What the new key encrypts with: what was asked for, which cluster.yml may not contradict.
fn provider(file: &AtRest, asked: Option<EncryptionProvider>) -> Result<EncryptionProvider, OpsError> {
    const OPTION: &str = "bastide.encryption.provider";
    let said = match file.provider {
        None => return Ok(asked.unwrap_or_default()),
        Some(AtRestProvider::Secretbox) => EncryptionProvider::Secretbox,
        Some(AtRestProvider::Aescbc) => EncryptionProvider::Aescbc,
        Some(AtRestProvider::Kms) => {
            return Err(OpsError::Impossible(format!(
                "{OPTION}: kms: the key is the key service's own; exchange it there. What is written from then on is encrypted \
                 with the new one, and the plugin goes on reading with the old one"
            )));
        }
    };
    match asked {
        Some(asked) if asked != said => Err(OpsError::Impossible(format!(
            "{OPTION} says {said}, so that the next `bastide up` would take a key of {asked} back: change it there, and run \
             `bastide up`"
        ))),
        _ => Ok(said),
    }
}

/// The last reached target with the keys of the next leg; that of a leg that was begun, where one was.
pub(super) fn next(
    kept: &Kept,
    provider: EncryptionProvider,
    command: &str,
    now: i64,
) -> Result<(Target, Next), OpsError> {
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    let (revision, desired, blobs, sealed) = store.load(&newest.id)?;
    let today = secrets::unseal_form(&sealed)?;
    if !newest.was_reached() {
        if newest.command != command {
            return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
        }
        let left = if today.encryption.len() == 1 { 1 } else { route::key_legs(&today.encryption).len() + 1 };
        let next = Next { why: revision.why, config: revision.config, left };
        return Ok((Target { desired, blobs: Arc::new(blobs), secrets: today, issued: Vec::new() }, next));
    }
    if !alone(&desired, &blobs, &today) {
        return Err(OpsError::Impossible(
            "API servers have another encryption configuration than the one with the keys that bastide makes: `bastide up` first \
             goes on to what cluster.yml says"
                .to_owned(),
        ));
    }
    let legs = route::key_legs(&today.encryption);
    let leg = *legs.first().ok_or_else(|| OpsError::Impossible("no leg is left".to_owned()))?;
    let fresh = match leg {
        KeyLeg::Add => Some(secrets::next_encryption_key(provider, now, &mut SystemEntropy)?),
        KeyLeg::Promote | KeyLeg::Retire => None,
    };
    let encryption = route::keys_after(&today.encryption, leg, fresh);
    let with = Secrets { encryption, ..today.clone() };
    let moved = route::retarget(&desired, &blobs, &today, &with);
    let next = Next { why: format!("encryption key: {leg}"), config: revision.config, left: legs.len() };
    Ok((Target { desired: moved.desired, blobs: Arc::new(moved.blobs), secrets: with, issued: Vec::new() }, next))
}

/// Whether API servers have the keys that bastide makes, and no others.
fn alone(desired: &Desired, blobs: &Blobs, secrets: &Secrets) -> bool {
    let keys: Vec<_> = secrets.encryption.iter().map(secrets::EncryptionKey::label).collect();
    rules_by_digest(desired, blobs).values().all(|rules| matches!(rules.as_slice(), [rule] if rule.keys == keys))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::provider;
    use crate::config::AtRest;
    use crate::config::AtRestProvider;
    use crate::secrets::EncryptionProvider::Aescbc;
    use crate::secrets::EncryptionProvider::Secretbox;

    #[test]
    fn the_file_decides_and_nobody_may_contradict_it() {
        let file = |provider| AtRest { provider, kms: None };
        assert_eq!(provider(&file(None), None).unwrap(), Secretbox);
        assert_eq!(provider(&file(None), Some(Aescbc)).unwrap(), Aescbc);
        assert_eq!(provider(&file(Some(AtRestProvider::Aescbc)), None).unwrap(), Aescbc);
        assert_eq!(provider(&file(Some(AtRestProvider::Aescbc)), Some(Aescbc)).unwrap(), Aescbc);
        provider(&file(Some(AtRestProvider::Aescbc)), Some(Secretbox)).unwrap_err();
        provider(&file(Some(AtRestProvider::Kms)), None).unwrap_err();
    }
}
