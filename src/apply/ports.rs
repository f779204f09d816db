//! What a run needs of the cluster; wired to the API by the rooms above.

use std::future::Future;

use crate::model::Gate;
use crate::model::ObjectAction;

/// The cluster's API and the health of its parts.
pub trait Cluster: Send + Sync {
    /// Afterwards the object is as the action says. The error is in words, without a secret; the run tries again where a
    /// later try may succeed, such as for a `Node` whose kubelet has just started.
    fn apply(&self, action: &ObjectAction) -> impl Future<Output = Result<(), String>> + Send;
    /// Asks the component itself, once. `Err`: nobody could be asked.
    fn gate(&self, gate: &Gate) -> impl Future<Output = Result<Health, String>> + Send;
}

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The gate is open.
    Well,
    /// It answers and is not well, in its own words.
    Unwell(String),
}
