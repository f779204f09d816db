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

/// Finds the next leg; none where there is nothing left to do.
pub(super) type Find<'a> = &'a (dyn Fn(&Kept) -> Result<(Target, Next), OpsError> + Sync);

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
        let found: Mutex<Option<Next>> = Mutex::new(None);
        let target = |kept: &Kept| -> Result<Target, OpsError> {
            let (target, next) = find(kept)?;
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
            // Whoever must have answered for the leg to be done did.
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
