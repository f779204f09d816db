//! Desired minus Observed is the Plan. Pure and total: no I/O, no clock.
//!
//! Enters: a target, what was seen, and the circumstances. Leaves: a [`Plan`], or every reason why there can't be one.
//! Never looks at a host, never runs anything.

mod batch;
mod check;
mod diff;
mod ended;
mod lint;
mod membership;
mod objects;
mod order;
mod predict;
mod refusal;
mod scope;
mod seeded;
mod show;
mod situation;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unfinished;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

pub use ended::left_ended;
pub use ended::pairs_ending;
pub use lint::lint;
pub use predict::predict;
pub use refusal::Refusal;
pub use scope::scope;
pub use show::Detail;
pub use show::json;
pub use show::text;
pub use unfinished::Unfinished;

use crate::model::Desired;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::RemotePath;

/// What a plan depends on beside the target and the hosts.
#[derive(Debug, Clone, Default)]
pub struct Context<'a> {
    /// Seconds since 1970, by the operator's clock.
    pub now: i64,
    /// Architecture of the release: `x86_64` or `aarch64`.
    pub architecture: &'a str,
    /// Hosts that the operator leaves out by name (`--without`).
    pub without: BTreeSet<HostName>,
    /// Workers that may be away at once; absent is RKE's default, a tenth of them and at least one.
    pub max_unavailable_worker: Option<NonZeroUsize>,
    /// The target that was reached last. Without one the cluster is being made: everything moves at once, because there
    /// is nothing yet to keep alive.
    pub previous: Option<&'a Desired>,
    /// What earlier runs changed and never saw well.
    pub unfinished: Unfinished,
    /// Files that stay although they are no longer desired: programs and images of the last two reached revisions.
    pub keep: BTreeSet<RemotePath>,
    /// Objects that go although others may keep data in them, as `--prune-data` names them ([`crate::model::ObjectId::reference`]).
    pub prune_data: BTreeSet<String>,
}

/// What has to be done so that `observed` becomes `target`, in a safe order, or all reasons not to begin.
pub fn plan(target: &Desired, observed: &Observed, context: &Context<'_>) -> Result<Plan, Vec<Refusal>> {
    let mut refusals = check::ground(target, observed, context);
    refusals.extend(membership::check(target, observed, context));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let left_out = check::left_out(target, observed, context);
    let diffs = target
        .hosts
        .iter()
        .filter(|(name, _)| !left_out.contains(*name))
        .filter_map(|(name, desired)| {
            let seen = observed.hosts.get(name)?;
            Some((name.clone(), diff::host(desired, seen, context, observed.objects.is_none())))
        })
        .collect();
    let (objects, object_notes) = objects::actions(target, observed, &left_out, &context.prune_data);
    let barriers = objects::barrier(&objects).into_iter().collect();
    let situation = situation::Situation::new(target, observed, context, &diffs);
    let mut stages = order::stages(&situation, &diffs, objects);
    // A cluster that is being made is waited for as a whole.
    if !situation.fresh() {
        unfinished::add(&mut stages, &situation, &diffs, &context.unfinished);
    }
    let mut plan = Plan { stages, allowances: target.allowances.clone(), barriers, notes: Vec::new(), left_out };
    refusals.extend(check::space(&plan, observed));
    refusals.extend(check::quorum(&plan, &situation));
    refusals.extend(lint(&plan, target, situation.unprotected()).into_iter().map(Refusal::Unsafe));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    if !plan.is_empty() {
        plan.notes = check::notes(target, observed, context, &diffs, &plan);
        plan.notes.extend(object_notes);
    }
    Ok(plan)
}
