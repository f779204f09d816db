//! What an `EncryptionConfiguration` says of each resource, and whether two of them may be in use side by side.

use crate::model::Content;
use crate::secrets::KeyLabel;

/// What one part of an `EncryptionConfiguration` is about. `K` is what a key is known by: its label, a digest, itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<K> {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.*` …
    pub resources: Vec<String>,
    /// In their order; the first writes.
    pub keys: Vec<K>,
}

/// A part with its keys as they may be shown.
pub type KeyRule = Rule<KeyLabel>;

/// Whether what is said of `pattern` holds for all of `resource`, which may itself be one (`*.apps`).
fn covers(pattern: &str, resource: &str) -> bool {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    pattern == resource || pattern == "*.*" || pattern.strip_prefix("*.").is_some_and(|of| of == group)
}

/// What API servers do with `resource`: what the first part says that speaks of it, else `clear` alone.
pub fn keys_for<K: Clone>(rules: &[Rule<K>], resource: &str, clear: &K) -> Vec<K> {
    let speaks = |rule: &&Rule<K>| rule.resources.iter().any(|pattern| covers(pattern, resource));
    rules.iter().find(speaks).map_or_else(|| vec![clear.clone()], |rule| rule.keys.clone())
}

/// Every resource and pattern that these parts name, once, the narrower ones first.
pub fn resources_of<'a, K: 'a>(rules: impl IntoIterator<Item = &'a Rule<K>>) -> Vec<String> {
    let mut all: Vec<String> = rules.into_iter().flat_map(|rule| &rule.resources).cloned().collect();
    let width = |resource: &str| match resource {
        "*.*" => 2,
        _ => u8::from(resource.starts_with("*.")),
    };
    all.sort_by(|one, other| (width(one), one).cmp(&(width(other), other)));
    all.dedup();
    all
}

/// Whether API servers with these two configurations may run side by side: of every resource each can read what the other one
/// writes. A resource that one of them does not speak of is written in clear by it.
pub fn key_rules_fit(a: &[KeyRule], b: &[KeyRule]) -> bool {
    rules_fit(a, b, &KeyLabel::clear())
}

/// The same, whatever a key is known by.
pub(super) fn rules_fit<K: Clone + PartialEq>(a: &[Rule<K>], b: &[Rule<K>], clear: &K) -> bool {
    resources_of(a.iter().chain(b)).iter().all(|resource| {
        let (one, other) = (keys_for(a, resource, clear), keys_for(b, resource, clear));
        let reads = |keys: &[K], first: Option<&K>| first.is_none_or(|first| keys.contains(first));
        reads(&one, other.first()) && reads(&other, one.first())
    })
}

/// The keys of `resource` that `had` has and `target` lacks: what they encrypted must be written anew before they are gone.
pub fn dropped_keys(had: &[KeyRule], target: &[KeyRule], resource: &str) -> Vec<KeyLabel> {
    let stay = keys_for(target, resource, &KeyLabel::clear());
    keys_for(had, resource, &KeyLabel::clear()).into_iter().filter(|key| !stay.contains(key)).collect()
}

/// Whether a key of `now` is gone in `goal`, of any resource; so too where one of them cannot be read.
pub fn drops_keys(now: &Content, goal: &Content) -> bool {
    let rules = |content: &Content| content.expose_text().and_then(key_rules);
    let (Some(had), Some(target)) = (rules(now), rules(goal)) else { return true };
    let resources = resources_of(had.iter().chain(&target));
    resources.iter().any(|resource| !dropped_keys(&had, &target, resource).is_empty())
}

/// The keys with which API servers that have `then` may have written something that those with `now` cannot read, by resource; none
/// where one of them cannot be read. What only ever reads clear text is no key: with it nothing was written.
pub fn unreadable(then: &Content, now: &Content) -> Option<Vec<(String, KeyLabel)>> {
    let rules = |content: &Content| content.expose_text().and_then(super::key_walk::read);
    let (then, now) = (rules(then)?, rules(now)?);
    let clear = super::key_walk::Reader::clear();
    let mut missing = Vec::new();
    for resource in resources_of(then.iter().chain(&now)) {
        let readers = keys_for(&now, &resource, &clear);
        let wrote = keys_for(&then, &resource, &clear);
        let lost = wrote.iter().enumerate().filter(|(at, key)| (*at == 0 || **key != clear) && !readers.contains(key));
        missing.extend(lost.map(|(_, key)| (resource.clone(), key.label())));
    }
    Some(missing)
}

