//! What an external authority signs: requests for it, and the files that come back.
//!
//! Files have RKE's names where RKE has the same certificate: `NAME-csr.pem`, `NAME.pem`, `NAME-key.pem`.

mod bring;
mod judge;
mod names;
mod request;

use std::collections::BTreeMap;
use std::fmt;

use crate::model::Content;
use crate::secrets::LeafId;

pub use bring::Brought;
pub use bring::bring;
pub use bring::bring_again;
pub use bring::bring_authorities;
pub use request::Request;
pub use request::requests;

/// A folder with certificates.
#[derive(Debug, Clone, Default)]
pub struct CustomFiles {
    /// Every `*.pem` in it, by name.
    pub files: BTreeMap<String, Content>,
    /// Keys that bastide keeps for the requests it wrote, by the certificates' names without `.pem`.
    pub keys: BTreeMap<String, Content>,
}

impl CustomFiles {
    fn text(&self, name: &str) -> Option<&str> {
        self.files.get(name)?.expose_text()
    }
}

/// Something that is wrong with a folder of certificates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Misfit {
    /// The file's name.
    pub file: String,
    /// What of it; empty for the file itself.
    pub field: &'static str,
    /// What is wrong with that, and what it should be.
    pub problem: String,
}

impl Misfit {
    /// Of a certificate that was good when it was verified.
    pub(super) fn outlived(id: &LeafId, what: &str) -> Self {
        let problem = format!(
            "{what} since the certificates were verified; go back with `bastide rollback`, and begin anew with others"
        );
        Self::new(&names::certificate(&names::leaf(id)), "", problem)
    }

    fn new(file: &str, field: &'static str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), field, problem: problem.into() }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, field, problem } = self;
        if field.is_empty() { write!(f, "{file}: {problem}") } else { write!(f, "{file}: {field}: {problem}") }
    }
}
