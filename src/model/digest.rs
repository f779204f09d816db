//! Content by its SHA-256.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;

use crate::model::Content;
use crate::model::NameError;

/// A SHA-256 digest. Shown and stored as 64 hexadecimal digits, without a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = NameError;
    /// Reads 64 hexadecimal digits, with or without the prefix `sha256:`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError { value: text.to_owned(), expected: "a SHA-256 digest of 64 hexadecimal digits" };
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Rendered contents by digest. May hold secrets: sealed before it touches a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blobs(pub BTreeMap<Digest, Content>);

impl Blobs {
    /// Keeps `content` and returns its digest.
    pub fn insert(&mut self, content: Content) -> Digest {
        let digest = Digest::of(content.expose());
        self.0.entry(digest).or_insert(content);
        digest
    }
    /// The content with this digest.
    pub fn get(&self, digest: &Digest) -> Option<&Content> {
        self.0.get(digest)
    }
}
