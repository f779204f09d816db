//! The run's journal, kept in the state folder: written as a run goes, read by the next.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use crate::apply::Entry;
use crate::apply::Event;
use crate::apply::Journal;
use crate::apply::JournalError;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::model::RevisionState;
use crate::ops::prepare;
use crate::plan::Unfinished;
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

/// What the runs since the last wholly reached revision began and did not end.
pub(super) fn unfinished(history: &[Revision], lines: &[JournalLine]) -> Unfinished {
    let reached = history.iter().rev().find(|revision| revision.state == RevisionState::Reached);
    let later = |revision: &RevisionId| reached.is_none_or(|reached| *revision > reached.id);
    let mut unfinished = Unfinished::default();
    // Steps of the stage that is open, by run: where they all ended well, it is the stage's own objects that did not.
    let mut open: BTreeMap<(&str, usize), bool> = BTreeMap::new();
    for line in lines.iter().filter(|line| later(&line.revision)) {
        let stage = (line.run.as_str(), line.stage);
        match (&line.host, line.outcome) {
            (Some(host), Outcome::Started) => {
                unfinished.parts.entry(host.clone()).or_default().extend(&line.components);
            }
            (Some(host), Outcome::Finished) => {
                if let Some(parts) = unfinished.parts.get_mut(host) {
                    parts.retain(|part| !line.components.contains(part));
                }
            }
            (Some(_), Outcome::Failed) => {
                open.insert(stage, true);
            }
            (None, Outcome::Started) => {
                open.entry(stage).or_insert(false);
            }
            (None, Outcome::Finished) => {
                open.remove(&stage);
            }
            (None, Outcome::Failed) => {}
        }
    }
    unfinished.parts.retain(|_, parts: &mut BTreeSet<_>| !parts.is_empty());
    unfinished.objects = open.values().any(|step_failed| !step_failed);
    unfinished
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Outcome;
    use super::unfinished;
    use crate::model::Component;
    use crate::model::Digest;
    use crate::model::HostName;
    use crate::model::KubeVersion;
    use crate::model::Revision;
    use crate::model::RevisionId;
    use crate::model::RevisionState;
    use crate::store::JournalLine;

    fn id(number: u32) -> RevisionId {
        RevisionId { number, nonce: String::new() }
    }

    fn revision(number: u32, state: RevisionState) -> Revision {
        Revision {
            id: id(number),
            parent: None,
            command: "up".to_owned(),
            why: String::new(),
            who: String::new(),
            at: 0,
            kubernetes: KubeVersion { minor: 37, patch: 1 },
            config: Digest::of(b""),
            state,
            barrier: None,
            versions: std::collections::BTreeMap::new(),
            returns_to: None,
            ended: None,
            joins: None,
        }
    }

    fn line(
        revision: u32,
        stage: usize,
        host: Option<&str>,
        components: &[Component],
        outcome: Outcome,
    ) -> JournalLine {
        JournalLine {
            run: format!("run of {revision}"),
            revision: id(revision),
            time: 0,
            stage,
            host: host.map(|host| HostName::new(host).unwrap()),
            components: components.iter().copied().collect(),
            outcome,
        }
    }

    #[test]
    fn what_was_begun_since_the_last_reached_revision_and_not_ended_is_unfinished() {
        use Component::{ApiServer, Etcd};
        use Outcome::{Failed, Finished, Started};
        let history = [revision(1, RevisionState::Reached), revision(2, RevisionState::Failed)];
        let lines = vec![
            line(1, 1, Some("h9"), &[Etcd], Started),
            line(2, 1, None, &[], Started),
            line(2, 1, Some("h1"), &[Etcd], Started),
            line(2, 1, Some("h1"), &[Etcd], Finished),
            line(2, 1, None, &[], Finished),
            line(2, 2, None, &[], Started),
            line(2, 2, Some("h1"), &[ApiServer], Started),
            line(2, 2, Some("h1"), &[ApiServer], Failed),
            line(2, 2, None, &[], Failed),
        ];
        let open = unfinished(&history, &lines);
        assert_eq!(open.parts, [(HostName::new("h1").unwrap(), [ApiServer].into())].into());
        assert!(!open.objects, "the stage stopped at a host");
        // The next run saw it well, and then its objects did not roll out.
        let mut more = lines;
        more.extend([
            line(3, 1, Some("h1"), &[ApiServer], Started),
            line(3, 1, Some("h1"), &[ApiServer], Finished),
            line(3, 2, None, &[], Started),
            line(3, 2, None, &[], Failed),
        ]);
        let open = unfinished(&history, &more);
        assert!(open.parts.is_empty() && open.objects);
        let reached = [revision(3, RevisionState::Reached)];
        assert_eq!(unfinished(&reached, &more), crate::plan::Unfinished::default());
    }
}
