//! A cluster whose kept secrets nobody can open any more: its keys from its hosts.
//!
//! Where each key lies is read from a target that was rendered with others of the same kind, so that no second list of places can
//! differ from what is rendered.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::config::Cluster;
use crate::model::Blobs;
use crate::model::ClusterId;
use crate::model::Content;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::RemotePath;
use crate::render;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::EncryptionKey;
use crate::secrets::Entropy;
use crate::secrets::EtcdBirth;
use crate::secrets::Found;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::ServiceAccountKeys;

const CA: &str = "/etc/kubernetes/pki/ca.crt";
const CA_KEY: &str = "/etc/kubernetes/pki/ca.key";
const FRONT_PROXY: &str = "/etc/kubernetes/pki/front-proxy-ca.crt";
const TOKEN_KEY: &str = "/etc/kubernetes/pki/sa.key";
const TOKEN_KEYS: &str = "/etc/kubernetes/pki/sa.pub";
const SERVER: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const ETCD_CA: &str = "/etc/etcd/pki/ca.crt";
const MEMBER: &str = "/etc/kubernetes/manifests/etcd.yaml";
/// What every control plane holds for the cluster, beside its leaves.
const SERVERS: [&str; 8] = [CA, CA_KEY, render::SIGNER, FRONT_PROXY, TOKEN_KEY, TOKEN_KEYS, render::ENCRYPTION, SERVER];
const MEMBERS: [&str; 2] = [ETCD_CA, MEMBER];

/// The files of a host by their paths, as far as they are there.
pub type Files = BTreeMap<RemotePath, Content>;

/// Where a cluster's keys lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    leaves: BTreeMap<LeafId, BTreeSet<RemotePath>>,
    shared: BTreeMap<HostName, BTreeSet<RemotePath>>,
}

impl Places {
    /// In a target, whose contents hold `secrets`.
    pub fn of(target: &Desired, blobs: &Blobs, secrets: &Secrets) -> Self {
        let mut places = Self { leaves: BTreeMap::new(), shared: BTreeMap::new() };
        for (name, host) in &target.hosts {
            let texts: Vec<_> = host
                .files
                .iter()
                .filter_map(|(path, file)| Some((path, blobs.get(&file.digest)?.expose_text()?)))
                .collect();
            for (id, leaf) in secrets.leaves.iter().filter(|(id, _)| id.host.as_ref() == Some(name)) {
                let words = [leaf.certificate.as_bytes(), leaf.key.expose()].map(|pem| {
                    let plain = String::from_utf8_lossy(pem).trim_end().to_owned();
                    [Content::new(plain), Content::new(STANDARD.encode(pem))]
                });
                let holds =
                    |text: &str| words.iter().flatten().filter_map(Content::expose_text).any(|w| text.contains(w));
                let paths = texts.iter().filter(|(_, text)| holds(text)).map(|(path, _)| (*path).clone());
                places.leaves.insert(id.clone(), paths.collect());
            }
            let servers = SERVERS.iter().filter(|_| host.roles.control_plane());
            let members = MEMBERS.iter().filter(|_| host.roles.etcd());
            let paths = servers.chain(members).filter_map(|path| RemotePath::new(*path).ok());
            places.shared.insert(name.clone(), paths.collect());
        }
        places
    }

    /// All that is to be read on this host.
    pub fn on(&self, host: &HostName) -> BTreeSet<RemotePath> {
        let leaves = self.leaves.iter().filter(|(id, _)| id.host.as_ref() == Some(host));
        leaves.flat_map(|(_, paths)| paths).chain(self.shared.get(host).into_iter().flatten()).cloned().collect()
    }
}

