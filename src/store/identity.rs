//! Who may open and who may write a cluster's state.

use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use age::secrecy::SecretString;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use etcetera::BaseStrategy as _;
use zeroize::Zeroizing;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::HostName;
use crate::store::HostKey;
use crate::store::Signs;
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::seal;
use crate::store::seal::Closed;
use crate::store::seal::Unsigned;

/// How an identity's file begins that a passphrase protects.
const ARMORED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const SIGNING: &str = "# bastide signing key: ";
const SIGNER: &str = "# bastide signer: ";
const CLUSTER: &str = "# bastide cluster: ";

/// An x25519 key that opens what is sealed, and an Ed25519 key that signs it.
///
/// Its public half is the anchor of trust: whatever was signed by another key is refused, even where it is well-formed
/// and sealed to the right recipient, since everybody can seal to a public key.
pub struct Identity {
    cluster: ClusterId,
    opening: age::x25519::Identity,
    signing: Ed25519KeyPair,
    text: Zeroizing<String>,
}

/// How an identity lies on the disk.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    /// Encrypts the file (age's scrypt) where given.
    pub passphrase: Option<Content>,
    /// Binary logarithm of scrypt's cost; none takes about a second on this machine.
    pub work_factor: Option<u8>,
}

/// Asks for the passphrase of the file at this path; none means that there is nobody to ask.
pub type Ask<'a> = &'a mut dyn FnMut(&Path) -> Option<Content>;

/// The user's `bastide/identities` under the configuration folder (`XDG_CONFIG_HOME`, else `~/.config`).
pub fn identities_folder() -> Result<PathBuf, StoreError> {
    let strategy = etcetera::choose_base_strategy().map_err(|_| StoreError::NoHome)?;
    Ok(strategy.config_dir().join("bastide").join("identities"))
}

/// The file of one cluster's identity.
pub fn identity_path(folder: &Path, cluster: &ClusterId) -> PathBuf {
    folder.join(format!("{cluster}.txt"))
}

/// Whether a passphrase protects the identity in this file.
pub fn is_protected(path: &Path) -> Result<bool, StoreError> {
    let bytes = std::fs::read(path).map(Zeroizing::new).map_err(|error| StoreError::io(path, "reading", &error))?;
    Ok(bytes.starts_with(ARMORED))
}

