//! What differs between two targets, as people want to read it: files line by line, manifests and objects by field,
//! flags by name, secrets by the mere fact.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use crate::model::Access;
use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::Digest;
use crate::model::HostName;

/// Where static pods are described.
const MANIFESTS: &str = "/etc/kubernetes/manifests/";
/// Longest unified diff of one file; what is longer is rarely read and never the point.
const LONGEST: usize = 400;

/// One thing that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where; absent for objects of the cluster.
    pub host: Option<HostName>,
    /// `/etc/kubernetes/manifests/etcd.yaml`, `unit kubelet.service`, `ConfigMap kube-system/coredns`.
    pub what: String,
    /// How.
    pub change: Change,
    /// Line by line, where it may be shown: `-` what was, `+` what is.
    pub lines: Vec<String>,
}

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the second one has it.
    Added,
    /// Only the first one has it.
    Removed,
    /// Both have it.
    Changed,
}

/// A target with its contents.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub desired: &'a Desired,
    pub blobs: &'a Blobs,
}

/// Everything that differs between `was` and `is`, by host, then objects.
pub(super) fn differences(was: Side<'_>, is: Side<'_>) -> Vec<Difference> {
    let mut found = Vec::new();
    if was.desired.kubernetes != is.desired.kubernetes {
        let lines = vec![format!("-{}", was.desired.kubernetes), format!("+{}", is.desired.kubernetes)];
        found.push(Difference { host: None, what: "Kubernetes".to_owned(), change: Change::Changed, lines });
    }
    for (name, old, new) in paired(&was.desired.hosts, &is.desired.hosts) {
        let mut note = |what: String, change, lines| {
            found.push(Difference { host: Some(name.clone()), what, change, lines });
        };
        match (old, new) {
            (Some(old), Some(new)) => host(&mut note, (old, was.blobs), (new, is.blobs)),
            (None, _) => note("host".to_owned(), Change::Added, Vec::new()),
            (_, None) => note("host".to_owned(), Change::Removed, Vec::new()),
        }
    }
    let objects = |side: Side<'_>| -> BTreeMap<String, (Digest, bool)> {
        let of = |object: &crate::model::DesiredObject| (object.id.to_string(), (object.digest, object.secret));
        side.desired.objects.iter().map(of).collect()
    };
    for (id, old, new) in paired(&objects(was), &objects(is)) {
        let read = |blobs: &Blobs, digest: &Digest| -> Value {
            blobs.get(digest).and_then(|blob| serde_json::from_slice(blob.expose()).ok()).unwrap_or_default()
        };
        let (change, lines) = match (old, new) {
            (Some((a, _)), Some((b, _))) if a == b => continue,
            (Some((a, old_secret)), Some((b, new_secret))) => {
                let hidden = *old_secret || *new_secret;
                let lines = if hidden { Vec::new() } else { fields(&read(was.blobs, a), &read(is.blobs, b)) };
                (Change::Changed, lines)
            }
            (None, _) => (Change::Added, Vec::new()),
            (_, None) => (Change::Removed, Vec::new()),
        };
        found.push(Difference { host: None, what: id.clone(), change, lines });
    }
    found
}

/// Both maps' keys in order, with what each has.
fn paired<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<(&'a K, Option<&'a V>, Option<&'a V>)> {
    let keys: BTreeSet<&K> = a.keys().chain(b.keys()).collect();
    keys.into_iter().map(|key| (key, a.get(key), b.get(key))).collect()
}