/// What an `EncryptionConfiguration` says, without its keys' bytes; none where it cannot be read.
pub fn key_rules(text: &str) -> Option<Vec<KeyRule>> {
    let rules = super::key_walk::read(text)?;
    let labelled = |rule: Rule<super::key_walk::Reader>| KeyRule {
        resources: rule.resources,
        keys: rule.keys.iter().map(super::key_walk::Reader::label).collect(),
    };
    Some(rules.into_iter().map(labelled).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::dropped_keys;
    use super::drops_keys;
    use super::key_rules;
    use super::key_rules_fit;
    use super::keys_for;
    use super::resources_of;
    use super::unreadable;
    use crate::model::Content;
    use crate::secrets::EncryptionKey;
    use crate::secrets::KeyLabel;

    fn key(name: &str) -> EncryptionKey {
        EncryptionKey { name: name.to_owned(), provider: "secretbox".to_owned(), key: Content::new(name) }
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
    fn a_resource_that_is_not_spoken_of_lies_in_clear() {
        let secrets = key_rules("resources: [{resources: [secrets], providers: [{kms: {name: a}}]}]").unwrap();
        let both = key_rules("resources: [{resources: [secrets, configmaps], providers: [{kms: {name: a}}]}]").unwrap();
        let careful = key_rules(
            "resources: [{resources: [secrets], providers: [{kms: {name: a}}]}, \
             {resources: [configmaps], providers: [{identity: {}}, {kms: {name: a}}]}]",
        )
        .unwrap();
        assert!(!key_rules_fit(&secrets, &both));
        assert!(key_rules_fit(&secrets, &careful));
        assert_eq!(dropped_keys(&secrets, &both, "configmaps"), [KeyLabel::clear()]);
        assert_eq!(dropped_keys(&secrets, &both, "secrets"), []);
        let one = |name: &str| Content::new(format!("resources: [{{resources: [secrets], providers: [{name}]}}]"));
        let (a, ab) = (one("{kms: {name: a}}"), one("{kms: {name: a}}, {kms: {name: b}}"));
        assert_eq!(
            (drops_keys(&a, &ab), drops_keys(&ab, &a), drops_keys(&a, &one("{kms: {name: a}}"))),
            (false, true, false)
        );
        let words = |keys: Vec<KeyLabel>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(words(dropped_keys(&both, &secrets, "configmaps")), ["kms:a"]);
    }

    #[test]
    fn the_first_part_that_speaks_of_a_resource_counts() {
        let part = |resources: &str, name: &str| {
            format!("{{resources: [{resources}], providers: [{{kms: {{name: {name}}}}}]}}")
        };
        let text = format!(
            "resources: [{}, {}, {}, {}]",
            part("secrets", "a"),
            part("'*.apps'", "b"),
            part("deployments.apps", "masked"),
            part("'*.*'", "c")
        );
        let rules = key_rules(&text).unwrap();
        let of = |resource: &str| keys_for(&rules, resource, &KeyLabel::clear())[0].name.clone();
        assert_eq!(["secrets", "deployments.apps", "*.apps", "pods", "*."].map(of), ["a", "b", "b", "c", "c"]);
        assert_eq!(resources_of(&rules), ["deployments.apps", "secrets", "*.apps", "*.*"]);
    }

    #[test]
    fn what_was_written_then_and_cannot_be_read_now_is_named() {
        let own = |keys: &[EncryptionKey]| crate::render::encryption_file(keys).unwrap();
        let part = |resources: &str, providers: &str| format!("{{resources: [{resources}], providers: [{providers}]}}");
        let file = |parts: &[String]| {
            let kind = "apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration";
            Content::new(format!("{{{kind}, resources: [{}]}}", parts.join(", ")))
        };
        let kms = "kms: {apiVersion: v2, name: vault, endpoint: 'unix:///run/kms.sock'}";
        let (one, two) = (key("key-1"), key("key-2"));
        let named = |then: &Content, now: &Content| -> Vec<String> {
            unreadable(then, now).unwrap().iter().map(|(resource, key)| format!("{resource} {key}")).collect()
        };
        let today = own(std::slice::from_ref(&one));
        let plugin = file(&[part("secrets", &format!("{{{kms}}}, {{identity: {{}}}}"))]);
        assert_eq!(named(&plugin, &today), ["secrets kms:vault"], "clear text was only read");
        assert!(named(&plugin, &plugin).is_empty());
        let both =
            file(&[part("secrets", &format!("{{secretbox: {{keys: [{{name: key-9, secret: AA==}}]}}}}, {{{kms}}}"))]);
        assert!(named(&plugin, &both).is_empty(), "a plugin that reads is enough");
        assert_eq!(named(&both, &plugin), ["secrets secretbox:key-9"]);
        assert!(named(&today, &own(&[two.clone(), one.clone()])).is_empty());
        assert_eq!(named(&own(&[two, one.clone()]), &today), ["secrets secretbox:key-2"]);
        let other_bytes = EncryptionKey { key: Content::new("other"), ..one };
        assert_eq!(named(&own(std::slice::from_ref(&other_bytes)), &today), ["secrets secretbox:key-1"], "of one name");
        let wider = file(&[part("'*.*'", &format!("{{{kms}}}"))]);
        assert_eq!(named(&wider, &plugin), ["*.* kms:vault"]);
        let nothing = file(&[part("configmaps", "{identity: {}}")]);
        assert_eq!(named(&nothing, &today), ["secrets identity"], "they were written in clear");
        assert_eq!(unreadable(&Content::new("no"), &plugin), None);
    }
}
