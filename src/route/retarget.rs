//! A stored target with other keys: everything that was rendered from its own keys says what the other ones say, and
//! nothing else changes. No template is read: what a newer bastide would render differently stays as it was.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::Digest;
use crate::model::Keep;
use crate::model::RemotePath;
use crate::render;
use crate::route::key_rules;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::EncryptionKey;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// Where the kubelet looks for static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Leaves that stand with a chain in their files.
const SERVERS: [LeafName; 2] = [LeafName::ApiServer, LeafName::KubeletServer];

/// A target with its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retargeted {
    /// The hosts and objects.
    pub desired: Desired,
    /// Rendered contents.
    pub blobs: Blobs,
}

/// `desired`, which was rendered from `was`, as if it had been rendered from `now`. Both must hold the same leaves; where
/// they do not, what was rendered from the surplus stays as it is.
pub fn retarget(desired: &Desired, blobs: &Blobs, was: &Secrets, now: &Secrets) -> Retargeted {
    let handed = handed(desired, blobs, was, now);
    let (desired, blobs) = handed.as_ref().map_or((desired, blobs), |(desired, blobs)| (desired, blobs));
    let words = Words::between(was, now);
    let mut out = Retargeted { desired: desired.clone(), blobs: Blobs::default() };
    let mut moved = BTreeMap::new();
    let keys = encryption_files(desired, blobs, was, now);
    for (digest, content) in &blobs.0 {
        let other = keys.as_ref().filter(|(files, _)| files.contains(digest)).map(|(_, content)| content.clone());
        let (new, size) = match other.or_else(|| words.replaced(content)) {
            Some(new) => {
                let size = new.len() as u64;
                (out.blobs.insert(new), size)
            }
            None => (out.blobs.insert(content.clone()), content.len() as u64),
        };
        moved.insert(*digest, (new, size));
    }
    let signer = signer(was, now);
    for host in out.desired.hosts.values_mut() {
        let before = host.clone();
        for file in host.files.values_mut() {
            if let Some((digest, size)) = moved.get(&file.digest) {
                (file.digest, file.size) = (*digest, *size);
            }
            if let (Keep::Seeded { authorities, .. }, Some((old, new))) = (&mut file.keep, signer)
                && authorities.contains(old)
            {
                *authorities = vec![new.clone()];
            }
        }
        sign(&before, host, signer, &mut out.blobs);
        restarts(&before, host, blobs, &mut out.blobs);
    }
    for object in &mut out.desired.objects {
        if let Some((digest, _)) = moved.get(&object.digest) {
            object.digest = *digest;
        }
    }
    out
}

/// A target in which another one signs kubelets' renewals than before, or nobody; None where it stays as it is.
fn handed(desired: &Desired, blobs: &Blobs, was: &Secrets, now: &Secrets) -> Option<(Desired, Blobs)> {
    let of = |secrets: &Secrets| secrets.external().contains(&AuthorityName::Kubernetes);
    if of(was) == of(now) {
        return None;
    }
    let (mut desired, mut blobs) = (desired.clone(), blobs.clone());
    let signer = now.authorities.get(&AuthorityName::Kubernetes).filter(|set| !set.external);
    for host in desired.hosts.values_mut() {
        render::renewals_signed_by(signer, host, &mut blobs);
    }
    Some((desired, blobs))
}

/// The files with the keys of `was` for encryption at rest, and what they say with those of `now`: lists of keys may differ in
/// their length, so that this file is made anew as a whole. A configuration of the user's own holds none of these keys and
/// stays.
fn encryption_files(
    desired: &Desired,
    blobs: &Blobs,
    was: &Secrets,
    now: &Secrets,
) -> Option<(BTreeSet<Digest>, Content)> {
    let first = was.encryption.first().filter(|_| was.encryption != now.encryption)?;
    let key = STANDARD.encode(first.key.expose());
    let files = desired.hosts.values().flat_map(|host| &host.files);
    let labels: Vec<_> = was.encryption.iter().map(EncryptionKey::label).collect();
    // On the way from or to a configuration of the user's own, keys of both stand in the file: it stays as well.
    let alone = |text: &str| key_rules(text).is_some_and(|rules| rules.len() == 1 && rules[0].keys == labels);
    let ours = files.filter(|(path, file)| {
        let text = blobs.get(&file.digest).and_then(Content::expose_text);
        path.as_str() == render::ENCRYPTION && text.is_some_and(|text| text.contains(&key) && alone(text))
    });
    Some((ours.map(|(_, file)| file.digest).collect(), render::encryption_file(&now.encryption).ok()?))
}

