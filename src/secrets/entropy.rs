//! Randomness as an input.

use std::fmt::Write as _;

use sha2::Digest as _;

use crate::secrets::SecretsError;

/// Where random bytes come from.
///
/// Elliptic-curve keys, serial numbers, tokens and symmetric keys are made from it and nothing else, so that a seeded
/// source makes them repeatable. RSA keys and ECDSA signatures take further randomness from the cryptographic library.
pub trait Entropy {
    /// Fills `bytes`, or fails; a partly filled buffer is never used.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SecretsError>;
}

/// The operating system's randomness, through the library that also signs.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SecretsError> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| SecretsError::Entropy)
    }
}

/// SHA-256 over a seed and a counter. For tests and dry renderings: whoever knows the seed knows every key.
#[derive(Debug, Clone)]
pub struct SeededEntropy {
    seed: [u8; 32],
    counter: u64,
}

impl SeededEntropy {
    /// A source that always gives the same bytes for the same `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed: sha2::Sha256::digest(seed.to_be_bytes()).into(), counter: 0 }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SecretsError> {
        for chunk in bytes.chunks_mut(32) {
            let mut hash = sha2::Sha256::new();
            hash.update(self.seed);
            hash.update(self.counter.to_be_bytes());
            self.counter += 1;
            chunk.copy_from_slice(&hash.finalize()[..chunk.len()]);
        }
        Ok(())
    }
}

/// `bytes` random bytes as lower-case hexadecimal digits: identifiers, nonces, tokens.
pub fn random_hex(entropy: &mut dyn Entropy, bytes: usize) -> Result<String, SecretsError> {
    let mut raw = vec![0; bytes];
    entropy.fill(&mut raw)?;
    Ok(raw.iter().fold(String::with_capacity(bytes * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Entropy;
    use super::SeededEntropy;
    use super::SystemEntropy;
    use super::random_hex;

    #[test]
    fn a_seed_repeats_itself_and_differs_from_another() {
        let draw = |seed| random_hex(&mut SeededEntropy::new(seed), 40).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(1).len(), 80);
        assert_ne!(draw(1)[..16], draw(1)[64..]);
    }

    #[test]
    fn the_system_gives_other_bytes_each_time() {
        let (mut one, mut two) = ([0; 32], [0; 32]);
        SystemEntropy.fill(&mut one).unwrap();
        SystemEntropy.fill(&mut two).unwrap();
        assert_ne!(one, two);
    }
}
