//! cluster.yml: what was written, and what is meant.
//!
//! Enters: the text of a file, the supported releases, the home directory. Leaves: a [`Cluster`] in which impossible
//! states cannot be written down, or every problem of the file at once. [`parse`] never reads a file, a clock or the environment.

mod api;
mod backup;
mod checks;
mod cluster;
mod dns;
mod encryption;
mod events;
mod field;
mod files;
mod flags;
mod legacy;
mod login;
mod network;
mod nodes;
mod options;
mod problem;
mod read;
mod redact;
mod services;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod upgrade;
mod values;
mod version;

pub use backup::BucketWords;
pub use cluster::*;
pub use files::read_bytes;
pub use files::read_text;
pub use problem::ConfigErrors;
pub use problem::Problem;
pub use problem::Severity;
pub use read::ParseOptions;
pub use read::Parsed;
pub use read::parse;
pub use upgrade::Share;
