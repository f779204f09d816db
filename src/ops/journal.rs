//! The run's journal, kept in the state folder.

use std::path::Path;

use crate::apply::Entry;
use crate::apply::Event;
use crate::apply::Journal;
use crate::apply::JournalError;
use crate::model::RevisionId;
use crate::ops::prepare;
use crate::store;
use crate::store::JournalLine;
use crate::store::Outcome;

/// Adds the run's and the revision's names and the time to each line.
pub(super) struct RunJournal {
    journal: store::Journal,
    run: String,
    revision: RevisionId,
}

impl RunJournal {
    /// The journal of `folder`, for one run.
    pub(super) fn new(folder: &Path, run: &str, revision: &RevisionId) -> Self {
        Self { journal: store::Journal::at(folder), run: run.to_owned(), revision: revision.clone() }
    }
}

impl Journal for RunJournal {
    fn write(&self, entry: &Entry) -> Result<(), JournalError> {
        let line = JournalLine {
            run: self.run.clone(),
            revision: self.revision.clone(),
            time: prepare::now(),
            stage: entry.stage,
            host: entry.host.clone(),
            components: entry.components.clone(),
            outcome: match entry.event {
                Event::Started => Outcome::Started,
                Event::Finished => Outcome::Finished,
                Event::Failed | Event::LeftOut => Outcome::Failed,
            },
        };
        self.journal.append(&line).map_err(|error| JournalError(error.to_string()))
    }
}
