//! What a run writes down as it goes. Contains no secret by construction: names of stages, hosts and components only.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Component;
use crate::model::HostName;

/// Where a run's lines go.
pub trait Journal: Send + Sync {
    /// Writes one line, durably before it returns.
    fn write(&self, entry: &Entry) -> Result<(), JournalError>;
}

/// The journal could not be written; the run stops, since nobody could tell afterwards where it stood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal: {0}")]
pub struct JournalError(pub String);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Number of the stage, from 1.
    pub stage: usize,
    /// Its title.
    pub title: String,
    /// The step's host; absent for the stage itself.
    pub host: Option<HostName>,
    /// What the step touches.
    pub components: BTreeSet<Component>,
}

/// What happened to a step or a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// It begins.
    Started,
    /// It is done and its gates are open.
    Finished,
    /// It ended with an error; the error itself is in the report, because it may quote a component's log.
    Failed,
    /// The host does not answer and the run goes on without it.
    LeftOut,
}
