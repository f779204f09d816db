//! Signed, compressed and sealed bytes.
//!
//! A signature always covers what it is for: `kind` stands before the bytes in the signed message, so that a signed
//! manifest can never be taken for a signed copy.

use std::io::Read as _;
use std::io::Write;
use std::str::FromStr as _;

use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use zeroize::Zeroizing;

use crate::model::Content;
use crate::model::Digest;
use crate::store::Identity;
use crate::store::PluginTalk;
use crate::store::Sealer;
use crate::store::Signs;
use crate::store::StoreError;
use crate::store::plugin;

const MAGIC: &str = "bastide-signed-1";

/// Whom bytes are sealed to beside the identity: `bastide.state.recipients`.
#[derive(Default)]
pub struct Recipients {
    texts: Vec<String>,
    parsed: Vec<Parsed>,
}

enum Parsed {
    /// Sealed to here.
    Own(Box<dyn age::Recipient + Send + Sync>),
    /// Sealed to by a plugin, which is looked for only then: whoever only reads needs none.
    Plugin(age::plugin::Recipient),
}

impl Recipients {
    /// Reads age's x25519 recipients, those of its plugins, and SSH public keys (ed25519, RSA).
    pub fn parse(texts: &[String]) -> Result<Self, StoreError> {
        let parse = |text: &String| -> Result<Parsed, StoreError> {
            if let Ok(recipient) = age::x25519::Recipient::from_str(text.trim()) {
                return Ok(Parsed::Own(Box::new(recipient)));
            }
            if let Some(recipient) = plugin::recipient(text.trim()) {
                return Ok(Parsed::Plugin(recipient));
            }
            match age::ssh::Recipient::from_str(text.trim()) {
                Ok(recipient) => Ok(Parsed::Own(Box::new(recipient))),
                Err(_) => Err(StoreError::Recipient { recipient: text.clone() }),
            }
        };
        Ok(Self { texts: texts.to_vec(), parsed: texts.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// Those to whom no plugin has to seal.
    #[must_use]
    pub(crate) fn without_plugins(self) -> Self {
        let both = self.texts.into_iter().zip(self.parsed);
        let (texts, parsed) = both.filter(|(_, parsed)| matches!(parsed, Parsed::Own(_))).unzip();
        Self { texts, parsed }
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Result<Self, StoreError> {
        Self::parse(&self.texts)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// These and the identity's own: everybody who can open what the identity seals.
    pub fn with(&self, identity: &Identity) -> Result<Self, StoreError> {
        Self::parse(&std::iter::once(identity.recipient()).chain(self.texts.iter().cloned()).collect::<Vec<_>>())
    }

    /// A writer that encrypts to these alone while it is written to, in constant memory. Its `finish` must be called: what
    /// was not finished cannot be opened.
    pub fn sealing<W: Write>(&self, output: W) -> Result<Sealer<W>, StoreError> {
        self.each(None, |all| Sealer::begin(all, output))
    }

    /// To `own`, where there is one, and all of these.
    fn encryptor(&self, own: Option<&dyn age::Recipient>) -> Result<age::Encryptor, StoreError> {
        self.each(own, |all| age::Encryptor::with_recipients(all))
    }

    fn each<T>(
        &self,
        own: Option<&dyn age::Recipient>,
        work: impl FnOnce(&mut dyn Iterator<Item = &dyn age::Recipient>) -> Result<T, age::EncryptError>,
    ) -> Result<T, StoreError> {
        let plugins = self.parsed.iter().filter_map(|one| match one {
            Parsed::Own(_) => None,
            Parsed::Plugin(recipient) => Some(plugin::sealer(recipient)),
        });
        let plugins: Vec<_> = plugins.collect::<Result<_, _>>()?;
        let ours = self.parsed.iter().filter_map(|one| match one {
            Parsed::Own(recipient) => Some(recipient.as_ref() as &dyn age::Recipient),
            Parsed::Plugin(_) => None,
        });
        let mut all = own.into_iter().chain(ours).chain(plugins.iter().map(AsRef::as_ref));
        work(&mut all).map_err(plugin::sealing)
    }

    /// As they were given.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Equal where the same recipients stand in the same order.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.texts.join("\n").as_bytes())
    }
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipients({})", self.texts.len())
    }
}

/// Compresses and encrypts `plain` to the identity and all recipients.
pub(crate) fn seal(plain: &[u8], identity: &Identity, recipients: &Recipients) -> Result<Vec<u8>, StoreError> {
    let failed = || StoreError::Crypto("sealing");
    let encryptor = recipients.encryptor(Some(&identity.opening().to_public()))?;
    let sealed = encryptor.wrap_output(Vec::with_capacity(plain.len() / 2)).map_err(|_| failed())?;
    let mut deflate = DeflateEncoder::new(sealed, Compression::default());
    deflate.write_all(plain).map_err(|_| failed())?;
    deflate.finish().and_then(age::stream::StreamWriter::finish).map_err(|_| failed())
}

/// Why sealed bytes did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Not for this identity.
    Foreign,
    /// Changed or cut.
    Damaged,
}

/// A reader that decrypts while it is read, in constant memory. Each piece was authenticated before it is handed out; that
/// none is missing at the end is known only when the reader has ended without an error.
pub(crate) fn unsealing<R: std::io::BufRead>(
    sealed: R,
    key: &dyn age::Identity,
) -> Result<age::stream::StreamReader<R>, Closed> {
    opened(sealed, key).map_err(|error| closed(&error))
}

fn opened<R: std::io::BufRead>(
    sealed: R,
    key: &dyn age::Identity,
) -> Result<age::stream::StreamReader<R>, age::DecryptError> {
    age::Decryptor::new_buffered(sealed)?.decrypt(std::iter::once(key))
}

fn closed(error: &age::DecryptError) -> Closed {
    match error {
        age::DecryptError::NoMatchingKeys => Closed::Foreign,
        _ => Closed::Damaged,
    }
}

/// Undoes [`seal`]. Nothing is returned before the last byte was authenticated.
pub(crate) fn unseal(sealed: &[u8], key: &dyn age::Identity) -> Result<Zeroizing<Vec<u8>>, Closed> {
    plain(unsealing(sealed, key)?, sealed.len())
}

/// All of it, and what it was before it was compressed; `length` is how much is to be expected.
fn plain(mut reader: impl std::io::Read, length: usize) -> Result<Zeroizing<Vec<u8>>, Closed> {
    let mut packed = Zeroizing::new(Vec::with_capacity(length));
    reader.read_to_end(&mut packed).map_err(|_| Closed::Damaged)?;
    let mut unpacked = Zeroizing::new(Vec::with_capacity(packed.len() * 3));
    DeflateDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).map_err(|_| Closed::Damaged)?;
    Ok(unpacked)
}

/// The same with a key that a plugin may hold; the outer error is the plugin's.
pub(crate) fn unseal_by(
    sealed: &[u8],
    key: &dyn age::Identity,
) -> Result<Result<Zeroizing<Vec<u8>>, Closed>, StoreError> {
    match opened(sealed, key) {
        Ok(reader) => Ok(plain(reader, sealed.len())),
        Err(error @ (age::DecryptError::Plugin(_) | age::DecryptError::MissingPlugin { .. })) => {
            Err(plugin::opening(&error))
        }
        Err(error) => Ok(Err(closed(&error))),
    }
}

/// A private key that opens what is sealed to one of the recipients: age's x25519, OpenSSH's without passphrase, or one that a
/// plugin holds, which may ask for a PIN. None where it is no such.
pub(crate) fn private_key(
    text: &Content,
    talk: Option<std::sync::Arc<dyn PluginTalk>>,
) -> Result<Option<Box<dyn age::Identity>>, StoreError> {
    match text.expose_text().and_then(|text| plugin::key(text, talk)) {
        Some(key) => key.map(Some),
        None => Ok(own_key(text)),
    }
}

fn own_key(text: &Content) -> Option<Box<dyn age::Identity>> {
    let text = text.expose_text()?;
    if let Some(line) = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")) {
        return Some(Box::new(age::x25519::Identity::from_str(line.trim()).ok()?));
    }
    match age::ssh::Identity::from_buffer(text.as_bytes(), None).ok()? {
        age::ssh::Identity::Unencrypted(key) => Some(Box::new(age::ssh::Identity::from(key))),
        _ => None,
    }
}

