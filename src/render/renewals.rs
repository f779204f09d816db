//! What differs in a host's target between a cluster that signs kubelets' renewals and one in which nobody does, because the Kubernetes
//! authority is an external one: a stored target is taken from the one to the other without a template.

use crate::model::Access;
use crate::model::Blobs;
use crate::model::CertificateWatch;
use crate::model::Component;
use crate::model::Content;
use crate::model::DesiredHost;
use crate::model::Digest;
use crate::model::File;
use crate::model::Keep;
use crate::model::RemotePath;
use crate::render::controller_manager;
use crate::render::draft::literal;
use crate::render::draft::unit_inputs;
use crate::render::kubelet;
use crate::render::pod::pod_inputs;
use crate::render::watch;
use crate::secrets::AuthoritySet;

/// Who is restarted where another authority issues.
const CLIENTS: [Component; 3] = [Component::ControllerManager, Component::Scheduler, Component::Proxy];

/// `host` as it would be if `signer` signed kubelets' renewals; without one, as if nobody did.
pub fn renewals_signed_by(signer: Option<&AuthoritySet>, host: &mut DesiredHost, blobs: &mut Blobs) {
    let (certificate, key) = (literal(controller_manager::SIGNER), literal(controller_manager::SIGNER_KEY));
    for path in [&certificate, &key] {
        if let Some(file) = host.files.remove(path).filter(|_| *path == key) {
            // Nothing else has the same bytes.
            blobs.0.remove(&file.digest);
        }
    }
    if let Some(set) = signer {
        let component = controller_manager::signer_component(&host.roles);
        let mut put = |path: &RemotePath, component, content: Content, secret| {
            let (size, access, keep) = (content.len() as u64, Access::root(0o600), Keep::Managed);
            let digest = blobs.insert(content);
            host.files.insert(path.clone(), File { digest, size, access, component, keep, secret });
        };
        put(&certificate, component, Content::new(set.certificate.as_bytes()), false);
        if host.roles.control_plane() {
            put(&key, Component::ControllerManager, set.key.clone(), true);
        }
    }
    pairs(signer, host);
    for component in CLIENTS {
        manifest(component, signer.is_some(), host, blobs);
    }
    watched(host, blobs);
}

/// The kubelet's own pair: its own to renew, or bastide's to bring, for which the kubelet is restarted.
fn pairs(signer: Option<&AuthoritySet>, host: &mut DesiredHost) {
    let pair = literal(kubelet::PAIR);
    if let Some(file) = host.files.get_mut(&pair) {
        file.keep = match signer {
            Some(set) => Keep::Seeded { authorities: vec![set.certificate.clone()], since: None },
            None => Keep::Managed,
        };
    }
    let Some(unit) = host.units.iter_mut().find(|unit| unit.name.as_str() == kubelet::UNIT) else { return };
    let before = host.restarts.get(kubelet::UNIT).cloned().unwrap_or_default();
    let mut paths: Vec<_> = before.iter().filter(|path| **path != pair).cloned().collect();
    if signer.is_none() {
        let at = paths.iter().position(|path| path.as_str() == kubelet::PREPARE).unwrap_or(paths.len());
        paths.insert(at, pair);
    }
    let digests: Option<Vec<Digest>> = paths.iter().map(|path| Some(host.files.get(path)?.digest)).collect();
    // Of a target from before its inputs were listed it is only known that they differ.
    unit.inputs = match digests.filter(|_| !before.is_empty()) {
        Some(digests) => unit_inputs(&digests),
        None => unit_inputs(&[unit.inputs]),
    };
    if !before.is_empty() {
        host.restarts.insert(kubelet::UNIT.to_owned(), paths);
    }
}

