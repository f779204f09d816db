//! What the use cases say and ask. `cli/` implements it for people and pipes; tests implement it with a list.

use crate::host::Progress;
use crate::model::Content;

/// The other side of a run: a person, a pipe, a test.
pub trait Talk: Progress {
    /// A sentence worth reading once.
    fn say(&self, text: &str);
    /// Something to look at before it becomes a fault.
    fn warn(&self, text: &str);
    /// Something that takes a while before there is anything to show.
    fn busy(&self, _what: &str) {}
    /// That has come to its end.
    fn idle(&self) {}
    /// Prepared text of several lines, such as a plan, shown as it is.
    fn show(&self, text: &str);
    /// A yes or no. Where nobody can be asked, `None`.
    fn confirm(&self, question: &str) -> Option<bool>;
    /// A line typed by a person, such as the cluster's name. Where nobody can be asked, `None`.
    fn ask(&self, question: &str) -> Option<String>;
    /// The answer to this question was wrong: it is asked anew.
    fn forget(&self, _question: &str) {}
    /// A secret typed by a person without an echo, twice where `twice` says so; one question is asked once a run. Where
    /// nobody can be asked, `None`.
    fn ask_secret(&self, question: &str, twice: bool) -> Option<Content>;
}
