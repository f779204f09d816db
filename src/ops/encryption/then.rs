//! Data of an earlier time, and the keys that they are encrypted with.

use crate::model::Content;
use crate::ops::OpsError;
use crate::ops::kept::Kept;
use crate::ops::restore_source::Source;
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