/// What a static pod is restarted for, and the controller manager's flags.
fn manifest(component: Component, signs: bool, host: &mut DesiredHost, blobs: &mut Blobs) {
    let pod = component.as_str();
    let Ok(path) = RemotePath::new(format!("/etc/kubernetes/manifests/{pod}.yaml")) else { return };
    let (Some(file), Some(inputs)) = (host.files.get(&path), host.pods.get(pod).copied()) else { return };
    let Some(text) = blobs.get(&file.digest).and_then(Content::expose_text) else { return };
    let mut bare = text.replacen(&inputs.to_string(), "", 1);
    if component == Component::ControllerManager {
        for (name, value) in controller_manager::SIGNING {
            bare = with_flag(&bare, name, signs.then_some(value));
        }
    }
    if let Some(listed) = host.restarts.get_mut(pod) {
        let signer = literal(controller_manager::SIGNER);
        listed.retain(|path| *path != signer);
        if signs {
            listed.push(signer);
            listed.sort();
        }
    }
    let listed = host.restarts.get(pod).cloned().unwrap_or_default();
    let digests = listed.iter().filter_map(|path| Some((path.as_str(), host.files.get(path)?.digest)));
    let fresh = pod_inputs(&bare, digests);
    // The annotation's value is the only empty text of a manifest.
    let text = bare.replacen("\"\"", &format!("\"{fresh}\""), 1);
    let digest = blobs.insert(Content::new(text.as_bytes()));
    if let Some(file) = host.files.get_mut(&path) {
        (file.digest, file.size) = (digest, text.len() as u64);
    }
    host.pods.insert(pod.to_owned(), fresh);
}

/// A manifest's text with that flag, in its place among the others, or without it.
fn with_flag(text: &str, name: &str, value: Option<&str>) -> String {
    let named = |line: &str| {
        let (name, _) = line.trim_start().strip_prefix("- \"--")?.split_once(['=', '"'])?;
        Some(name.to_owned())
    };
    let mut lines: Vec<String> =
        text.lines().filter(|line| named(line).as_deref() != Some(name)).map(str::to_owned).collect();
    let flags: Vec<_> = lines.iter().enumerate().filter_map(|(at, line)| Some((at, named(line)?))).collect();
    if let (Some(value), Some((last, _))) = (value, flags.last()) {
        let at = flags.iter().find(|(_, other)| other.as_str() > name).map_or(last + 1, |(at, _)| *at);
        let indent: String = lines[*last].chars().take_while(|char| *char == ' ').collect();
        lines.insert(at, format!("{indent}- \"--{name}={value}\""));
    }
    lines.into_iter().fold(String::new(), |all, line| all + &line + "\n")
}

/// What the host looks after among its own certificates.
fn watched(host: &mut DesiredHost, blobs: &mut Blobs) {
    let path = literal(watch::SETTINGS);
    let Some(file) = host.files.get(&path) else { return };
    let read = |text: &str| serde_json::from_str::<CertificateWatch>(text).ok();
    let Some(mut settings) = blobs.get(&file.digest).and_then(Content::expose_text).and_then(read) else { return };
    let pair = literal(kubelet::PAIR);
    let renewed = host.files.get(&pair).is_some_and(|file| matches!(file.keep, Keep::Seeded { .. }));
    settings.renewed = if renewed { vec![pair] } else { Vec::new() };
    let signer = literal(controller_manager::SIGNER);
    settings.files.retain(|path| *path != signer);
    if host.files.contains_key(&signer) {
        settings.files.push(signer);
        settings.files.sort();
    }
    let content = Content::new(watch::written(&settings));
    if let Some(file) = host.files.get_mut(&path) {
        file.size = content.len() as u64;
        file.digest = blobs.insert(content);
    }
}

#[cfg(test)]
mod tests {
    use super::with_flag;

    #[test]
    fn a_flag_finds_its_place_among_the_others_and_leaves_it() {
        let text = "a:\n  - \"program\"\n  - \"--b=1\"\n  - \"--d=2\"\nprobe: \"--x\"\n";
        let with = with_flag(text, "c", Some("3"));
        assert_eq!(with, "a:\n  - \"program\"\n  - \"--b=1\"\n  - \"--c=3\"\n  - \"--d=2\"\nprobe: \"--x\"\n");
        assert_eq!(with_flag(&with, "c", None), text);
        let last = with_flag(text, "z", Some("3"));
        assert!(last.contains("  - \"--d=2\"\n  - \"--z=3\"\nprobe"), "{last}");
        assert_eq!(with_flag(text, "d", Some("2")), text);
    }
}