fn host(
    note: &mut impl FnMut(String, Change, Vec<String>),
    (was, was_blobs): (&DesiredHost, &Blobs),
    (is, is_blobs): (&DesiredHost, &Blobs),
) {
    for (path, old, new) in paired(&was.files, &is.files) {
        match (old, new) {
            (Some(old), Some(new)) => {
                let mut lines = access(old.access, new.access);
                if old.digest != new.digest {
                    let contents = (was_blobs.get(&old.digest), is_blobs.get(&new.digest));
                    lines.extend(content(path.as_str(), contents, old.secret || new.secret));
                } else if lines.is_empty() {
                    continue;
                }
                note(path.to_string(), Change::Changed, lines);
            }
            (None, _) => note(path.to_string(), Change::Added, Vec::new()),
            (_, None) => note(path.to_string(), Change::Removed, Vec::new()),
        }
    }
    let units = |host: &DesiredHost| -> BTreeMap<String, Digest> {
        host.units.iter().map(|unit| (unit.name.to_string(), unit.inputs)).collect()
    };
    names(note, "unit", &units(was), &units(is));
    let images = |host: &DesiredHost| -> BTreeMap<String, Digest> {
        host.images.iter().map(|(name, image)| (name.to_string(), image.manifest)).collect()
    };
    names(note, "image", &images(was), &images(is));
    let users = |host: &DesiredHost| -> BTreeMap<String, (u32, u32)> {
        host.users.iter().map(|user| (user.name.clone(), (user.uid, user.gid))).collect()
    };
    names(note, "user", &users(was), &users(is));
    let folders = |host: &DesiredHost| -> BTreeMap<String, Access> {
        host.directories.iter().map(|directory| (directory.path.to_string(), directory.access)).collect()
    };
    for (path, old, new) in paired(&folders(was), &folders(is)) {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => note(format!("folder {path}"), Change::Changed, access(*old, *new)),
            (None, _) => note(format!("folder {path}"), Change::Added, Vec::new()),
            (_, None) => note(format!("folder {path}"), Change::Removed, Vec::new()),
        }
    }
    names(note, "label", &was.labels, &is.labels);
    let taints = |host: &DesiredHost| -> BTreeMap<String, String> {
        host.taints.iter().map(|taint| (format!("{}:{}", taint.key, taint.effect), taint.value.clone())).collect()
    };
    names(note, "taint", &taints(was), &taints(is));
}

fn names<V: PartialEq>(
    note: &mut impl FnMut(String, Change, Vec<String>),
    kind: &str,
    was: &BTreeMap<String, V>,
    is: &BTreeMap<String, V>,
) {
    for (name, old, new) in paired(was, is) {
        let change = match (old, new) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => Change::Changed,
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
        };
        note(format!("{kind} {name}"), change, Vec::new());
    }
}

fn access(was: Access, is: Access) -> Vec<String> {
    let words = |access: Access| format!("mode {:04o}, owner {}:{}", access.mode, access.uid, access.gid);
    if was == is { Vec::new() } else { vec![format!("-{}", words(was)), format!("+{}", words(is))] }
}

/// What may be shown of a changed file: nothing of a secret one, whoever says that it is one.
pub(super) fn content(path: &str, (was, is): (Option<&Content>, Option<&Content>), secret: bool) -> Vec<String> {
    let text = |content: Option<&Content>| content.and_then(Content::expose_text).map(str::to_owned);
    let (Some(was), Some(is)) = (text(was), text(is)) else { return Vec::new() };
    if secret || guarded(&was) || guarded(&is) {
        return Vec::new();
    }
    if path.starts_with(MANIFESTS)
        && let (Ok(was), Ok(is)) = (serde_saphyr::from_str(&was), serde_saphyr::from_str(&is))
    {
        return fields(&was, &is);
    }
    let diff = TextDiff::from_lines(&was, &is);
    let unified = diff.unified_diff().context_radius(2).to_string();
    let mut lines: Vec<String> = unified.lines().map(str::to_owned).collect();
    if lines.len() > LONGEST {
        let more = lines.len() - LONGEST;
        lines.truncate(LONGEST);
        lines.push(format!("… {more} more lines"));
    }
    lines
}

/// Keys, and certificates, whose letters tell nobody anything.
fn guarded(text: &str) -> bool {
    ["-----BEGIN ", "client-key-data", "EncryptionConfiguration"].iter().any(|mark| text.contains(mark))
}

