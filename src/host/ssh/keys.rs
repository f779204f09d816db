//! Private keys and certificates from where they lie.

use std::fs;
use std::sync::Arc;

use russh::keys;
use russh::keys::Certificate;
use russh::keys::HashAlg;
use russh::keys::PrivateKey;
use russh::keys::decode_secret_key;

use super::resources::SshResources;
use super::resources::Unlocked;
use crate::model::Content;
use crate::model::Digest;
use crate::model::KeySource;

/// A person may mistype.
const PASSPHRASES: usize = 3;

/// A key to log in with.
pub(super) struct Identity {
    /// Path or fingerprint, for messages.
    pub(super) name: String,
    /// The key.
    pub(super) key: Arc<PrivateKey>,
    /// An authority's word for it.
    pub(super) certificate: Option<Certificate>,
}

/// Reads a key source that is not the agent; asks for the passphrase of an encrypted key, once a run. An error says what is wrong
/// with which key.
pub(super) async fn identity(source: &KeySource, shared: &Arc<SshResources>) -> Option<Result<Identity, String>> {
    let (name, text, certificate) = match source {
        KeySource::Agent => return None,
        KeySource::Inline { key, certificate } => {
            (format!("ssh_key ({})", short(key)), Ok(key.clone()), certificate.clone().map(Ok))
        }
        KeySource::Path { key, certificate } => {
            let certificate = certificate.as_ref().map(|path| {
                fs::read_to_string(path).map_err(|error| format!("certificate {}: {error}", path.display()))
            });
            let text = fs::read(key).map(Content::new).map_err(|error| error.to_string());
            (key.display().to_string(), text, certificate)
        }
    };
    Some(assemble(name.clone(), text, certificate, shared).await.map_err(|reason| format!("{name}: {reason}")))
}

async fn assemble(
    name: String,
    text: Result<Content, String>,
    certificate: Option<Result<String, String>>,
    shared: &Arc<SshResources>,
) -> Result<Identity, String> {
    let text = text?;
    // One slot a key, so that its passphrase is asked for once however many hosts need it.
    let slot = shared.key(&Digest::of(text.expose()).to_string());
    let key = slot.get_or_init(|| unlock(name.clone(), text.clone(), Arc::clone(shared))).await.clone()?;
    let certificate = match certificate {
        None => None,
        Some(line) => Some(
            Certificate::from_openssh(line?.trim())
                .map_err(|error| format!("its certificate cannot be read: {error}"))?,
        ),
    };
    if let Some(certificate) = &certificate
        && certificate.public_key() != key.public_key().key_data()
    {
        return Err("its certificate is for another key".to_owned());
    }
    Ok(Identity { name, key, certificate })
}

async fn unlock(name: String, text: Content, shared: Arc<SshResources>) -> Unlocked {
    let ask = Arc::clone(&shared.ask);
    // Deriving a key from a passphrase takes a while, and a person longer.
    tokio::task::spawn_blocking(move || {
        let text = text.expose_text().ok_or("not a private key: no text")?;
        match decode_secret_key(text, None) {
            Ok(key) if !key.is_encrypted() => return Ok(Arc::new(key)),
            Ok(_) => {}
            Err(error) if asks_passphrase(&error, text) => {}
            Err(error) => return Err(format!("not a private key that can be read: {error}")),
        }
        for attempt in 0..PASSPHRASES {
            let passphrase = ask.key_passphrase(&name, attempt > 0);
            let passphrase = passphrase.ok_or("encrypted, and there is nobody to ask for its passphrase")?;
            let words = passphrase.expose_text().ok_or("its passphrase is not text")?;
            if let Ok(key) = decode_secret_key(text, Some(words)) {
                return Ok(Arc::new(key));
            }
        }
        Err("its passphrase is another one".to_owned())
    })
    .await
    .unwrap_or_else(|error| Err(error.to_string()))
}

/// The formats differ in how they say that a passphrase is missing.
fn asks_passphrase(error: &keys::Error, text: &str) -> bool {
    matches!(error, keys::Error::KeyIsEncrypted)
        || text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Names an inline key without showing it.
fn short(key: &Content) -> String {
    match key.expose_text().and_then(|text| decode_secret_key(text, None).ok()) {
        Some(key) => key.public_key().fingerprint(HashAlg::Sha256).to_string(),
        None => "encrypted".to_owned(),
    }
}
