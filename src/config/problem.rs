//! What is wrong with a file, where, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::Diagnostic;
use miette::LabeledSpan;
use miette::NamedSource;
use miette::SourceCode;

/// Whether a problem stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// Something the file says has no effect or an effect that surprises.
    Warning,
}

/// One thing that is wrong or surprising in a file. As a [`miette::Diagnostic`] it shows the line it stands in.
#[derive(Clone)]
pub struct Problem {
    /// Whether it stops the program.
    pub severity: Severity,
    /// Field, such as `nodes[2].address`; empty where it is about the whole file.
    pub path: String,
    /// One sentence, lower case.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// From 1; 0 where the problem is not in the file (a command-line flag).
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What the snippet points at; none where there is no snippet.
    pub(super) span: Option<Range<usize>>,
    pub(super) source: Arc<NamedSource<String>>,
}

impl Problem {
    /// The file it stands in, as it was named by the caller.
    pub fn file(&self) -> &str {
        self.source.name()
    }
}

impl PartialEq for Problem {
    fn eq(&self, other: &Self) -> bool {
        (self.severity, &self.path, &self.message, &self.hint, self.line, self.column)
            == (other.severity, &other.path, &other.message, &other.hint, other.line, other.column)
    }
}

impl fmt::Debug for Problem {
    /// Leaves the text of the file out: it may be long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}:{}:{} {self}", self.severity, self.file(), self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.span.is_none() && self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.span.as_ref().map(|_| &*self.source as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, span))))
    }
}

/// Everything that is wrong with a file, in the order of its lines, warnings included.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigErrors {
    /// At least one is an error.
    pub problems: Vec<Problem>,
    /// As the caller named it.
    pub file_name: String,
}

impl ConfigErrors {
    /// How many of the problems are errors.
    pub fn error_count(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.error_count();
        write!(f, "{} has {errors} error{}", self.file_name, if errors == 1 { "" } else { "s" })
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}
