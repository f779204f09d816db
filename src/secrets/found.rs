//! Keys and certificates as they lie on hosts, read back into what they were written from: for a cluster whose kept secrets
//! nobody can open any more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::model::Content;
use crate::secrets::AuthoritySet;
use crate::secrets::EncryptionKey;
use crate::secrets::EncryptionProvider;
use crate::secrets::Leaf;
use crate::secrets::ServiceAccountKeys;
use crate::secrets::inspect;
use crate::secrets::inspect::Seen;
use crate::secrets::key;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// Shorter words of base64 are names, not keys.
const SHORTEST: usize = 64;

/// What stands in some files: as PEM, or in base64 as kubeconfigs have it.
#[derive(Debug, Clone, Default)]
pub struct Found {
    certificates: Vec<String>,
    keys: Vec<Content>,
    public: Vec<String>,
}

impl Found {
    /// Reads all of these files together.
    pub fn read<'a>(files: impl IntoIterator<Item = &'a Content>) -> Self {
        let mut found = Self::default();
        for text in files.into_iter().filter_map(Content::expose_text) {
            if text.contains(BEGIN) {
                found.blocks(text);
                continue;
            }
            let word = |char: char| !(char.is_ascii_alphanumeric() || "+/=".contains(char));
            for word in text.split(word).filter(|word| word.len() >= SHORTEST) {
                let Ok(bytes) = STANDARD.decode(word).map(Zeroizing::new) else { continue };
                if let Ok(text) = std::str::from_utf8(&bytes) {
                    found.blocks(text);
                }
            }
        }
        found
    }

    fn blocks(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find(BEGIN) {
            rest = &rest[at..];
            let label = rest[BEGIN.len()..].split("-----").next().unwrap_or_default();
            let last = format!("{END}{label}-----");
            let Some(end) = rest.find(&last) else { return };
            let (block, after) = rest.split_at(end + last.len());
            match label {
                "CERTIFICATE" => self.certificates.push(format!("{block}\n")),
                "PUBLIC KEY" => self.public.push(format!("{block}\n")),
                label if label.ends_with("PRIVATE KEY") => self.keys.push(Content::new(format!("{block}\n"))),
                _ => {}
            }
            rest = after;
        }
    }

    /// The first key, and the certificate that belongs to it, wherever it stands.
    pub fn leaf(&self) -> Option<Leaf> {
        let key = self.keys.first()?;
        let public = rcgen::PublicKeyData::subject_public_key_info(&key::read(key)?);
        let mut certificates = self.certificates.iter();
        let (certificate, seen) = certificates
            .find_map(|pem| Seen::read(pem).filter(|seen| seen.public_key == public).map(|seen| (pem, seen)))?;
        Some(Leaf { certificate: certificate.clone(), key: key.clone(), not_after: seen.not_after })
    }

    /// The authority with this pair, and whoever else `trust` accepts.
    pub fn authority(&self, trust: &Self) -> Option<AuthoritySet> {
        let own = self.leaf()?;
        trust.set(own.certificate, own.key)
    }

    /// The authority that signed `leaf`, among all that these files accept. Its key is lost.
    pub fn lost_authority(&self, leaf: &Leaf) -> Option<AuthoritySet> {
        let signed = |pem: &&String| inspect::signed_by_any(&leaf.certificate, std::iter::once(*pem));
        let certificate = self.certificates.iter().find(signed)?.clone();
        self.set(certificate, Content::default())
    }

    fn set(&self, certificate: String, key: Content) -> Option<AuthoritySet> {
        if !self.certificates.contains(&certificate) {
            return None;
        }
        let also_accepted = self.certificates.iter().filter(|pem| **pem != certificate).cloned().collect();
        Some(AuthoritySet { certificate, key, also_accepted, other: None, external: false })
    }

    /// The first key signs; all public keys verify, its own first.
    pub fn service_account(&self) -> Option<ServiceAccountKeys> {
        let signing = self.keys.first()?;
        let own = format!("{}\n", key::read(signing)?.public_key_pem().trim_end());
        if !self.public.contains(&own) {
            return None;
        }
        let others = self.public.iter().filter(|pem| **pem != own).cloned();
        let verifying = std::iter::once(own.clone()).chain(others).collect();
        Some(ServiceAccountKeys { signing: signing.clone(), verifying, next: None })
    }
}

#[derive(Deserialize)]
struct Configuration {
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
struct Resources {
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Provider {
    Aescbc(Keys),
    Secretbox(Keys),
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    secret: String,
}

/// The keys of an `EncryptionConfiguration` that bastide wrote, in its order: the first writes. None where it is not of its making.
pub fn encryption_keys(configuration: &Content) -> Option<Vec<EncryptionKey>> {
    let read: Configuration = serde_saphyr::from_str(configuration.expose_text()?).ok()?;
    let [resources] = <[Resources; 1]>::try_from(read.resources).ok()?;
    let mut keys = Vec::new();
    for provider in resources.providers {
        let (provider, named) = match provider {
            Provider::Aescbc(keys) => (EncryptionProvider::Aescbc, keys.keys),
            Provider::Secretbox(keys) => (EncryptionProvider::Secretbox, keys.keys),
        };
        for Named { name, secret } in named {
            let secret = Zeroizing::new(secret);
            let key = Content::new(STANDARD.decode(secret.as_bytes()).ok()?);
            keys.push(EncryptionKey { name, provider: provider.as_str().to_owned(), key });
        }
    }
    (!keys.is_empty()).then_some(keys)
}

/// A key to stand in the kept secrets where the file brings an encryption configuration of its own: nothing is encrypted with it.
pub fn spare_encryption_key(
    entropy: &mut dyn crate::secrets::Entropy,
) -> Result<EncryptionKey, crate::secrets::SecretsError> {
    crate::secrets::encryption::first(None, entropy)
}
