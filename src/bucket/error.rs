//! Why a bucket cannot be used. No message holds a key.

use std::time::Duration;

/// What went wrong between here and a bucket. `place` is `s3://bucket/folder at server`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// Neither the file nor the environment has keys, and the machine has no role.
    #[error(
        "{place}: there are no keys for it: write access_key and secret_key beside the bucket, or set AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN); this machine's own role gives none: {reason}"
    )]
    NoKeys {
        /// Where.
        place: String,
        /// Why the machine's role gives none.
        reason: String,
    },
    /// `custom_ca`, or this machine's own.
    #[error("no certificate authority to verify the S3 server with: {reason}")]
    Authorities {
        /// In words.
        reason: String,
    },
    /// Nobody answers.
    #[error("{place}: cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        place: String,
        /// In words.
        reason: String,
    },
    /// Somebody answers who cannot prove to be the server.
    #[error(
        "{place}: the server's certificate is not believed: {reason}; nothing was sent to it (custom_ca names whom to believe)"
    )]
    Untrusted {
        /// Where.
        place: String,
        /// In words.
        reason: String,
    },
    /// Nothing came in time.
    #[error("{place}: {doing}: no answer within {} s", deadline.as_secs())]
    Late {
        /// Where.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The server does not know these keys.
    #[error("{place}: the server does not take the keys ({code}): access_key and secret_key, or the AWS_ variables")]
    Keys {
        /// Where.
        place: String,
        /// The server's word.
        code: String,
    },
    /// The keys may not do that.
    #[error("{place}: {doing}: these keys may not do that (AccessDenied)")]
    Denied {
        /// Where.
        place: String,
        /// What was being done.
        doing: &'static str,
    },
    /// There is none.
    #[error("{place}: there is no such bucket; bastide makes none")]
    NoBucket {
        /// Where.
        place: String,
    },
    /// There is none of that name.
    #[error("{place}: there is no {object}")]
    NoObject {
        /// Where.
        place: String,
        /// Its name.
        object: String,
    },
    /// There is one of that name.
    #[error("{place}: {object} is there already")]
    Exists {
        /// Where.
        place: String,
        /// Its name.
        object: String,
    },
    /// The server has no space left, or gives none.
    #[error("{place}: {doing}: the server is full, or the bucket's quota is reached ({code})")]
    Full {
        /// Where.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// The server's word.
        code: String,
    },
    /// Clocks differ by more than a quarter of an hour.
    #[error("{place}: the clock of this machine and that of the server differ too much; set them right")]
    Clock {
        /// Where.
        place: String,
    },
    /// The bucket is elsewhere.
    #[error("{place}: the bucket is in region {wanted}: write `region: {wanted}`")]
    Region {
        /// Where.
        place: String,
        /// What the server expects.
        wanted: String,
    },
    /// Any other refusal, in the server's words.
    #[error("{place}: {doing}: HTTP {status} {code}: {message}")]
    Refused {
        /// Where.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// HTTP status.
        status: u16,
        /// The server's word.
        code: String,
        /// The server's words.
        message: String,
    },
    /// An answer that cannot be read or believed.
    #[error("{place}: {doing}: {reason}")]
    Strange {
        /// Where.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// In words.
        reason: String,
    },
}

impl BucketError {
    /// Whether the same again may well succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } => true,
            Self::Refused { status, code, .. } => {
                let damaged =
                    ["XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown"];
                *status == 429 || (*status >= 500 && *status != 501) || damaged.contains(&code.as_str())
            }
            _ => false,
        }
    }
}
