//! `up`: make the cluster equal to its file, or run exactly a plan that was saved.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::encryption;
use crate::ops::encryption::Ahead;
use crate::ops::kept::Kept;
use crate::ops::legs::LegOptions;
use crate::ops::prepare;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;
use crate::ops::saved;
use crate::ops::takeback::take_back;
use crate::ops::unless_interrupted;

/// What `up` was told.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// `--yes`
    pub yes: bool,
    /// `--no-identity-backup`
    pub no_identity_backup: bool,
    /// `--plan FILE`
    pub plan: Option<PathBuf>,
    /// `--timings`
    pub timings: bool,
    /// `--auto-rollback`
    pub auto_rollback: AutoRollback,
}

/// What becomes of a change that makes a component ill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AutoRollback {
    /// It is taken back.
    #[default]
    On,
    /// The run stops where it is.
    Off,
}

/// How often `up` looks again after it changed the encryption: an exchange that was under way already comes first.
const ROUNDS: usize = 4;

/// Makes the cluster equal to the file.
pub async fn up(
    invocation: &Invocation,
    options: &UpOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let mut all = Reached::Already;
    for _ in 0..ROUNDS {
        let (reached, ahead) = Box::pin(once(invocation, options, talk, cancel)).await?;
        all = together(all, reached);
        let Some(ahead) = ahead else { return Ok(all) };
        if options.plan.is_some() {
            talk.warn("the encryption of the cluster's file is not reached yet: `bastide up` goes there leg by leg");
            return Ok(all);
        }
        let legs = LegOptions { yes: options.yes, timings: options.timings };
        all = together(all, Box::pin(encryption::walk(invocation, Some(&ahead), legs, talk, cancel)).await?);
    }
    Ok(all)
}

/// How two parts of one run ended.
fn together(one: Reached, other: Reached) -> Reached {
    match (one, other) {
        (Reached::Except(mut hosts), Reached::Except(others)) => {
            hosts.extend(others);
            Reached::Except(hosts)
        }
        (Reached::Except(hosts), _) | (_, Reached::Except(hosts)) => Reached::Except(hosts),
        (Reached::Already, Reached::Already) => Reached::Already,
        _ => Reached::Wholly,
    }
}

/// Everything but a change of the encryption that takes several legs, which is handed out.
async fn once(
    invocation: &Invocation,
    options: &UpOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<(Reached, Option<Ahead>), OpsError> {
    let mut shown = None;
    let prepared = match &options.plan {
        None => {
            let mut prepared = unless_interrupted(cancel, Box::pin(prepare::prepare(invocation, None, talk))).await?;
            // Within a leg some API servers may have other keys than others; that is left first.
            if encryption::is_cut_off(&prepared.kept) {
                drop(prepared);
                let legs = LegOptions { yes: options.yes, timings: options.timings };
                Box::pin(encryption::walk(invocation, None, legs, talk, cancel)).await?;
                prepared = unless_interrupted(cancel, Box::pin(prepare::prepare(invocation, None, talk))).await?;
            }
            prepared
        }
        Some(path) => {
            let opened = OnceLock::new();
            let read = |kept: &Kept| -> Result<prepare::Target, OpsError> {
                let saved = saved::read(path, kept)?;
                Ok(opened.get_or_init(|| saved).target.clone())
            };
            let prepared =
                unless_interrupted(cancel, Box::pin(prepare::prepare(invocation, Some(&read), talk))).await?;
            if let Some(saved) = opened.into_inner() {
                saved.fits(path, &prepared)?;
                shown = Some(saved.plan);
            }
            prepared
        }
    };
    let ahead = encryption::ahead(&prepared);
    let why = if prepared.kept.newest.is_none() { "new cluster" } else { "cluster.yml or hosts changed" };
    let errand = Errand {
        yes: options.yes,
        no_identity_backup: options.no_identity_backup,
        timings: options.timings,
        why: why.to_owned(),
        barrier: prepared.plan.barriers.first().cloned(),
        shown,
        guarded: true,
        ..Errand::default()
    };
    // A first `up` has nothing to go back to.
    let automatic = options.auto_rollback == AutoRollback::On && prepared.kept.reached.is_some();
    match Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await {
        Err(OpsError::Stopped(report)) if automatic => Err(Box::pin(take_back(report, invocation, talk, cancel)).await),
        ended => Ok((ended?, ahead)),
    }
}