/// The keys of the cluster `id` as its hosts hold them. The keys of the etcd and the front-proxy authority are on no host: these are
/// lost ([`AuthoritySet::is_lost`]). What cannot be read of a host's own certificates is left out, and is issued anew.
///
/// # Errors
/// Every reason why they cannot be taken up: something that only the hosts could tell is missing, or hosts tell different things.
pub fn taken_over(
    cluster: &Cluster,
    id: &ClusterId,
    places: &Places,
    found: &BTreeMap<HostName, Files>,
    entropy: &mut dyn Entropy,
) -> Result<Secrets, Vec<String>> {
    let mut trouble = Vec::new();
    let leaves: BTreeMap<_, _> = places
        .leaves
        .iter()
        .filter_map(|(id, paths)| {
            let files = found.get(id.host.as_ref()?)?;
            let leaf = Found::read(paths.iter().filter_map(|path| files.get(path))).leaf()?;
            Some((id.clone(), leaf))
        })
        .collect();
    let members: BTreeSet<_> = cluster.etcd_members().map(|node| node.name.clone()).collect();
    let servers: BTreeSet<_> = cluster.control_planes().map(|node| node.name.clone()).collect();
    let signed = |name: LeafName, host: &HostName| leaves.get(&LeafId::of(name, host));
    let lost = |files: &Files, path: &str, leaf| read(files, &[path]).lost_authority(leaf?);

    let kubernetes =
        |_: &HostName, files: &Files| read(files, &[render::SIGNER, CA_KEY]).authority(&read(files, &[CA]));
    let what = "the Kubernetes authority (pki/signer.crt, pki/ca.key, pki/ca.crt)";
    let kubernetes = agreed(&servers, found, what, kubernetes, &mut trouble);
    let tokens = |_: &HostName, files: &Files| read(files, &[TOKEN_KEY, TOKEN_KEYS]).service_account();
    let tokens =
        agreed(&servers, found, "the key for service-account tokens (pki/sa.key, pki/sa.pub)", tokens, &mut trouble);
    let front = |host: &HostName, files: &Files| lost(files, FRONT_PROXY, signed(LeafName::FrontProxyClient, host));
    let what = "the front proxy's certificate and its authority's (pki/front-proxy-client.*, pki/front-proxy-ca.crt)";
    let front = agreed(&servers, found, what, front, &mut trouble);
    let etcd = |host: &HostName, files: &Files| lost(files, ETCD_CA, signed(LeafName::EtcdServer, host));
    let what = "etcd's certificate and its authority's (/etc/etcd/pki)";
    let etcd = agreed(&members, found, what, etcd, &mut trouble);
    let birth =
        agreed(&members, found, "etcd's birth data (manifests/etcd.yaml)", |_, files| birth(files), &mut trouble);
    let encryption = encryption(cluster, &servers, found, entropy, &mut trouble);

    for host in &servers {
        let version = found.get(host).and_then(version);
        if version.as_ref().is_some_and(|version| *version != cluster.kubernetes.to_string()) {
            trouble.push(format!(
                "{host}: runs Kubernetes {}, and cluster.yml asks for {}",
                version.unwrap_or_default(),
                cluster.kubernetes
            ));
        }
    }
    if let Some(birth) = birth.as_ref().filter(|birth| birth.members.keys().ne(&members)) {
        let names = |names: Vec<&HostName>| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        trouble.push(format!(
            "etcd was made with the members {}, and cluster.yml names {}",
            names(birth.members.keys().collect()),
            names(members.iter().collect())
        ));
    }
    // Nothing can be issued from an authority whose key is lost, not even what is missing.
    for (hosts, name) in [
        (&members, LeafName::EtcdServer),
        (&members, LeafName::EtcdPeer),
        (&members, LeafName::EtcdHealthcheck),
        (&servers, LeafName::ApiServerEtcdClient),
        (&servers, LeafName::FrontProxyClient),
    ] {
        let missing = hosts.iter().filter(|host| found.contains_key(*host) && signed(name, host).is_none());
        trouble.extend(missing.map(|host| format!("{host}: its {} certificate cannot be read", name.as_str())));
    }
    match (kubernetes, tokens, front, etcd, birth, encryption) {
        (Some(kubernetes), Some(service_account), Some(front), Some(etcd), Some(birth), Some(encryption))
            if trouble.is_empty() =>
        {
            let authorities = [
                (AuthorityName::Kubernetes, kubernetes),
                (AuthorityName::Etcd, etcd),
                (AuthorityName::FrontProxy, front),
            ];
            let authorities: BTreeMap<_, AuthoritySet> = authorities.into();
            let service_account: ServiceAccountKeys = service_account;
            Ok(Secrets { cluster: id.clone(), authorities, service_account, encryption, leaves, etcd: birth })
        }
        _ => Err(trouble),
    }
}

