//! A change in several legs, each of them a revision: the state says which one is next, so that a run that died is gone on with
//! by the same command.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::model::Digest;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;

/// The next leg as it was found from the state.
pub(super) struct Next {
    /// For the history, and said before the plan.
    pub why: String,
    /// cluster.yml that its target came from.
    pub config: Digest,
    /// How many legs are left, this one included.
    pub left: usize,
}

/// Finds the target of the next leg, and what is to be known of it.
pub(super) type Find<'a, N = Next> = &'a (dyn Fn(&Kept) -> Result<(Target, N), OpsError> + Sync);

/// What a command that goes by legs was told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LegOptions {
    /// `--yes`
    pub yes: bool,
    /// `--timings`
    pub timings: bool,
}

/// Goes on until the leg that says of itself that it is the last one.
pub(super) async fn legs(
    invocation: &Invocation,
    find: Find<'_>,
    options: LegOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let mut changed = false;
    loop {
        let (prepared, next) = prepared(invocation, find, talk).await?;
        talk.show(&format!("{} (legs left: {})", next.why, next.left));
        let last = next.left == 1;
        let errand = Errand {
            why: next.why,
            config: Some(next.config),
            yes: options.yes,
            timings: options.timings,
            // Once for all legs.
            guarded: !changed,
            ..Errand::default()
        };
        let reached = Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await?;
        if let Some(end) = after(reached, last, &mut changed, cancel)? {
            return Ok(end);
        }
    }
}

/// The plan of the leg that `find` finds from the state, and what it says of it.
pub(super) async fn prepared<N: Send>(
    invocation: &Invocation,
    find: Find<'_, N>,
    talk: &Arc<dyn Talk>,
) -> Result<(Prepared, N), OpsError> {
    let found: Mutex<Option<N>> = Mutex::new(None);
    let target = |kept: &Kept| -> Result<Target, OpsError> {
        let (target, next) = find(kept)?;
        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(target)
    };
    let prepared = prepare::prepare(invocation, Some(&target), talk).await?;
    let next = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((prepared, next.ok_or_else(|| OpsError::Impossible("no leg was looked for".to_owned()))?))
}

/// How the whole ends after a leg; none where the next one follows. `changed` gathers over all legs.
pub(super) fn after(
    reached: Reached,
    last: bool,
    changed: &mut bool,
    cancel: &CancellationToken,
) -> Result<Option<Reached>, OpsError> {
    match reached {
        Reached::Already => {}
        // Whoever must have answered for the leg to be done did.
        Reached::Except(hosts) if last => return Ok(Some(Reached::Except(hosts))),
        Reached::Wholly | Reached::Except(_) => *changed = true,
    }
    if last {
        return Ok(Some(if *changed { Reached::Wholly } else { Reached::Already }));
    }
    goes_on(cancel)?;
    Ok(None)
}

/// Nothing more begins once somebody has interrupted.
pub(super) fn goes_on(cancel: &CancellationToken) -> Result<(), OpsError> {
    if cancel.is_cancelled() { Err(OpsError::BetweenLegs) } else { Ok(()) }
}
