//! Where a run stood: one line per step begun and ended, durable before the next thing happens.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Component;
use crate::model::HostName;
use crate::model::RevisionId;
use crate::store::StoreError;
use crate::store::disk::Disk;

/// One line. Every field is a name, a number or a choice, so that no secret can get in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// The run's id.
    pub run: String,
    /// Towards which revision.
    pub revision: RevisionId,
    /// Seconds since 1970.
    pub time: i64,
    /// Number of the plan's stage, from 1; 0 is the run as a whole.
    pub stage: usize,
    /// On which host; none for the cluster's objects.
    pub host: Option<HostName>,
    /// What is touched.
    pub components: BTreeSet<Component>,
    /// What happened.
    pub outcome: Outcome,
}

/// What a journal line reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// About to be done.
    Started,
    /// Done, and its gates have passed.
    Finished,
    /// Ended with an error, or a gate did not open.
    Failed,
}

/// The journal of a state folder. Appending needs no other lock than the run's own.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    disk: Disk,
}

impl Journal {
    /// The journal in `folder`, which need not exist yet.
    pub fn at(folder: &Path) -> Self {
        Self { path: folder.join("journal.jsonl"), disk: Disk }
    }

    /// Adds a line, durably.
    pub fn append(&self, line: &JournalLine) -> Result<(), StoreError> {
        let text = serde_json::to_string(line).map_err(|_| StoreError::Crypto("writing a journal line"))?;
        self.disk.append(&self.path, &text)
    }

    /// The file as it is; empty where there is none.
    pub(crate) fn text(&self) -> Result<String, StoreError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(StoreError::io(&self.path, "reading", &error)),
        }
    }

    /// Takes over the lines of an export where there is no journal; one that is here knows more.
    pub(crate) fn found(&self, text: &str) -> Result<(), StoreError> {
        if text.is_empty() || self.path.exists() { Ok(()) } else { self.disk.write(&self.path, text.as_bytes()) }
    }

    /// All lines, oldest first. A line that a dying run left torn is passed over.
    pub fn read(&self) -> Result<Vec<JournalLine>, StoreError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => {
                let lines = bytes.split(|byte| *byte == b'\n');
                Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(StoreError::io(&self.path, "reading", &error)),
        }
    }
}
