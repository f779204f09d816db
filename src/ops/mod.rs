//! Use cases: load, observe, plan, show, confirm, apply, record.
//!
//! Enters: an invocation and somebody to talk to. Leaves: what was reached. Never prints, never exits.

mod access;
mod connect;
mod doors;
mod error;
mod journal;
mod kept;
mod kubeconfig;
mod local;
mod prepare;
mod reach;
mod remove;
mod saved;
mod status;
mod talk;
mod up;
mod verbs;

pub use error::OpsError;
pub use local::Invocation;
pub use local::Local;
pub use prepare::now;
pub use reach::Reached;
pub use remove::RemoveOptions;
pub use remove::remove;
pub use status::HostStatus;
pub use status::Overall;
pub use status::Status;
pub use status::status;
pub use talk::Talk;
pub use up::UpOptions;
pub use up::up;
pub use verbs::Destination;
pub use verbs::LostIdentity;
pub use verbs::Shown;
pub use verbs::history;
pub use verbs::plan;
pub use verbs::recover;
pub use verbs::trust;
pub use verbs::validate;
pub use verbs::write_kubeconfig;
