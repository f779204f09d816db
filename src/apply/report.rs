//! How a run ended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::apply::JournalError;
use crate::host::HostError;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::ObjectId;

/// What went wrong in a run; each message names the host or the object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A host refused or failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The plan names a host that is not connected.
    #[error("{host}: is not connected")]
    NotConnected {
        /// Where.
        host: HostName,
    },
    /// A component did not become well in time.
    #[error("{gate}: {reason} (waited {} s)", waited.as_secs())]
    Gate {
        /// In words: `h1: kube-apiserver`.
        gate: String,
        /// Which.
        which: Gate,
        /// What it said last.
        reason: String,
        /// Whether it answered at all: then it is unwell, otherwise nobody could be asked.
        answered: bool,
        /// How long it was waited for.
        waited: Duration,
        /// The last lines of the component's own log; empty where there are none.
        last_words: String,
    },
    /// An object of bastide's own could not be written.
    #[error("{id}: {reason}")]
    Object {
        /// Which.
        id: ObjectId,
        /// In words.
        reason: String,
    },
    /// A node's labels or taints could not be written.
    #[error("node {node}: {reason}")]
    Node {
        /// Which.
        node: HostName,
        /// In words.
        reason: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Where a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// It stopped at an error.
    Failed,
    /// The operator stopped it: what ran was finished, nothing new was begun.
    Cancelled,
    /// The majority of the locks is gone: somebody else may be at work.
    LockLost,
}

/// Everything that can be said about a run.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Stages that were finished, with all their gates.
    pub stages_done: usize,
    /// Stages of the plan.
    pub stages: usize,
    /// The stage that was not finished.
    pub stopped_in: Option<String>,
    /// Steps that were finished: number of the stage and host.
    pub steps_done: Vec<(usize, HostName)>,
    /// Errors of all hosts that were at work when it stopped.
    pub errors: Vec<ApplyError>,
    /// Addons that were refused, by name, with the reasons. They do not fail the run.
    pub addons: BTreeMap<String, Vec<String>>,
    /// Workers that stopped answering, with the reason, which names them. The next run completes them.
    pub left_out: BTreeMap<HostName, String>,
    /// The records of the hosts that were written to.
    pub records: BTreeMap<HostName, HostRecord>,
    /// What the time was spent on, in order of the ends.
    pub timings: Vec<Timing>,
}

impl Report {
    /// Of a run of so many stages of which none was begun.
    pub(crate) fn of(stages: usize) -> Self {
        Self {
            outcome: Outcome::Done,
            stages_done: 0,
            stages,
            stopped_in: None,
            steps_done: Vec::new(),
            errors: Vec::new(),
            addons: BTreeMap::new(),
            left_out: BTreeMap::new(),
            records: BTreeMap::new(),
            timings: Vec::new(),
        }
    }

    /// What did not fail the run, one sentence each: addons that were refused, hosts that fell silent.
    pub fn remarks(&self) -> Vec<String> {
        let addons = self
            .addons
            .iter()
            .flat_map(|(addon, reasons)| reasons.iter().map(move |reason| format!("addon {addon}: {reason}")));
        addons.chain(self.left_out.values().cloned()).collect()
    }
}

/// A piece of work and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Title of the stage.
    pub stage: String,
    /// Where; absent for objects and the stage's gates.
    pub host: Option<HostName>,
    /// `write`, `wait for kube-apiserver`, `objects`.
    pub what: String,
    /// How long.
    pub took: Duration,
}
