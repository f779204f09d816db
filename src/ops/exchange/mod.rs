//! Other authorities, and another key for service-account tokens, in the place of the cluster's own: leg by leg, each a revision.

mod before;
mod outsiders;
mod settle;
mod trials;
mod walk;

pub(super) use before::First;
pub(super) use before::first;
pub(super) use settle::settled;
pub use walk::ExchangeOptions;
pub use walk::exchange;
