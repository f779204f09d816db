//! One plan onto the hosts, with everything that a command has prepared.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::apply::Locks;
use crate::apply::Report;
use crate::apply::Run;
use crate::apply::Stamp;
use crate::host::Contents;
use crate::model::Desired;
use crate::model::LockHolder;
use crate::model::Plan;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::journal::RunJournal;
use crate::ops::local::Shelf;
use crate::ops::prepare::Prepared;

/// Where the contents of the target and the bundle are.
pub(super) fn shelf(prepared: &Prepared) -> Shelf {
    Shelf { blobs: Arc::clone(&prepared.target.blobs), bundle: Some(Arc::clone(&prepared.bundle)) }
}

/// Who runs a plan, for which revision, and how that is told and stopped.
#[derive(Clone, Copy)]
pub(super) struct Runner<'a> {
    pub stamp: &'a Stamp,
    pub holder: &'a LockHolder,
    pub talk: &'a Arc<dyn Talk>,
    pub cancel: &'a CancellationToken,
}

/// Runs a plan that leads from the last look to `target`.
pub(super) async fn perform(
    prepared: &Prepared,
    target: &Desired,
    plan: &Plan,
    contents: &Arc<dyn Contents>,
    runner: Runner<'_>,
    locks: &mut Locks<RealHost>,
) -> Report {
    let Runner { stamp, holder, talk, cancel } = runner;
    let deadlines = prepared.local.cluster.options.deadlines;
    let journal = RunJournal::new(&prepared.kept.folder, &holder.run, &stamp.revision);
    let run = Run {
        target,
        observed: &prepared.observed,
        fleet: &prepared.fleet,
        cluster: &prepared.doors,
        journal: &journal,
        contents,
        progress: &**talk,
        deadlines: apply::Deadlines { transfer: deadlines.transfer, health: deadlines.health, ready: deadlines.ready },
        stamp,
        id: &holder.run,
        cancel,
    };
    apply::run(plan, &run, locks).await
}
