//! Keys that sign and open nothing.

use aws_lc_rs::hkdf;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::HostName;
use crate::store::StoreError;

/// Whoever signs: an identity, or a host in its name.
pub trait Signs {
    /// The public half, for people and for comparison.
    fn signer(&self) -> String;
    /// Ed25519 over `message`.
    fn signature(&self, message: &[u8]) -> Vec<u8>;
}

/// A key that signs what one host makes by itself. It comes out of the cluster's identity, which therefore knows every host's
/// public half without any record, and nothing of the identity comes out of it.
pub struct HostKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<Vec<u8>>,
}

impl HostKey {
    /// The key of `host` in the cluster whose identity signs with this seed (HKDF-SHA256, RFC 5869).
    pub(crate) fn derive(identity: &[u8], cluster: &ClusterId, host: &HostName) -> Result<Self, StoreError> {
        let failed = || StoreError::Crypto("making a host's signing key");
        let mut seed = Zeroizing::new(vec![0; 32]);
        // Neither an id nor a name holds a line end.
        let info = [cluster.0.as_bytes(), b"\n", host.as_str().as_bytes()];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"bastide host signing key 1")
            .extract(identity)
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(&mut seed))
            .map_err(|_| failed())?;
        Self::from_seed(seed).ok_or_else(failed)
    }

    /// Reads what [`HostKey::text`] gave. None where it is something else.
    pub fn read(text: &Content) -> Option<Self> {
        Self::from_seed(Zeroizing::new(STANDARD_NO_PAD.decode(text.expose()).ok()?))
    }

    fn from_seed(seed: Zeroizing<Vec<u8>>) -> Option<Self> {
        Some(Self { pair: Ed25519KeyPair::from_seed_unchecked(&seed).ok()?, seed })
    }

    /// The key itself, in base64.
    pub fn text(&self) -> Content {
        Content::new(STANDARD_NO_PAD.encode(self.seed.as_slice()))
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({})", self.signer())
    }
}

impl Signs for HostKey {
    fn signer(&self) -> String {
        STANDARD_NO_PAD.encode(self.pair.public_key())
    }
    fn signature(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}