/// The certificate of the authority that issues for kubelets, then and now.
fn signer<'a>(was: &'a Secrets, now: &'a Secrets) -> Option<(&'a String, &'a String)> {
    let of = |secrets: &'a Secrets| Some(&secrets.authorities.get(&AuthorityName::Kubernetes)?.certificate);
    Some((of(was)?, of(now)?))
}

/// The signer's own file holds one certificate, whatever is trusted beside it: outside a rotation it has the same bytes as the files
/// with all that is trusted, so that its content alone does not tell what it is.
fn sign(before: &DesiredHost, host: &mut DesiredHost, signer: Option<(&String, &String)>, blobs: &mut Blobs) {
    let Some((old, new)) = signer else { return };
    let written = |path: &RemotePath| before.files.get(path).map(|file| file.digest);
    for (path, file) in host.files.iter_mut().filter(|(path, _)| path.as_str() == render::SIGNER) {
        if written(path) == Some(Digest::of(old.as_bytes())) {
            let content = Content::new(new.as_bytes());
            file.size = content.len() as u64;
            file.digest = blobs.insert(content);
        }
    }
}

/// Brings the inputs of units and static pods, and the manifests that carry them, to the files' new contents.
fn restarts(before: &DesiredHost, host: &mut DesiredHost, old: &Blobs, new: &mut Blobs) {
    let digests = |of: &DesiredHost, paths: &[RemotePath]| -> Option<Vec<Digest>> {
        paths.iter().map(|path| Some(of.files.get(path)?.digest)).collect()
    };
    let listed = before.restarts.clone();
    for unit in &mut host.units {
        let known = listed.get(unit.name.as_str()).and_then(|paths| {
            let told = render::unit_inputs(&digests(before, paths)?) == unit.inputs;
            told.then(|| Some(render::unit_inputs(&host_digests(&host.files, paths)?)))?
        });
        unit.inputs = known.unwrap_or_else(|| mixed(unit.inputs, before, &host.files, unit.component));
    }
    let pods: Vec<(String, Digest)> = host.pods.iter().map(|(pod, inputs)| (pod.clone(), *inputs)).collect();
    for (pod, inputs) in pods {
        let Some(path) = manifest_of(host, &pod) else { continue };
        let Some(file) = host.files.get(&path) else { continue };
        let component = file.component;
        let Some(text) = before.files.get(&path).and_then(|file| old.get(&file.digest)?.expose_text()) else {
            continue;
        };
        let bare = text.replacen(&inputs.to_string(), "", 1);
        let over = |digests: Vec<Digest>, paths: &[RemotePath]| {
            render::pod_inputs(&bare, paths.iter().map(RemotePath::as_str).zip(digests))
        };
        let known = listed.get(&pod).and_then(|paths| {
            let told = over(digests(before, paths)?, paths) == inputs;
            told.then(|| Some(over(host_digests(&host.files, paths)?, paths)))?
        });
        let fresh = known.unwrap_or_else(|| mixed(inputs, before, &host.files, component));
        if fresh == inputs {
            continue;
        }
        let digest = new.insert(Content::new(text.replacen(&inputs.to_string(), &fresh.to_string(), 1)));
        if let Some(file) = host.files.get_mut(&path) {
            file.digest = digest;
        }
        host.pods.insert(pod, fresh);
    }
}

fn host_digests(files: &BTreeMap<RemotePath, crate::model::File>, paths: &[RemotePath]) -> Option<Vec<Digest>> {
    paths.iter().map(|path| Some(files.get(path)?.digest)).collect()
}

