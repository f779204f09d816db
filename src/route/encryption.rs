//! The legs on which one key for encryption at rest takes another one's place.

use std::fmt;

use crate::secrets::EncryptionKey;
use crate::secrets::newest_encryption_key;

/// One change of the list of keys. Neighbours may run side by side: each holds the key with which the other one writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLeg {
    /// The new key stands second: everybody can read what it will write.
    Add,
    /// It stands first: it writes.
    Promote,
    /// It stands alone, once nothing is encrypted with any other one.
    Retire,
}

impl fmt::Display for KeyLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "every API server is given the new key as its second",
            Self::Promote => "the new key comes first: it encrypts what is written",
            Self::Retire => "what older keys encrypted is written anew, then they are dropped",
        })
    }
}

/// What is left of a rotation: all of it where there is one key, else the rest of the one that was begun.
pub fn key_legs(keys: &[EncryptionKey]) -> &'static [KeyLeg] {
    match (keys.len(), newest_encryption_key(keys)) {
        (0 | 1, _) | (_, None) => &[KeyLeg::Add, KeyLeg::Promote, KeyLeg::Retire],
        (_, Some(0)) => &[KeyLeg::Retire],
        (_, Some(_)) => &[KeyLeg::Promote, KeyLeg::Retire],
    }
}

/// The keys after `leg`. `fresh` is the key to add, and is not looked at by the other legs.
pub fn keys_after(keys: &[EncryptionKey], leg: KeyLeg, fresh: Option<EncryptionKey>) -> Vec<EncryptionKey> {
    let mut keys = keys.to_vec();
    match leg {
        KeyLeg::Add => keys.extend(fresh),
        KeyLeg::Promote => {
            if let Some(newest) = newest_encryption_key(&keys) {
                let newest = keys.remove(newest);
                keys.insert(0, newest);
            }
        }
        KeyLeg::Retire => keys.truncate(1),
    }
    keys
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::KeyLeg;
    use super::key_legs;
    use super::keys_after;
    use crate::model::Content;
    use crate::secrets::EncryptionKey;
    use crate::secrets::EncryptionProvider;
    use crate::secrets::SeededEntropy;
    use crate::secrets::next_encryption_key;

    fn key(name: &str) -> EncryptionKey {
        EncryptionKey { name: name.to_owned(), provider: "secretbox".to_owned(), key: Content::new(name) }
    }

    fn names(keys: &[EncryptionKey]) -> Vec<&str> {
        keys.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn a_rotation_goes_on_where_its_keys_say_that_it_stands() {
        let born = vec![key("key-fe12fe12")];
        let fresh = next_encryption_key(EncryptionProvider::Aescbc, 1_795_000_000, &mut SeededEntropy::new(1)).unwrap();
        let mark = fresh.label().mark().unwrap();
        assert!(mark.starts_with("k8s:enc:aescbc:v1:key-1795000000-") && mark.ends_with(':'));
        assert_eq!(key_legs(&born), [KeyLeg::Add, KeyLeg::Promote, KeyLeg::Retire]);
        let added = keys_after(&born, KeyLeg::Add, Some(fresh.clone()));
        assert_eq!(names(&added), ["key-fe12fe12", &fresh.name]);
        assert_eq!(key_legs(&added), [KeyLeg::Promote, KeyLeg::Retire]);
        let promoted = keys_after(&added, KeyLeg::Promote, None);
        assert_eq!(names(&promoted), [&fresh.name, "key-fe12fe12"]);
        assert_eq!(key_legs(&promoted), [KeyLeg::Retire]);
        assert_eq!(names(&keys_after(&promoted, KeyLeg::Retire, None)), [&fresh.name]);
    }

    #[test]
    fn of_two_rotated_keys_the_later_one_is_the_new_one() {
        assert_eq!(key_legs(&[key("key-1795000000-aa"), key("key-1795000009-aa")]), [KeyLeg::Promote, KeyLeg::Retire]);
        assert_eq!(key_legs(&[key("key-1795000009-aa"), key("key-1795000000-aa")]), [KeyLeg::Retire]);
        assert_eq!(key_legs(&[key("key-1795000009-aa"), key("key-99999999")]), [KeyLeg::Retire]);
    }
}
