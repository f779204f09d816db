//! Bytes that may be secret.

use std::fmt;

use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;

/// Bytes of a file, a key or a password. Wiped on drop; `Debug` shows only the length; there is no `Display` and no
/// `Serialize`. [`Content::expose`] is the one way to the bytes, so that every use can be found by its name.
#[derive(Clone, PartialEq, Eq, Default, Zeroize, ZeroizeOnDrop)]
pub struct Content(Vec<u8>);

impl Content {
    /// Takes ownership of `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
    /// The bytes as text, where they are UTF-8.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Content;

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Content::new("hunter2")), "Content(7 bytes)");
    }
}
