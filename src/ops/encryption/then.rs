//! Data of an earlier time, and the keys that they are encrypted with.

use crate::model::Content;
use crate::ops::OpsError;
use crate::ops::encryption::toward::configuration;
use crate::ops::encryption::toward::give;
use crate::ops::encryption::toward::plugin_is_there;
use crate::ops::kept::Kept;
use crate::ops::prepare::Prepared;
use crate::ops::restore_source::Source;
use crate::route;
use crate::secrets;
use crate::secrets::EncryptionKey;
use crate::store;

/// Gives today's API servers the keys of a snapshot's time as keys with which they only read. Gives what a person should know of
/// that. With a configuration of the file's own (`custom`) the keys are the file's business.
pub(in crate::ops) fn read_as_then(kept: &mut Kept, source: &Source, custom: bool) -> Result<Option<String>, OpsError> {
    let (Some(store), Some(secrets)) = (&kept.store, &mut kept.secrets) else { return Ok(None) };
    let Some(state) = source.state()? else { return Ok(None) };
    let forms = store::secrets_of(&state, store.identity())?;
    let lacking = lacking(&secrets.encryption, &forms)?;
    if lacking.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = lacking.iter().map(|key| key.label().to_string()).collect();
    let names = names.join(", ");
    if custom {
        return Ok(Some(format!(
            "the snapshot is from before {names} was exchanged; the configuration in cluster.yml \
             (services.kube-api.secrets_encryption_config) must hold what its Secrets are encrypted with, or nobody can read them"
        )));
    }
    secrets.encryption.extend(lacking);
    Ok(Some(format!(
        "the snapshot is from before the encryption key was exchanged: {names} is kept as a key that only reads; `bastide encrypt \
         rotate-key` writes everything anew with today's key and drops it"
    )))
}

/// Refuses a snapshot whose objects the API servers of the target could not read: a plugin or a configuration of the file's own that was in
/// use then is not today. Where cluster.yml asks for one that reads them, the target gets it: nothing else runs that would have to read
/// what was written before. Gives what a person should know of that.
pub(in crate::ops) fn read_by_target(prepared: &mut Prepared, source: &Source) -> Result<Option<String>, OpsError> {
    let (Some(store), Some(state)) = (&prepared.kept.store, source.state()?) else { return Ok(None) };
    let carried = store::contents_of(&state, store.identity())?;
    let then = carried.last().and_then(|(desired, blobs, _)| configuration(desired, blobs));
    let Some(then) = then else { return Ok(None) };
    let missing = |now: Option<&Content>| now.and_then(|now| route::unreadable(&then, now)).unwrap_or_default();
    let today = configuration(&prepared.target.desired, &prepared.target.blobs);
    let lost = missing(today.as_ref());
    if lost.is_empty() {
        return Ok(None);
    }
    let ahead = prepared.keys_ahead.clone().filter(|ahead| missing(Some(ahead)).is_empty());
    let Some(ahead) = ahead else {
        let keys = lost.iter().map(|(resource, key)| format!("{resource}: {key}")).collect();
        return Err(OpsError::KeysOfThen { snapshot: source.name.clone(), keys });
    };
    give(&mut prepared.target, &ahead);
    plugin_is_there(&prepared.target)?;
    prepared.keys_ahead = None;
    Ok(Some(
        "the API servers get the encryption configuration that cluster.yml asks for at one go: that of today cannot read the snapshot"
            .to_owned(),
    ))
}

/// Keys of then that today's lack, each once.
fn lacking(today: &[EncryptionKey], then: &[Content]) -> Result<Vec<EncryptionKey>, OpsError> {
    let mut lacking: Vec<EncryptionKey> = Vec::new();
    for form in then {
        let keys = secrets::unseal_form(form)?.encryption;
        for key in keys {
            if !today.contains(&key) && !lacking.contains(&key) {
                lacking.push(key);
            }
        }
    }
    Ok(lacking)
}
