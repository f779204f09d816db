//! What the use cases say and ask. `cli/` implements it for people and pipes; tests implement it with a list.

use crate::host::Progress;
use crate::model::Content;

/// The other side of a run: a person, a pipe, a test.
pub trait Talk: Progress {
    /// A sentence worth reading once.
    fn say(&self, text: &str);
    /// Something to look at before it becomes a fault.
    fn warn(&self, text: &str);
    /// Prepared text of several lines, such as a plan, shown as it is.
    fn show(&self, text: &str);
    /// A yes or no. Where nobody can be asked, `None`.
    fn confirm(&self, question: &str) -> Option<bool>;
    /// A line typed by a person, such as the cluster's name. Where nobody can be asked, `None`.
    fn ask(&self, question: &str) -> Option<String>;
    /// A secret typed by a person without an echo; asked twice where `twice` says so. Where nobody can be asked, `None`.
    fn ask_secret(&self, question: &str, twice: bool) -> Option<Content>;
}
