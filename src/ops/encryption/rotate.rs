//! `encrypt rotate-key`: the target is the one that was reached last, with the list of keys moved on by one leg.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::model::Digest;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::ops::reach::Errand;
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
    /// `--provider`
    pub provider: EncryptionProvider,
    /// `--yes`
    pub yes: bool,
    /// `--timings`
    pub timings: bool,
}

/// The next leg as it was found from the state.
struct Next {
    why: String,
    config: Digest,
    /// How many legs are left, this one included.
    left: usize,
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
            "services.kube-api.secrets_encryption_config.custom_config: the keys are the file's own; change them there, one \
             step at a time, and run `bastide up` after each (`bastide encrypt status` tells what is encrypted with which)"
                .to_owned(),
        ));
    }
    let now = prepare::now();
    let mut changed = false;
    loop {
        let found: Mutex<Option<Next>> = Mutex::new(None);
        let target = |kept: &Kept| -> Result<Target, OpsError> {
            let (target, next) = target(kept, options.provider, now)?;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
            Ok(target)
        };
        let prepared = prepare::prepare(invocation, Some(&target), talk).await?;
        let next = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let next = next.ok_or_else(|| OpsError::Impossible("no leg was looked for".to_owned()))?;
        talk.show(&format!("{} (legs left: {})", next.why, next.left));
        let last = next.left == 1;
        let errand = Errand {
            why: next.why,
            config: Some(next.config),
            yes: options.yes,
            timings: options.timings,
            ..Errand::default()
        };

        match Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await? {
            Reached::Already => {}
            // Every API server's host answered, else the leg had not been done.
            Reached::Except(hosts) if last => return Ok(Reached::Except(hosts)),
            Reached::Wholly | Reached::Except(_) => changed = true,
        }
        if last {
            return Ok(if changed { Reached::Wholly } else { Reached::Already });
        }
        if cancel.is_cancelled() {
            return Err(OpsError::Impossible("interrupted between two legs; the same command goes on".to_owned()));
        }
    }
}

/// The last reached target with the keys of the next leg; that of a leg that was begun, where one was.
fn target(kept: &Kept, provider: EncryptionProvider, now: i64) -> Result<(Target, Next), OpsError> {
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    let (revision, desired, blobs, sealed) = store.load(&newest.id)?;
    let today = secrets::unseal_form(&sealed)?;
    if !newest.was_reached() {
        if newest.command != ROTATE_KEY {
            return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
        }
        let left = if today.encryption.len() == 1 { 1 } else { route::key_legs(&today.encryption).len() + 1 };
        let next = Next { why: revision.why, config: revision.config, left };
        return Ok((Target { desired, blobs: Arc::new(blobs), secrets: today, issued: Vec::new() }, next));
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
