//! The configurations to pass through from one `EncryptionConfiguration` to another one, whatever their providers: everybody
//! can read what the new one will write; it writes; what only the old one can read is written anew, and the old one is gone.

use std::fmt;

use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;

use crate::model::Content;
use crate::model::Digest;
use crate::render;
use crate::route::key_rules::Rule;
use crate::route::key_rules::keys_for;
use crate::route::key_rules::resources_of;
use crate::route::key_rules::rules_fit;
use crate::secrets::KeyLabel;

/// One key of a provider, or a provider that has none, with all that an API server is told of it. Holds the key's bytes: no
/// `Debug`.
#[derive(Clone)]
pub(super) struct Reader {
    provider: String,
    settings: Value,
}

impl Reader {
    pub(super) fn clear() -> Self {
        Self { provider: "identity".to_owned(), settings: json!({}) }
    }

    pub(super) fn label(&self) -> KeyLabel {
        let name = self.settings["name"].as_str().unwrap_or_default().to_owned();
        KeyLabel { provider: self.provider.clone(), name }
    }

    /// What tells it from any other key: a plugin's name is all that an API server knows of the key behind it.
    pub(super) fn digest(&self) -> Digest {
        let of = if self.provider == "kms" { &self.settings["name"] } else { &self.settings };
        let mut hash = sha2::Sha256::new();
        hash.update(self.provider.as_bytes());
        hash.update(of.to_string().as_bytes());
        Digest(hash.finalize().into())
    }

    fn provider(&self) -> Value {
        match self.provider.as_str() {
            "identity" | "kms" => json!({ self.provider.as_str(): self.settings }),
            keyed => json!({ keyed: { "keys": [self.settings] } }),
        }
    }
}

impl PartialEq for Reader {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

/// What stands for a resource without any key.
pub(super) fn clear_digest() -> Digest {
    Reader::clear().digest()
}

/// Every part in its order; none where this is no `EncryptionConfiguration`.
pub(super) fn read(text: &str) -> Option<Vec<Rule<Reader>>> {
    let document: Value = serde_saphyr::from_str(text).ok()?;
    let part = |part: &Value| {
        let providers = part["providers"].as_array().into_iter().flatten().filter_map(Value::as_object);
        let keys = providers.flatten().flat_map(|(provider, settings)| {
            let entries = match (provider.as_str(), settings["keys"].as_array()) {
                ("identity", _) => vec![json!({})],
                (_, Some(keys)) => keys.clone(),
                (_, None) => vec![settings.clone()],
            };
            entries.into_iter().map(|settings| Reader { provider: provider.clone(), settings })
        });
        let resources = part["resources"].as_array().into_iter().flatten();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Rule { resources: resources.map(word).collect(), keys: keys.collect() }
    };
    Some(document["resources"].as_array()?.iter().map(part).collect())
}

/// What is done on a leg of the way from one configuration to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkLeg {
    /// Every API server is given what the goal writes with, to read.
    Add,
    /// What the goal writes with comes first.
    Promote,
    /// The goal itself.
    Arrive,
}

impl fmt::Display for WalkLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "every API server is given what cluster.yml asks for, to read with",
            Self::Promote => "what cluster.yml asks for comes first: it encrypts what is written",
            Self::Arrive => "what only the other keys can read is written anew, then they are dropped",
        })
    }
}

impl WalkLeg {
    /// How many legs are left, this one included.
    pub fn left(self) -> usize {
        match self {
            Self::Add => 3,
            Self::Promote => 2,
            Self::Arrive => 1,
        }
    }
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWalk {
    /// One of the two is none.
    Unreadable,
    /// The goal has another key under the same name: nobody could tell what is encrypted with which.
    Reused(KeyLabel),
    /// In between one plugin would stand in two parts, which API servers refuse.
    TwoParts(KeyLabel),
}

impl fmt::Display for NoWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("it cannot be read as an EncryptionConfiguration"),
            Self::Reused(key) => write!(
                f,
                "{key} names another key than the one of that name which API servers have: nobody could tell what is encrypted \
                 with which; give the new key a name of its own"
            ),
            Self::TwoParts(key) => write!(
                f,
                "{key} would stand in two parts of the configuration on the way, which API servers refuse; change one part after \
                 the other"
            ),
        }
    }
}