/// The fields that differ, by their path; a program's flags by their names.
fn fields(was: &Value, is: &Value) -> Vec<String> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten(String::new(), was, &mut old);
    flatten(String::new(), is, &mut new);
    let mut lines = Vec::new();
    for (path, old, new) in paired(&old, &new) {
        if old != new {
            lines.extend(old.map(|value| format!("-{path}: {value}")));
            lines.extend(new.map(|value| format!("+{path}: {value}")));
        }
    }
    lines
}

fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let mut names: BTreeMap<String, usize> = BTreeMap::new();
            // Flags may be given several times.
            let mut nth = |name: &str| {
                let count = names.entry(name.to_owned()).or_default();
                *count += 1;
                if *count == 1 { name.to_owned() } else { format!("{name} ({count})") }
            };
            for (at, item) in items.iter().enumerate() {
                let flag = item.as_str().filter(|text| text.starts_with("--"));
                // One volume may be mounted several times, at different places.
                let named = item["mountPath"].as_str().or(item["name"].as_str());
                match (flag, named) {
                    (Some(flag), _) => {
                        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
                        into.insert(format!("{path} {}", nth(name)), value.to_owned());
                    }
                    (None, Some(name)) => flatten(format!("{path}[{}]", nth(name)), item, into),
                    (None, None) => flatten(format!("{path}[{at}]"), item, into),
                }
            }
        }
        Value::String(text) => {
            into.insert(path, text.clone());
        }
        other => {
            into.insert(path, other.to_string());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::content;
    use crate::model::Content;

    fn shown(path: &str, was: &str, is: &str, secret: bool) -> Vec<String> {
        content(path, (Some(&Content::new(was)), Some(&Content::new(is))), secret)
    }

    #[test]
    fn flags_are_compared_by_name_whatever_their_place() {
        let manifest = |flags: &str| {
            format!("spec:\n  containers:\n  - name: etcd\n    command:\n    - etcd\n{flags}    image: a\n")
        };
        let was = manifest("    - --b=1\n    - --a=1\n    - --gone=x\n");
        let is = manifest("    - --a=2\n    - --new=y\n    - --b=1\n");
        assert_eq!(
            shown("/etc/kubernetes/manifests/etcd.yaml", &was, &is, false),
            [
                "-spec.containers[etcd].command --a: 1",
                "+spec.containers[etcd].command --a: 2",
                "-spec.containers[etcd].command --gone: x",
                "+spec.containers[etcd].command --new: y",
            ]
        );
    }

    #[test]
    fn what_bears_a_name_twice_is_compared_too() {
        let manifest = |issuer: &str, read_only: bool| {
            format!(
                "spec:\n  containers:\n  - name: a\n    command:\n    - --issuer=x{issuer}\n    - --issuer=y\n    volumeMounts:\n    \
                 - {{name: pki, mountPath: /one, readOnly: {read_only}}}\n    - {{name: pki, mountPath: /two, readOnly: true}}\n"
            )
        };
        assert_eq!(
            shown("/etc/kubernetes/manifests/a.yaml", &manifest("", true), &manifest("2", false), false),
            [
                "-spec.containers[a].command --issuer: x",
                "+spec.containers[a].command --issuer: x2",
                "-spec.containers[a].volumeMounts[/one].readOnly: true",
                "+spec.containers[a].volumeMounts[/one].readOnly: false",
            ]
        );
    }

    #[test]
    fn other_files_are_compared_line_by_line() {
        assert_eq!(shown("/etc/a", "one\ntwo\n", "one\nthree\n", false), ["@@ -1,2 +1,2 @@", " one", "-two", "+three"]);
    }

    #[test]
    fn of_a_secret_not_a_letter_is_shown_whether_it_is_declared_or_recognized() {
        assert!(shown("/etc/a", "hunter1", "hunter2", true).is_empty());
        for text in [
            "-----BEGIN PRIVATE KEY-----\nhunter2",
            "client-key-data: hunter2",
            "kind: EncryptionConfiguration\n",
            "kind: \"EncryptionConfiguration\"\n",
        ] {
            assert!(shown("/etc/a", "nothing", text, false).is_empty(), "{text}");
            assert!(shown("/etc/kubernetes/manifests/a.yaml", text, "a: b", false).is_empty(), "{text}");
        }
    }
}
