//! Keys for encryption at rest: made, put first, given up.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::AtRestProvider;
use crate::model::Content;
use crate::secrets::EncryptionKey;
use crate::secrets::Entropy;
use crate::secrets::SecretsError;
use crate::secrets::random_hex;

/// What encrypts with a key that is kept in a file (Kubernetes page "Encrypting Confidential Data at Rest"). aesgcm is not
/// among them: its keys must change every 200 000 writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncryptionProvider {
    /// `XSalsa20` and Poly1305.
    #[default]
    Secretbox,
    /// AES-CBC.
    Aescbc,
}

impl EncryptionProvider {
    /// As Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secretbox => "secretbox",
            Self::Aescbc => "aescbc",
        }
    }
}

impl fmt::Display for EncryptionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EncryptionProvider {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "secretbox" => Ok(Self::Secretbox),
            "aescbc" => Ok(Self::Aescbc),
            _ => Err("there is no such provider; known are secretbox, aescbc".to_owned()),
        }
    }
}

impl EncryptionKey {
    /// What it is known by, without its bytes.
    pub fn label(&self) -> KeyLabel {
        KeyLabel { provider: self.provider.clone(), name: self.name.clone() }
    }

    /// When it was made for a rotation, seconds since 1970; 0 for the one that a cluster was born with.
    fn made(&self) -> u64 {
        let middle = self.name.strip_prefix("key-").and_then(|rest| rest.split_once('-'));
        middle.and_then(|(seconds, _)| seconds.parse().ok()).unwrap_or_default()
    }
}

/// A key for encryption at rest as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct KeyLabel {
    /// `secretbox`, `aescbc`, `kms` …
    pub provider: String,
    /// Its name in the `EncryptionConfiguration`; empty for `identity`, which has none.
    pub name: String,
}

impl KeyLabel {
    /// What reads and writes in clear: all that there is for a resource that no configuration speaks of.
    pub fn clear() -> Self {
        Self { provider: "identity".to_owned(), name: String::new() }
    }

    /// What every value begins with that it encrypted (k8s.io/apiserver, `encryptionconfig`); none for `identity`.
    pub fn mark(&self) -> Option<String> {
        let version = if self.provider == "kms" { "v2" } else { "v1" };
        (self.provider != "identity").then(|| format!("k8s:enc:{}:{version}:{}:", self.provider, self.name))
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => f.write_str(&self.provider),
            name => write!(f, "{}:{name}", self.provider),
        }
    }
}

/// The key that a cluster is born with: 32 bytes, as both providers take. Where a key service encrypts, it lies ready for the day
/// on which that is given up.
pub(super) fn first(wanted: Option<AtRestProvider>, entropy: &mut dyn Entropy) -> Result<EncryptionKey, SecretsError> {
    let bytes = bytes(entropy)?;
    let name = format!("key-{}", random_hex(entropy, 4)?);
    let provider = match wanted {
        Some(AtRestProvider::Aescbc) => EncryptionProvider::Aescbc,
        Some(AtRestProvider::Secretbox | AtRestProvider::Kms) | None => EncryptionProvider::Secretbox,
    };
    Ok(EncryptionKey { name, provider: provider.as_str().to_owned(), key: bytes })
}

/// A key to come after others. Its name has the time, so that it is known as the newest one wherever it stands.
pub fn next_encryption_key(
    provider: EncryptionProvider,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<EncryptionKey, SecretsError> {
    let bytes = bytes(entropy)?;
    let name = format!("key-{now}-{}", random_hex(entropy, 4)?);
    Ok(EncryptionKey { name, provider: provider.as_str().to_owned(), key: bytes })
}

fn bytes(entropy: &mut dyn Entropy) -> Result<Content, SecretsError> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(bytes.as_mut_slice())?;
    Ok(Content::new(bytes.to_vec()))
}

/// Where among `keys` the newest one stands; none where there is no key.
pub fn newest_encryption_key(keys: &[EncryptionKey]) -> Option<usize> {
    (0..keys.len()).max_by_key(|at| (keys[*at].made(), *at))
}