/// The next configuration on the way from `now` to `goal`. Neighbours may be in use side by side.
///
/// # Errors
/// Where there is no way.
pub fn next_configuration(now: &Content, goal: &Content) -> Result<(WalkLeg, Content), NoWalk> {
    let parsed = |content: &Content| content.expose_text().and_then(read).ok_or(NoWalk::Unreadable);
    let (had, wanted) = (parsed(now)?, parsed(goal)?);
    reused(&had, &wanted)?;
    let clear = Reader::clear();
    if rules_fit(&had, &wanted, &clear) {
        return Ok((WalkLeg::Arrive, goal.clone()));
    }
    let resources = resources_of(had.iter().chain(&wanted));
    let of = |resource: &String| (keys_for(&had, resource, &clear), keys_for(&wanted, resource, &clear));
    let readable = resources.iter().map(of).all(|(had, wanted)| wanted.first().is_none_or(|key| had.contains(key)));
    let leg = if readable { WalkLeg::Promote } else { WalkLeg::Add };
    let parts = resources.into_iter().map(|resource| {
        let (had, wanted) = of(&resource);
        let (mut first, then) = if readable { (wanted, had) } else { (had, wanted) };
        for key in then {
            if !first.contains(&key) {
                first.push(key);
            }
        }
        Rule { resources: vec![resource], keys: first }
    });
    Ok((leg, written(&joined(parts))?))
}

/// A name that stands for another key in `wanted` than in `had`.
fn reused(had: &[Rule<Reader>], wanted: &[Rule<Reader>]) -> Result<(), NoWalk> {
    let all: Vec<&Reader> = had.iter().chain(wanted).flat_map(|rule| &rule.keys).collect();
    let twice = |key: &&&Reader| all.iter().any(|other| other.label() == key.label() && other.digest() != key.digest());
    match all.iter().find(twice) {
        Some(key) => Err(NoWalk::Reused(key.label())),
        None => Ok(()),
    }
}

/// Parts with the same keys as one. A pattern stays behind all that is narrower, and with what it does not mask.
fn joined(parts: impl Iterator<Item = Rule<Reader>>) -> Vec<Rule<Reader>> {
    let mut joined: Vec<Rule<Reader>> = Vec::new();
    for part in parts {
        let wide = |rule: &Rule<Reader>| rule.resources.iter().any(|resource| resource.starts_with("*."));
        match joined.iter_mut().find(|other| !wide(&part) && !wide(other) && other.keys == part.keys) {
            Some(other) => other.resources.extend(part.resources),
            None => joined.push(part),
        }
    }
    joined
}

fn written(parts: &[Rule<Reader>]) -> Result<Content, NoWalk> {
    let mut plugins: Vec<KeyLabel> = Vec::new();
    for key in parts.iter().flat_map(|part| &part.keys).filter(|key| key.provider == "kms") {
        if plugins.contains(&key.label()) {
            return Err(NoWalk::TwoParts(key.label()));
        }
        plugins.push(key.label());
    }
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| {
            let providers: Vec<Value> = part.keys.iter().map(Reader::provider).collect();
            json!({"resources": part.resources, "providers": providers})
        })
        .collect();
    let document =
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": parts});
    Ok(render::encryption_document(&document))
}

