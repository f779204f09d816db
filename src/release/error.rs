use std::path::PathBuf;

/// A bundle that can't be used. Nothing was read from it but its description and the sizes of its files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The folder or its `bundle.json` can't be read.
    #[error("{path}: {reason}", path = path.display())]
    Unreadable {
        /// What was opened.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// `bundle.json` is not what it should be.
    #[error("{path}:{line}:{column}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What the parser said.
        reason: String,
    },
    /// Written for another generation of this program.
    #[error("{path}: a bundle of schema {found}, this program reads schema {supported}", path = path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What is read.
        supported: u64,
    },
    /// Everything that is wrong with its contents.
    #[error("{path}: the bundle is not complete: {problems}", path = path.display(), problems = list(flaws))]
    Contents {
        /// The folder.
        path: PathBuf,
        /// At least one.
        flaws: Vec<Flaw>,
    },
}

/// One thing that is wrong with a bundle's contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A package that every host needs is not described.
    #[error("package {0} is missing")]
    NoPackage(String),
    /// A file that its package must hold is not described.
    #[error("package {package} has no file {file}")]
    NoFile {
        /// Which package.
        package: String,
        /// Which file.
        file: String,
    },
    /// An image that a cluster needs is not described.
    #[error("image {0} is missing")]
    NoImage(String),
    /// A path that is absolute, climbs, or leads out of the folder through a link.
    #[error("{item}: path {path:?} leaves the bundle's folder")]
    Leaves {
        /// Package and file, or image.
        item: String,
        /// As written.
        path: String,
    },
    /// A described file that is not there or can't be opened.
    #[error("{item}: {path}: {reason}")]
    Unreadable {
        /// Package and file, or image.
        item: String,
        /// As written.
        path: String,
        /// The system's answer.
        reason: String,
    },
    /// A file whose size is not the described one.
    #[error("{item}: {path} has {found} bytes, bundle.json says {described}")]
    Size {
        /// Package and file, or image.
        item: String,
        /// As written.
        path: String,
        /// In bytes.
        found: u64,
        /// In bytes.
        described: u64,
    },
}

fn list(flaws: &[Flaw]) -> String {
    flaws.iter().map(|flaw| format!("\n  {flaw}")).collect()
}
