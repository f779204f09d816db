//! Runs a plan. Takes no decision.
//!
//! Enters: a [`Plan`](crate::model::Plan), the fleet, the cluster's door, contents. Leaves: a [`Report`]. Never chooses
//! what to do or in which order; stops where something is not as the plan says.

mod fleet;
mod gate;
mod journal;
mod lock;
mod objects;
mod ports;
mod record;
mod report;
mod run;
mod step;
#[cfg(test)]
mod tests;

pub use fleet::Fleet;
pub use fleet::Sighting;
pub use fleet::observe;
pub use journal::Entry;
pub use journal::Event;
pub use journal::Journal;
pub use journal::JournalError;
pub use lock::LockError;
pub use lock::Locks;
pub use lock::hosts_to_lock;
pub use ports::Cluster;
pub use ports::Health;
pub use record::Stamp;
pub use record::around;
pub use record::opening;
pub use record::reconciled;
pub use report::ApplyError;
pub use report::Outcome;
pub use report::Report;
pub use report::Timing;
pub use run::Deadlines;
pub use run::Run;
pub use run::run;