impl Identity {
    /// Draws a new identity for `cluster`. It is nowhere but in memory until it is saved.
    pub fn generate(cluster: &ClusterId) -> Result<Self, StoreError> {
        let opening = age::x25519::Identity::generate();
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| StoreError::Crypto("drawing random bytes"))?;
        let signing = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .map_err(|_| StoreError::Crypto("making a signing key"))?;
        let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(seed.as_slice()));
        let text = format!(
            "# Opens and signs the state of one bastide cluster. Keep a copy of this file in a safe place.\n\
             {CLUSTER}{cluster}\n{SIGNER}{}\n{SIGNING}{}\n{}\n",
            STANDARD_NO_PAD.encode(signing.public_key()),
            encoded.as_str(),
            opening.to_string().expose_secret(),
        );
        Ok(Self { cluster: cluster.clone(), opening, signing, text: Zeroizing::new(text) })
    }

    /// Writes the identity, 0600, in a folder for its owner alone. An identity that is already there stays.
    pub fn save(&self, folder: &Path, protection: &Protection) -> Result<PathBuf, StoreError> {
        let path = identity_path(folder, &self.cluster);
        if path.exists() {
            return Err(StoreError::IdentityExists { path });
        }
        let disk = Disk;
        disk.folder(folder)?;
        let bytes = match &protection.passphrase {
            None => Zeroizing::new(self.text.as_bytes().to_vec()),
            Some(passphrase) => Zeroizing::new(locked(&self.text, &secret(passphrase), protection.work_factor)?),
        };
        disk.write(&path, &bytes)?;
        Ok(path)
    }

    /// Reads the identity of `cluster` from `folder`; `ask` is called only where the file is protected.
    pub fn load(folder: &Path, cluster: &ClusterId, ask: Ask<'_>) -> Result<Self, StoreError> {
        let path = identity_path(folder, cluster);
        let identity = Self::load_file(&path, ask)?;
        if identity.cluster != *cluster {
            return Err(StoreError::ForeignCluster {
                what: path.display().to_string(),
                expected: cluster.clone(),
                found: identity.cluster,
            });
        }
        Ok(identity)
    }

    /// Reads an identity from anywhere, as from its backup.
    pub fn load_file(path: &Path, ask: Ask<'_>) -> Result<Self, StoreError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::IdentityMissing { path: path.to_owned() });
            }
            Err(error) => return Err(StoreError::io(path, "reading", &error)),
        };
        let text = if bytes.starts_with(ARMORED) {
            let passphrase = ask(path).ok_or_else(|| StoreError::PassphraseMissing { path: path.to_owned() })?;
            unlocked(&bytes, &secret(&passphrase), path)?
        } else {
            bytes
        };
        Self::parse(&text).ok_or_else(|| StoreError::IdentityDamaged {
            path: path.to_owned(),
            what: "it holds no identity".to_owned(),
        })
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = Zeroizing::new(std::str::from_utf8(text).ok()?.to_owned());
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
        let cluster = ClusterId(field(CLUSTER)?.to_owned());
        let seed = Zeroizing::new(STANDARD_NO_PAD.decode(field(SIGNING)?).ok()?);
        let signing = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        // The seed has no checksum of its own; a damaged one would sign for somebody else.
        if STANDARD_NO_PAD.encode(signing.public_key()) != field(SIGNER)? {
            return None;
        }
        let opening = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1"))?;
        let opening = age::x25519::Identity::from_str(opening).ok()?;
        Some(Self { cluster, opening, signing, text })
    }

    /// Which cluster it belongs to.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The public half of the signing key, for people and for comparison.
    pub fn signer(&self) -> String {
        STANDARD_NO_PAD.encode(self.signing.public_key())
    }

    /// The recipient that this identity opens, `age1…`.
    pub fn recipient(&self) -> String {
        self.opening.to_public().to_string()
    }

    /// `body` behind one line that carries the signature. `kind` is a lower-case word that the signature covers as well.
    pub fn signed(&self, kind: &str, body: &[u8]) -> Vec<u8> {
        seal::sign(kind, body, self)
    }

    /// The body of signed bytes of that kind whose signature is this identity's and fits.
    pub fn verified<'a>(&self, kind: &str, bytes: &'a [u8]) -> Result<&'a [u8], Unsigned> {
        seal::verified(kind, bytes, &self.signer())
    }

    /// The key with which `host` signs what it makes by itself.
    pub fn host_key(&self, host: &HostName) -> Result<HostKey, StoreError> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(SIGNING)).unwrap_or_default();
        let seed = Zeroizing::new(STANDARD_NO_PAD.decode(line).unwrap_or_default());
        HostKey::derive(&seed, &self.cluster, host)
    }

    /// The body of signed bytes of that kind whose signature is `host`'s and fits.
    pub fn verified_of<'a>(&self, host: &HostName, kind: &str, bytes: &'a [u8]) -> Result<&'a [u8], Unsigned> {
        let key = self.host_key(host).map_err(|_| Unsigned::Broken)?;
        seal::verified(kind, bytes, &key.signer())
    }

    /// Opens what [`crate::store::Recipients::sealing`] sealed. Each piece is authenticated before it is handed out; that
    /// none is missing at the end is known only when the reader has ended without an error.
    pub fn unsealing<R: std::io::BufRead>(&self, sealed: R) -> Result<age::stream::StreamReader<R>, Closed> {
        seal::unsealing(sealed, self.opening())
    }

    /// The same once more, for a thread of its own.
    pub fn again(&self) -> Result<Self, StoreError> {
        Self::parse(self.text.as_bytes()).ok_or(StoreError::Crypto("reading the identity again"))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn opening(&self) -> &age::x25519::Identity {
        &self.opening
    }
}

impl Signs for Identity {
    fn signer(&self) -> String {
        Self::signer(self)
    }
    fn signature(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).as_ref().to_vec()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

fn secret(passphrase: &Content) -> SecretString {
    SecretString::from(String::from_utf8_lossy(passphrase.expose()).into_owned())
}

/// `text` as an armored age file that `passphrase` opens.
fn locked(text: &str, passphrase: &SecretString, work_factor: Option<u8>) -> Result<Vec<u8>, StoreError> {
    let failed = || StoreError::Crypto("protecting the identity");
    let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
    if let Some(factor) = work_factor {
        recipient.set_work_factor(factor.clamp(1, 22));
    }
    let encryptor =
        age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).map_err(|_| failed())?;
    let armor =
        age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor).map_err(|_| failed())?;
    let mut writer = encryptor.wrap_output(armor).map_err(|_| failed())?;
    writer.write_all(text.as_bytes()).map_err(|_| failed())?;
    writer.finish().and_then(age::armor::ArmoredWriter::finish).map_err(|_| failed())
}

fn unlocked(bytes: &[u8], passphrase: &SecretString, path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let damaged = |what: &str| StoreError::IdentityDamaged { path: path.to_owned(), what: what.to_owned() };
    let decryptor = age::Decryptor::new_buffered(age::armor::ArmoredReader::new(bytes))
        .map_err(|_| damaged("its age header is unreadable"))?;
    let mut identity = age::scrypt::Identity::new(passphrase.clone());
    // 2^22 needs 4 GiB of memory; a file that asks for more was not written by bastide.
    identity.set_max_work_factor(22);
    let mut reader = match decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)) {
        Ok(reader) => reader,
        Err(age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys) => {
            return Err(StoreError::PassphraseWrong { path: path.to_owned() });
        }
        Err(_) => return Err(damaged("its age header is unreadable")),
    };
    let mut text = Zeroizing::new(Vec::with_capacity(4096));
    reader.read_to_end(&mut text).map_err(|_| damaged("its end is missing or changed"))?;
    Ok(text)
}
