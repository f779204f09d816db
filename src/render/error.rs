//! Why a target cannot be made from this cluster.yml, these secrets and this release.

use std::fmt;

use crate::model::HostName;
use crate::render::objects::ObjectsError;

/// Every reason at once. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderErrors(pub Vec<RenderError>);

impl std::error::Error for RenderErrors {}

impl fmt::Display for RenderErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A setting of the file is weaker than the hardened one and nothing allows it.
    #[error(
        "{place}: {found} weakens a hardened setting ({rule}); to allow it, write\nbastide:\n  hardening:\n    allow:\n      - setting: {setting}\n        reason: \"say why\""
    )]
    Weakens {
        /// Where it stands: `services.kube-api.extra_args.profiling`.
        place: String,
        /// What it says: `profiling=true`.
        found: String,
        /// What should hold and who says so.
        rule: String,
        /// The name for `bastide.hardening.allow`.
        setting: String,
    },
    /// A flag or field that names something bastide renders or decides by itself.
    #[error("{place}: bastide sets this itself; {instead}")]
    Owned {
        /// Where it stands.
        place: String,
        /// What to write in its place.
        instead: String,
    },
    /// `bastide.hardening.allow` names nothing that is hardened.
    #[error(
        "bastide.hardening.allow: {0:?} is not the name of a hardened setting that this file relaxes; remove the entry or correct its name"
    )]
    IdleAllowance(String),
    /// A value that has no meaning at this place.
    #[error("{place}: {value:?} is not {expected}")]
    Malformed {
        /// Where it stands.
        place: String,
        /// What was given.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// A setting that this combination of settings cannot have.
    #[error("{place}: {why}")]
    Impossible {
        /// Where it stands.
        place: String,
        /// Why not, and what to do.
        why: String,
    },
    /// The release lacks an image.
    #[error("the release has no image for {0}; take a complete bundle")]
    MissingImage(String),
    /// The release lacks a program.
    #[error("the release has no program {program:?} in its package {package:?}; take a complete bundle")]
    MissingProgram {
        /// Package.
        package: String,
        /// File within it.
        program: String,
    },
    /// There is no bastide that the hosts could run.
    #[error(
        "{place}: {what}, and this bastide is none for {architecture} with Linux; put one into the bundle as package \"bastide\", or \
         write\n{off}"
    )]
    NoOwnProgram {
        /// Of the bundle.
        architecture: String,
        /// What asks for it.
        place: &'static str,
        /// What for.
        what: &'static str,
        /// The lines that ask for it no more.
        off: &'static str,
    },
    /// The secrets lack a leaf of the table.
    #[error("the secrets hold no certificate {leaf} for {host}")]
    MissingLeaf {
        /// Row of the table.
        leaf: String,
        /// Whose.
        host: HostName,
    },
    /// The secrets lack something that belongs to the whole cluster.
    #[error("the secrets hold no {0}")]
    MissingSecret(String),
    /// A template cannot be rendered: a fault of bastide's.
    #[error("template {template} cannot be rendered: {why} (this is a fault of bastide)")]
    Template {
        /// File under `templates/`.
        template: String,
        /// The engine's words.
        why: String,
    },
    /// A rendered file does not read back as what was meant: a fault of bastide's.
    #[error("template {template} does not read back as what was meant: {why} (this is a fault of bastide)")]
    ReadBack {
        /// File under `templates/`.
        template: String,
        /// What differs.
        why: String,
    },
    /// A cluster object cannot be made.
    #[error(transparent)]
    Object(ObjectsError),
}
