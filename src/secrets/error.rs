//! What can go wrong with keys and certificates.

use crate::secrets::AuthorityName;
use crate::secrets::LeafId;

/// Why no secrets came out. Never holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// The source of randomness gave nothing.
    #[error("the system gives no random bytes")]
    Entropy,
    /// The kept secrets lack an authority. A new one would be a new PKI, hence never made silently.
    #[error("the kept secrets lack the {0} authority")]
    AuthorityMissing(AuthorityName),
    /// An authority's time is over; no leaf from it would be accepted.
    #[error("the {0} authority has expired")]
    AuthorityExpired(AuthorityName),
    /// An authority's certificate or key cannot be read.
    #[error("the {0} authority is unreadable")]
    AuthorityUnreadable(AuthorityName),
    /// An authority's key is nowhere any more; another one has to take its place.
    #[error(
        "the key of the {0} authority is lost, so nothing can be issued from it; `bastide state recover --without-identity` puts \
         another authority in its place"
    )]
    AuthorityLost(AuthorityName),
    /// An authority's key is elsewhere, on purpose.
    #[error("the {name} authority is an external one, from which bastide issues nothing; nothing was changed. It would have to sign\n{}", wanted.join("\n"))]
    AuthorityExternal {
        /// Which.
        name: AuthorityName,
        /// What it would have to sign, and why.
        wanted: Vec<String>,
    },
    /// Certificates that were brought along and are not what they have to be.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Misfits(Vec<crate::secrets::Misfit>),
    /// A certificate could not be made.
    #[error("the certificate {leaf} cannot be issued: {reason}")]
    Issue {
        /// Which.
        leaf: String,
        /// What is wrong with its inputs.
        reason: String,
    },
    /// A name that a person's certificate must not carry.
    #[error("{name:?} cannot be the name in an operator's certificate: {reason}")]
    OperatorName {
        /// What was asked for.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// An operator's certificate that would live too long.
    #[error("an operator's certificate lasts at most {most_days} days, not {asked_days}")]
    OperatorLifetime {
        /// What was asked for.
        asked_days: u64,
        /// The bound.
        most_days: u64,
    },
    /// A new key could not be made.
    #[error("no key could be made")]
    Key,
    /// The sealed document's text is not what this program writes.
    #[error("the kept secrets are unreadable: {0}")]
    Unreadable(&'static str),
    /// Written by a newer program.
    #[error("the kept secrets have layout {0}, this bastide reads up to {newest}", newest = crate::secrets::form::VERSION)]
    TooNew(u32),
    /// A leaf that should be there is not.
    #[error("the secrets lack {}", .0.describe())]
    LeafMissing(LeafId),
}
