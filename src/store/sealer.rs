//! age's stream, sealed by aws-lc-rs.
//!
//! The `age` crate draws the file's key, wraps it for the recipients and writes the header. What follows the header is 64 KiB pieces
//! under ChaCha20-Poly1305 (<https://age-encryption.org/v1>, "Payload"), and there the crate's cipher is slower than the `age`
//! program's: measured by `cargo xtask bench snapshot`. aws-lc-rs is in the tree already and faster than both. Opening stays
//! the crate's, so that whatever is sealed here is read by another implementation in every test.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Write;

use age::secrecy::ExposeSecret as _;
use age_core::format::FileKey;
use age_core::format::Stanza;
use aws_lc_rs::aead;
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// Plain bytes of a piece.
const PIECE: usize = 64 << 10;
/// The header is followed by the nonce from which, with the file's key, the stream's key comes.
const NONCE: usize = 16;

/// A writer that seals what is written to it, in constant memory. What was not finished cannot be opened.
pub struct Sealer<W: Write> {
    output: W,
    key: aead::LessSafeKey,
    /// How many pieces were sealed.
    pieces: u64,
    /// The piece that is not full yet. A full one waits for the next byte: the last piece is sealed otherwise.
    piece: Zeroizing<Vec<u8>>,
}

/// A recipient that remembers the key it was given.
struct Overheard<'a> {
    recipient: &'a dyn age::Recipient,
    key: &'a RefCell<Option<Zeroizing<[u8; 16]>>>,
}

impl age::Recipient for Overheard<'_> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        *self.key.borrow_mut() = Some(Zeroizing::new(*key.expose_secret()));
        self.recipient.wrap_file_key(key)
    }
}

impl<W: Write> Sealer<W> {
    /// Writes the header for all `recipients`.
    pub(super) fn begin<'a>(
        recipients: impl Iterator<Item = &'a dyn age::Recipient>,
        mut output: W,
    ) -> Result<Self, age::EncryptError> {
        let heard = RefCell::new(None);
        let recipients: Vec<_> = recipients.map(|recipient| Overheard { recipient, key: &heard }).collect();
        let all = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(all)?;
        let mut header = Vec::new();
        // The crate's own stream under this key ends here, before its first piece.
        drop(encryptor.wrap_output(&mut header)?);
        let file_key = heard.take().ok_or(age::EncryptError::MissingRecipients)?;
        let key = header.last_chunk::<NONCE>().and_then(|nonce| stream_key(&file_key, nonce));
        let key = key.ok_or_else(|| std::io::Error::other("no key for the stream"))?;
        output.write_all(&header)?;
        Ok(Self { output, key, pieces: 0, piece: Zeroizing::new(Vec::with_capacity(PIECE + aead::MAX_TAG_LEN)) })
    }

    /// Seals what is left, which tells the reader that nothing is missing.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.seal(true)?;
        Ok(self.output)
    }

    fn seal(&mut self, last: bool) -> std::io::Result<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce(self.pieces, last));
        let sealed = self.key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut *self.piece);
        sealed.map_err(|_| std::io::Error::other("a piece cannot be sealed"))?;
        self.pieces += 1;
        let written = self.output.write_all(&self.piece);
        self.piece.clear();
        written
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.piece.len() == PIECE && !bytes.is_empty() {
            self.seal(false)?;
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
    /// A piece cannot be sealed before it is full: this moves on only what is sealed.
    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// 11 bytes that count pieces, big endian, and one that is 1 in the last piece.
fn nonce(piece: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&piece.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// HKDF-SHA256 with the nonce as salt and `payload` as information.
fn stream_key(file_key: &[u8; 16], nonce: &[u8; NONCE]) -> Option<aead::LessSafeKey> {
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, nonce).extract(file_key);
    let mut bytes = Zeroizing::new([0; 32]);
    key.expand(&[b"payload"], hkdf::HKDF_SHA256).and_then(|key| key.fill(&mut *bytes)).ok()?;
    Some(aead::LessSafeKey::new(aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*bytes).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::io::Write as _;

    use super::PIECE;
    use super::Sealer;

    fn sealed(identity: &age::x25519::Identity, plain: &[u8], step: usize) -> Vec<u8> {
        let recipient = identity.to_public();
        let mut sealer = Sealer::begin(std::iter::once(&recipient as &dyn age::Recipient), Vec::new()).unwrap();
        for bytes in plain.chunks(step) {
            sealer.write_all(bytes).unwrap();
        }
        sealer.finish().unwrap()
    }

    fn opened(identity: &age::x25519::Identity, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        let decryptor = age::Decryptor::new_buffered(sealed).ok()?;
        decryptor.decrypt(std::iter::once(identity as &dyn age::Identity)).ok()?.read_to_end(&mut plain).ok()?;
        Some(plain)
    }

    #[test]
    fn the_age_crate_opens_what_is_sealed_here_whatever_its_length() {
        let identity = age::x25519::Identity::generate();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 7] {
            let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
            for step in [1000, PIECE, 3 * PIECE + 1] {
                let sealed = sealed(&identity, &plain, step);
                assert_eq!(opened(&identity, &sealed).as_deref(), Some(&plain[..]), "{length} in steps of {step}");
            }
        }
    }

    #[test]
    fn what_lacks_its_end_or_was_changed_does_not_open() {
        let identity = age::x25519::Identity::generate();
        let whole = sealed(&identity, &vec![7; 3 * PIECE], PIECE);
        assert!(opened(&identity, &whole).is_some());
        let sealed_piece = PIECE + 16;
        assert_eq!(opened(&identity, &whole[..whole.len() - sealed_piece]), None, "a whole piece is missing");
        let mut changed = whole;
        let at = changed.len() - 2 * sealed_piece;
        changed[at] ^= 1;
        assert_eq!(opened(&identity, &changed), None);
    }

    #[test]
    fn every_stream_has_a_key_of_its_own() {
        let identity = age::x25519::Identity::generate();
        let (one, other) = (sealed(&identity, b"same", 4), sealed(&identity, b"same", 4));
        assert_ne!(one[one.len() - 20..], other[other.len() - 20..]);
    }
}