/// The names of the plugins that API servers with this configuration speak to, each with its socket's address.
pub fn plugins(configuration: &Content) -> Vec<(String, String)> {
    let rules = configuration.expose_text().and_then(read).unwrap_or_default();
    let keys = rules.iter().flat_map(|rule| &rule.keys).filter(|key| key.provider == "kms");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    keys.map(|key| (word(&key.settings["name"]), word(&key.settings["endpoint"]))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::NoWalk;
    use super::WalkLeg;
    use super::next_configuration;
    use crate::model::Content;
    use crate::route::key_rules;
    use crate::route::key_rules_fit;

    fn configuration(parts: &[(&str, &[Value])]) -> Content {
        let parts: Vec<_> = parts
            .iter()
            .map(|(resources, providers)| {
                json!({"resources": resources.split(' ').collect::<Vec<_>>(), "providers": providers})
            })
            .collect();
        Content::new(json!({"kind": "EncryptionConfiguration", "resources": parts}).to_string())
    }

    fn key(provider: &str, name: &str, secret: &str) -> Value {
        json!({ provider: {"keys": [{"name": name, "secret": secret}]} })
    }

    /// `secrets: secretbox:a identity; …` of each configuration on the way, the first and the last included.
    fn way(from: &Content, to: &Content) -> Vec<String> {
        let said = |content: &Content| {
            let rules = key_rules(content.expose_text().unwrap()).unwrap();
            let parts: Vec<_> = rules
                .iter()
                .map(|rule| {
                    let keys: Vec<_> = rule.keys.iter().map(ToString::to_string).collect();
                    format!("{}: {}", rule.resources.join(" "), keys.join(" "))
                })
                .collect();
            parts.join("; ")
        };
        let mut here = from.clone();
        let mut all = vec![said(&here)];
        loop {
            let (leg, next) = next_configuration(&here, to).unwrap();
            let rules = |content: &Content| key_rules(content.expose_text().unwrap()).unwrap();
            assert!(key_rules_fit(&rules(&here), &rules(&next)), "{leg:?}: {all:?}");
            all.push(said(&next));
            here = next;
            if leg == WalkLeg::Arrive {
                assert_eq!(here, *to);
                return all;
            }
            assert!(all.len() < 5, "{all:?}");
        }
    }

    #[test]
    fn one_provider_takes_anothers_place_in_three_legs_and_back() {
        let aes = configuration(&[("secrets", &[key("aescbc", "a", "c2VjcmV0"), json!({"identity": {}})])]);
        let box_ = configuration(&[("secrets", &[key("secretbox", "b", "b3RoZXI=")])]);
        let expected = [
            "secrets: aescbc:a identity",
            "secrets: aescbc:a identity secretbox:b",
            "secrets: secretbox:b aescbc:a identity",
            "secrets: secretbox:b",
        ];
        assert_eq!(way(&aes, &box_), expected);
        let back = way(&box_, &aes);
        assert_eq!(back[1..3], ["secrets: secretbox:b aescbc:a identity", "secrets: aescbc:a identity secretbox:b"]);
    }

    #[test]
    fn what_lay_in_clear_is_read_in_clear_until_it_is_written_anew() {
        let none = configuration(&[("secrets", &[json!({"identity": {}})])]);
        let two = configuration(&[("secrets configmaps", &[key("secretbox", "b", "b3RoZXI=")])]);
        let expected = [
            "secrets: identity",
            "configmaps secrets: identity secretbox:b",
            "configmaps secrets: secretbox:b identity",
            "secrets configmaps: secretbox:b",
        ];
        assert_eq!(way(&none, &two), expected);
        let kms = json!({"kms": {"apiVersion": "v2", "name": "k", "endpoint": "unix:///run/kmsplugin/socket.sock"}});
        let kms = configuration(&[("secrets", &[kms])]);
        assert_eq!(way(&two, &kms)[1], "configmaps: secretbox:b identity; secrets: secretbox:b kms:k");
    }

    #[test]
    fn a_leg_that_is_not_needed_is_not_walked() {
        let a = configuration(&[("secrets", &[key("aescbc", "a", "c2VjcmV0")])]);
        let b = configuration(&[("secrets", &[key("aescbc", "b", "b3RoZXI=")])]);
        let read = configuration(&[("secrets", &[key("aescbc", "a", "c2VjcmV0"), key("aescbc", "b", "b3RoZXI=")])]);
        assert_eq!(next_configuration(&a, &read).unwrap(), (WalkLeg::Arrive, read.clone()));
        assert_eq!(way(&read, &b), ["secrets: aescbc:a aescbc:b", "secrets: aescbc:b aescbc:a", "secrets: aescbc:b"]);
        assert_eq!(next_configuration(&a, &a).unwrap().0, WalkLeg::Arrive);
    }

    #[test]
    fn wider_patterns_stay_behind_narrower_ones() {
        let all = configuration(&[("*.*", &[key("secretbox", "b", "b3RoZXI=")])]);
        let some = configuration(&[("secrets *.apps", &[key("aescbc", "a", "c2VjcmV0")])]);
        let between = way(&some, &all);
        assert_eq!(
            between[1],
            "secrets: aescbc:a secretbox:b; *.apps: aescbc:a secretbox:b; *.*: identity secretbox:b"
        );
        assert_eq!(
            between[2],
            "secrets: secretbox:b aescbc:a; *.apps: secretbox:b aescbc:a; *.*: secretbox:b identity"
        );
    }

    #[test]
    fn another_key_under_the_same_name_is_no_way() {
        let one = configuration(&[("secrets", &[key("aescbc", "a", "c2VjcmV0")])]);
        let other = configuration(&[("secrets", &[key("aescbc", "a", "b3RoZXI=")])]);
        let Err(NoWalk::Reused(key)) = next_configuration(&one, &other) else { panic!("no refusal") };
        assert_eq!(key.to_string(), "aescbc:a");
        assert_eq!(next_configuration(&one, &Content::new("[")), Err(NoWalk::Unreadable));
    }
}