/// `body` behind one line that carries the signer and the signature. `kind` is a lower-case word that the signature covers as well.
pub fn sign(kind: &str, body: &[u8], key: &dyn Signs) -> Vec<u8> {
    let signature = STANDARD_NO_PAD.encode(key.signature(&message(kind, body)));
    let mut bytes = format!("{MAGIC} {kind} {} {signature}\n", key.signer()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsigned {
    /// There is none of this kind.
    Absent,
    /// It names another signer.
    Foreign(String),
    /// It names the right signer and does not fit the bytes.
    Broken,
}

/// The body of signed bytes whose signature is that of `expected` (a public key in base64) and fits.
pub fn verified<'a>(kind: &str, bytes: &'a [u8], expected: &str) -> Result<&'a [u8], Unsigned> {
    let end = bytes.iter().take(1024).position(|byte| *byte == b'\n').ok_or(Unsigned::Absent)?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| Unsigned::Absent)?;
    let mut words = line.split(' ');
    let (Some(MAGIC), Some(found), Some(signer), Some(signature), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Unsigned::Absent);
    };
    if found != kind {
        return Err(Unsigned::Absent);
    }
    if signer != expected {
        return Err(Unsigned::Foreign(signer.to_owned()));
    }
    let body = &bytes[end + 1..];
    let key = STANDARD_NO_PAD.decode(signer).map_err(|_| Unsigned::Broken)?;
    let signature = STANDARD_NO_PAD.decode(signature).map_err(|_| Unsigned::Broken)?;
    UnparsedPublicKey::new(&ED25519, key).verify(&message(kind, body), &signature).map_err(|_| Unsigned::Broken)?;
    Ok(body)
}

/// The body of signed bytes, unverified: only to find out which identity to ask for.
pub fn unverified(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take(1024).position(|byte| *byte == b'\n')?;
    bytes.starts_with(MAGIC.as_bytes()).then(|| &bytes[end + 1..])
}

fn message(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("{MAGIC} {kind}\n").into_bytes();
    message.extend_from_slice(body);
    message
}
