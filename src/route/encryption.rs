//! The legs on which one key for encryption at rest takes another one's place.

use std::fmt;

use crate::secrets::EncryptionKey;
use crate::secrets::KeyLabel;
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

/// What one part of an `EncryptionConfiguration` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRule {
    /// `secrets`, `configmaps` …
    pub resources: Vec<String>,
    /// In their order; the first writes.
    pub keys: Vec<KeyLabel>,
}

/// What an `EncryptionConfiguration` says, without its keys' bytes; none where it cannot be read.
pub fn key_rules(text: &str) -> Option<Vec<KeyRule>> {
    let document: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let rule = |part: &serde_json::Value| {
        let providers = part["providers"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_object);
        let keys = providers.flatten().flat_map(|(provider, settings)| {
            let entries = settings["keys"].as_array().cloned().unwrap_or_else(|| vec![settings.clone()]);
            entries.into_iter().map(|entry| KeyLabel { provider: provider.clone(), name: word(&entry["name"]) })
        });
        let resources = part["resources"].as_array().into_iter().flatten().map(word);
        KeyRule { resources: resources.collect(), keys: keys.collect() }
    };
    Some(document["resources"].as_array()?.iter().map(rule).collect())
}

/// Whether API servers with these two configurations may run side by side: of every resource that both know, each can read what
/// the other one writes.
pub fn key_rules_fit(a: &[KeyRule], b: &[KeyRule]) -> bool {
    let of = |rules: &[KeyRule], resource: &String| {
        rules.iter().find(|rule| rule.resources.contains(resource)).map(|rule| rule.keys.clone())
    };
    let fits = |one: &[KeyLabel], other: &[KeyLabel]| one.first().is_none_or(|first| other.contains(first));
    let resources = a.iter().flat_map(|rule| &rule.resources);
    let mut pairs = resources.filter_map(|resource| Some((of(a, resource)?, of(b, resource)?)));
    pairs.all(|(one, other)| fits(&one, &other) && fits(&other, &one))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::KeyLeg;
    use super::key_legs;
    use super::key_rules;
    use super::key_rules_fit;
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
    fn a_configuration_tells_its_keys_by_name_alone() {
        let keys = [key("key-1"), EncryptionKey { provider: "aescbc".to_owned(), ..key("key-2") }, key("key-3")];
        let text = crate::render::encryption_file(&keys).unwrap();
        let rules = key_rules(text.expose_text().unwrap()).unwrap();
        let words: Vec<_> = rules[0].keys.iter().map(ToString::to_string).collect();
        assert_eq!((rules.len(), &rules[0].resources), (1, &vec!["secrets".to_owned()]));
        assert_eq!(words, ["secretbox:key-1", "aescbc:key-2", "secretbox:key-3"]);
        let own =
            "resources: [{resources: [configmaps], providers: [{kms: {apiVersion: v2, name: vault}}, {identity: {}}]}]";
        let keys = &key_rules(own).unwrap()[0].keys;
        assert_eq!(keys[0].mark().unwrap(), "k8s:enc:kms:v2:vault:");
        assert_eq!((keys[1].to_string().as_str(), keys[1].mark()), ("identity", None));
    }

    #[test]
    fn configurations_of_neighbouring_legs_fit_and_no_others() {
        let with = |names: &[&str]| {
            let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
            key_rules(crate::render::encryption_file(&keys).unwrap().expose_text().unwrap()).unwrap()
        };
        let legs = [with(&["a"]), with(&["a", "b"]), with(&["b", "a"]), with(&["b"])];
        for (at, one) in legs.iter().enumerate() {
            for (there, other) in legs.iter().enumerate() {
                assert_eq!(key_rules_fit(one, other), at.abs_diff(there) <= 1, "{at} {there}");
            }
        }
    }

    #[test]
    fn of_two_rotated_keys_the_later_one_is_the_new_one() {
        assert_eq!(key_legs(&[key("key-1795000000-aa"), key("key-1795000009-aa")]), [KeyLeg::Promote, KeyLeg::Retire]);
        assert_eq!(key_legs(&[key("key-1795000009-aa"), key("key-1795000000-aa")]), [KeyLeg::Retire]);
        assert_eq!(key_legs(&[key("key-1795000009-aa"), key("key-99999999")]), [KeyLeg::Retire]);
    }
}