fn read(files: &Files, paths: &[&str]) -> Found {
    Found::read(paths.iter().filter_map(|path| at(files, path)))
}

fn at<'a>(files: &'a Files, path: &str) -> Option<&'a Content> {
    files.get(&RemotePath::new(path).ok()?)
}

/// What all of these hosts say alike.
fn agreed<T: PartialEq>(
    hosts: &BTreeSet<HostName>,
    found: &BTreeMap<HostName, Files>,
    what: &str,
    read: impl Fn(&HostName, &Files) -> Option<T>,
    trouble: &mut Vec<String>,
) -> Option<T> {
    let mut first: Option<(&HostName, T)> = None;
    for host in hosts {
        let Some(files) = found.get(host) else {
            let silent = format!("{host}: does not answer");
            if !trouble.contains(&silent) {
                trouble.push(silent);
            }
            continue;
        };
        match (read(host, files), &first) {
            (None, _) => trouble.push(format!("{host}: {what} cannot be read, or do not belong together")),
            (Some(read), None) => first = Some((host, read)),
            (Some(read), Some((other, known))) if read != *known => trouble.push(format!(
                "{host}: {what} are not those of {other}: a change of them was begun and not brought to its end"
            )),
            (Some(_), Some(_)) => {}
        }
    }
    first.map(|(_, read)| read)
}

/// The keys that API servers have for encryption at rest. In the middle of a rotation some have more than others: the longest list
/// is taken, which must hold all others, and whose first key everybody must know.
fn encryption(
    cluster: &Cluster,
    servers: &BTreeSet<HostName>,
    found: &BTreeMap<HostName, Files>,
    entropy: &mut dyn Entropy,
    trouble: &mut Vec<String>,
) -> Option<Vec<EncryptionKey>> {
    if cluster.services.api.custom_encryption.is_some() {
        return secrets::spare_encryption_key(entropy).map(|key| vec![key]).ok();
    }
    let mut lists = Vec::new();
    for (host, files) in found.iter().filter(|(host, _)| servers.contains(*host)) {
        match at(files, render::ENCRYPTION).and_then(secrets::encryption_keys) {
            Some(keys) => lists.push(keys),
            None => trouble.push(format!("{host}: {} is not one that bastide wrote", render::ENCRYPTION)),
        }
    }
    let longest = lists.iter().max_by_key(|keys| keys.len())?;
    let writer = longest.first()?;
    let fit = lists.iter().all(|keys| keys.iter().all(|key| longest.contains(key)) && keys.contains(writer));
    if !fit {
        trouble.push("the API servers' keys for encryption at rest do not fit together".to_owned());
    }
    Some(longest.clone())
}

/// A static pod's command.
fn command(manifest: &Content) -> Option<Vec<String>> {
    let pod: Value = serde_saphyr::from_str(manifest.expose_text()?).ok()?;
    let words = pod["spec"]["containers"][0]["command"].as_array()?;
    Some(words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect())
}

fn birth(files: &Files) -> Option<EtcdBirth> {
    let command = command(at(files, MEMBER)?)?;
    let flag = |name: &str| command.iter().find_map(|word| word.strip_prefix(name));
    let token = flag("--initial-cluster-token=")?.to_owned();
    let members = flag("--initial-cluster=")?.split(',').map(|member| {
        let (name, url) = member.split_once('=')?;
        Some((HostName::new(name).ok()?, url.to_owned()))
    });
    Some(EtcdBirth { token, members: members.collect::<Option<_>>()?, away: BTreeSet::new(), joining: None })
}

/// Of the API server's image.
fn version(files: &Files) -> Option<String> {
    let pod: Value = serde_saphyr::from_str(at(files, SERVER)?.expose_text()?).ok()?;
    let (_, tag) = pod["spec"]["containers"][0]["image"].as_str()?.rsplit_once(':')?;
    Some(tag.to_owned())
}
