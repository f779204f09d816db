//! Kubernetes versions.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

/// A version text that does not name a Kubernetes release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Kubernetes version such as v1.37.1")]
pub struct VersionError(pub String);

/// A release of Kubernetes 1.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubeVersion {
    /// The `37` of v1.37.1.
    pub minor: u16,
    /// The `1` of v1.37.1.
    pub patch: u16,
}

impl FromStr for KubeVersion {
    type Err = VersionError;
    /// Reads `v1.37.1`, `1.37.1`, and RKE's `v1.37.1-rancher1-1`.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.to_owned());
        let bare = text.strip_prefix('v').unwrap_or(text);
        let bare = bare.split_once("-rancher").map_or(bare, |(version, _)| version);
        let mut parts = bare.split('.');
        let (Some("1"), Some(minor), Some(patch), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self { minor: minor.parse().map_err(|_| wrong())?, patch: patch.parse().map_err(|_| wrong())? })
    }
}

impl TryFrom<String> for KubeVersion {
    type Error = VersionError;
    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<KubeVersion> for String {
    fn from(version: KubeVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1.{}.{}", self.minor, self.patch)
    }
}