/// Inputs of which it is not known what they cover: they change with any file of their component, so that a restart is
/// done that may not have been needed rather than left out.
fn mixed(
    inputs: Digest,
    before: &DesiredHost,
    files: &BTreeMap<RemotePath, crate::model::File>,
    component: crate::model::Component,
) -> Digest {
    let changed = files.iter().filter(|(path, file)| {
        file.component == component
            && file.keep == Keep::Managed
            && before.files.get(*path).is_none_or(|old| old.digest != file.digest)
    });
    let all: String = changed.map(|(path, file)| format!("{path} {}\n", file.digest)).collect();
    if all.is_empty() { inputs } else { Digest::of(format!("{inputs}\n{all}").as_bytes()) }
}

fn manifest_of(host: &DesiredHost, pod: &str) -> Option<RemotePath> {
    let name = format!("{pod}.yaml");
    host.files.keys().find(|path| path.parent() == MANIFESTS && path.as_str().ends_with(&format!("/{name}"))).cloned()
}

/// What is said in place of what: each key and certificate in every form in which it is rendered.
struct Words(Vec<(Content, Content)>);

impl Words {
    fn between(was: &Secrets, now: &Secrets) -> Self {
        let mut words = Self(Vec::new());
        for (name, old) in &was.authorities {
            if let Some(new) = now.authorities.get(name) {
                words.text(old.trust_bundle().as_bytes(), new.trust_bundle().as_bytes());
                words.text(old.key.expose(), new.key.expose());
            }
        }
        let public = |secrets: &Secrets| -> String {
            secrets.service_account.verifying.iter().map(|pem| format!("{}\n", pem.trim_end())).collect()
        };
        words.text(public(was).as_bytes(), public(now).as_bytes());
        words.text(was.service_account.signing.expose(), now.service_account.signing.expose());
        for (id, old) in &was.leaves {
            if let Some(new) = now.leaves.get(id) {
                if SERVERS.contains(&id.name)
                    && let (Some(old), Some(new)) = (secrets::serving_chain(was, id), secrets::serving_chain(now, id))
                {
                    words.text(old.as_bytes(), new.as_bytes());
                }
                words.text(old.certificate.as_bytes(), new.certificate.as_bytes());
                words.text(old.key.expose(), new.key.expose());
            }
        }
        // The longest first: a bundle before the certificate that it begins with.
        words.0.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
        words
    }

    /// A PEM text: as it stands in files, in base64 as kubeconfigs and objects have it, and as a JSON string.
    fn text(&mut self, old: &[u8], new: &[u8]) {
        self.word(STANDARD.encode(old).as_bytes(), STANDARD.encode(new).as_bytes());
        let (old, new) = (old.trim_ascii_end(), new.trim_ascii_end());
        self.word(old, new);
        if let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) {
            let escaped = |text: &str| Content::new(text.replace('\n', "\\n"));
            self.word(escaped(old).expose(), escaped(new).expose());
        }
    }

    fn word(&mut self, old: &[u8], new: &[u8]) {
        if old != new && !old.is_empty() && self.0.iter().all(|(known, _)| known.expose() != old) {
            self.0.push((Content::new(old), Content::new(new)));
        }
    }

    /// The content with every word exchanged, in one pass, so that nothing is exchanged twice. None where there is none.
    fn replaced(&self, content: &Content) -> Option<Content> {
        let bytes = content.expose();
        // Room for the whole result: growing would leave copies of keys in freed memory.
        let mut out = Vec::with_capacity(bytes.len() * 2 + 4096);
        let mut rest = bytes;
        let mut found = false;
        while let Some(first) = rest.first() {
            if let Some((old, new)) = self.0.iter().find(|(old, _)| rest.starts_with(old.expose())) {
                found = true;
                out.extend_from_slice(new.expose());
                rest = &rest[old.len()..];
            } else {
                out.push(*first);
                rest = &rest[1..];
            }
        }
        let out = Content::new(out);
        found.then_some(out)
    }
}
