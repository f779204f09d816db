//! Keys that others hold, a hardware key say: age's plugins (`age-plugin-NAME` in PATH), asked in processes of their own over age's
//! plugin protocol (<https://c2sp.org/age-plugin>). Looked for only when something is sealed, or opened with one.

use std::str::FromStr as _;
use std::sync::Arc;

use age::plugin::IdentityPluginV1;
use age::plugin::RecipientPluginV1;
use age::secrecy::SecretString;

use crate::model::Content;
use crate::store::StoreError;

/// Whom a plugin may ask while it opens something: for a PIN, or to have a key plugged in.
pub trait PluginTalk: Send + Sync {
    /// Shows a message.
    fn show(&self, message: &str);
    /// Asks for a yes; none means that there is nobody to ask.
    fn confirm(&self, question: &str) -> Option<bool>;
    /// Asks for something that may be seen.
    fn text(&self, question: &str) -> Option<String>;
    /// Asks for something secret.
    fn secret(&self, question: &str) -> Option<Content>;
}

#[derive(Clone)]
struct Callbacks(Option<Arc<dyn PluginTalk>>);

impl age::Callbacks for Callbacks {
    fn display_message(&self, message: &str) {
        if let Some(talk) = &self.0 {
            talk.show(message);
        }
    }
    fn confirm(&self, message: &str, _yes: &str, _no: Option<&str>) -> Option<bool> {
        self.0.as_ref()?.confirm(message)
    }
    fn request_public_string(&self, description: &str) -> Option<String> {
        self.0.as_ref()?.text(description)
    }
    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        let given = self.0.as_ref()?.secret(description)?;
        Some(SecretString::from(given.expose_text()?.to_owned()))
    }
}

/// A recipient that a plugin seals to; none where `text` is no such.
pub(crate) fn recipient(text: &str) -> Option<age::plugin::Recipient> {
    age::plugin::Recipient::from_str(text).ok()
}

/// Seals to `recipient`. Nobody is asked for anything: sealing needs a public key alone.
pub(crate) fn sealer(recipient: &age::plugin::Recipient) -> Result<Box<dyn age::Recipient>, StoreError> {
    let plugin = RecipientPluginV1::new(recipient.plugin(), std::slice::from_ref(recipient), &[], Callbacks(None));
    Ok(Box::new(plugin.map_err(sealing)?))
}

/// A key that a plugin holds, where a line of `text` names one (`AGE-PLUGIN-…`).
pub(crate) fn key(text: &str, talk: Option<Arc<dyn PluginTalk>>) -> Option<Result<Box<dyn age::Identity>, StoreError>> {
    let line = text.lines().map(str::trim).find(|line| line.starts_with("AGE-PLUGIN-"))?;
    let key = age::plugin::Identity::from_str(line).ok()?;
    let plugin = IdentityPluginV1::new(key.plugin(), std::slice::from_ref(&key), Callbacks(talk));
    Some(plugin.map(|plugin| Box::new(plugin) as Box<dyn age::Identity>).map_err(|error| opening(&error)))
}

/// Why nothing was sealed, in words of its own where a plugin is the cause.
pub(crate) fn sealing(error: age::EncryptError) -> StoreError {
    match error {
        age::EncryptError::MissingPlugin { binary_name } => StoreError::PluginMissing { program: binary_name },
        age::EncryptError::IncompatibleRecipients { .. } => StoreError::Plugin {
            reason: "one of bastide.state.recipients may not stand beside others, and the identity always does"
                .to_owned(),
        },
        error @ (age::EncryptError::Plugin(_) | age::EncryptError::Io(_)) => {
            StoreError::Plugin { reason: error.to_string() }
        }
        _ => StoreError::Crypto("sealing"),
    }
}

/// Why a plugin's key opened nothing.
pub(crate) fn opening(error: &age::DecryptError) -> StoreError {
    match error {
        age::DecryptError::MissingPlugin { binary_name } => StoreError::PluginMissing { program: binary_name.clone() },
        error => StoreError::Plugin { reason: error.to_string() },
    }
}
