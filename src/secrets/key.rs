//! Private keys.

use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::EcdsaSigningAlgorithm;
use rcgen::KeyPair;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rcgen::PKCS_ECDSA_P384_SHA384;
use rcgen::PKCS_RSA_SHA256;
use rcgen::SignatureAlgorithm;
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use crate::config::KeyAlgorithm;
use crate::model::Content;
use crate::secrets::Entropy;
use crate::secrets::SecretsError;

/// PKCS#8 (RFC 5208) around an elliptic-curve key (RFC 5915) of P-256 without the optional public key; 32 bytes follow.
const P256_HEADER: &[u8] = &[
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];

/// The same of P-384; 48 bytes follow.
const P384_HEADER: &[u8] = &[
    0x30, 0x4e, 0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x04, 0x37, 0x30, 0x35, 0x02, 0x01, 0x01, 0x04, 0x30,
];

/// A draw outside `1..order` has a chance below 2^-32 on P-256 and far less on P-384; so many in a row mean a broken
/// source.
const DRAWS: usize = 8;

/// Draws a key. RSA keys come from the library's own randomness, all others from `entropy` alone.
pub(crate) fn generate(algorithm: KeyAlgorithm, entropy: &mut dyn Entropy) -> Result<KeyPair, SecretsError> {
    match algorithm {
        KeyAlgorithm::P256 => curve(P256_HEADER, 32, &ECDSA_P256_SHA256_ASN1_SIGNING, &PKCS_ECDSA_P256_SHA256, entropy),
        KeyAlgorithm::P384 => curve(P384_HEADER, 48, &ECDSA_P384_SHA384_ASN1_SIGNING, &PKCS_ECDSA_P384_SHA384, entropy),
        KeyAlgorithm::Rsa2048 => KeyPair::generate_for(&PKCS_RSA_SHA256).map_err(|_| SecretsError::Key),
    }
}

/// A random scalar, taken as the key where the library finds it inside the group's order (SEC 1, 3.2.1).
fn curve(
    header: &[u8],
    size: usize,
    signing: &'static EcdsaSigningAlgorithm,
    algorithm: &'static SignatureAlgorithm,
    entropy: &mut dyn Entropy,
) -> Result<KeyPair, SecretsError> {
    for _ in 0..DRAWS {
        let mut document = Zeroizing::new(header.to_vec());
        document.resize(header.len() + size, 0);
        entropy.fill(&mut document[header.len()..])?;
        let Ok(key) = EcdsaKeyPair::from_pkcs8(signing, &document) else { continue };
        // Written anew by the library, which adds the public key that other programs expect beside the scalar.
        let complete = key.to_pkcs8v1().map_err(|_| SecretsError::Key)?;
        return KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(complete.as_ref()), algorithm)
            .map_err(|_| SecretsError::Key);
    }
    Err(SecretsError::Entropy)
}

/// PKCS#8 PEM.
pub(crate) fn pem(key: &KeyPair) -> Content {
    Content::new(key.serialize_pem())
}

/// Reads what [`pem`] wrote.
pub(crate) fn read(pem: &Content) -> Option<KeyPair> {
    KeyPair::from_pem(pem.expose_text()?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::generate;
    use super::pem;
    use super::read;
    use crate::config::KeyAlgorithm;
    use crate::secrets::Entropy;
    use crate::secrets::SecretsError;
    use crate::secrets::SeededEntropy;

    #[test]
    fn a_seed_gives_the_same_curve_key_again() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384] {
            let draw = |seed| pem(&generate(algorithm, &mut SeededEntropy::new(seed)).unwrap());
            assert_eq!(draw(1), draw(1));
            assert_ne!(draw(1), draw(2));
        }
    }

    #[test]
    fn every_algorithm_survives_its_own_text() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Rsa2048] {
            let key = generate(algorithm, &mut SeededEntropy::new(3)).unwrap();
            assert_eq!(read(&pem(&key)).unwrap().public_key_raw(), key.public_key_raw());
        }
    }

    #[test]
    fn a_scalar_outside_the_order_is_never_a_key() {
        struct Constant(u8);
        impl Entropy for Constant {
            fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SecretsError> {
                bytes.fill(self.0);
                Ok(())
            }
        }
        for byte in [0x00, 0xff] {
            for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384] {
                assert_eq!(generate(algorithm, &mut Constant(byte)).err(), Some(SecretsError::Entropy));
            }
        }
    }
}
